"""R20: feature services: fallbacks in order, providers that are down, variants, and training sets under the same rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from fakes import PolledLog
from makers import at, table

import alignment as al
from alignment.definitions import describe_service, read_service
from alignment.service_binding import bind

SATELLITE = table(
    "site event_time arrival_time ghi cloud log_sequence",
    ("a", "10:00", "10:05", 100.0, 1, 0),
    ("a", "10:30", "10:35", 200.0, None, 1),
    ("a", "12:00", "12:05", None, 3, 2),
    ghi=pl.Float64,
    cloud=pl.Int16,
)
BACKUP = table(
    "site event_time arrival_time ghi cloud mode log_sequence",
    ("a", "10:00", "10:10", 110.0, 7, "x", 0),
    ("a", "11:00", "11:10", 190.0, 8, "y", 1),
    ghi=pl.Float64,
    cloud=pl.Int8,
)


def satellite(frame: Any = SATELLITE, *features: Any) -> al.FeatureView:
    features = features or (al.latest("ghi", max_event_age="1h"), al.latest("cloud"))
    return al.FeatureView("satellite", ["site"], frame, features)


def backup(*features: Any) -> al.FeatureView:
    features = features or (al.latest("ghi", max_event_age="1h"), al.latest("cloud"), al.latest("mode"))
    return al.FeatureView("backup", ["site"], BACKUP, features)


def power(**more: Any) -> al.FeatureService:
    given: dict[str, Any] = {"fallbacks": {"satellite__ghi": ["backup__ghi", 0.0]}, "down_after": {"satellite": "30m"}}
    return al.FeatureService("power", more.pop("features", ["satellite__ghi"]), **given | more)


def sites(*instants: str) -> pl.DataFrame:
    return table("site prediction_time", *(("a", instant) for instant in instants))


def told(service: al.FeatureService, *instants: str, views: Any = None, **more: Any) -> list[tuple[Any, str]]:
    frame = al.point_in_time_join(
        sites(*instants), views or [satellite(), backup()], service=service, sources=True, **more
    )
    return list(zip(frame["satellite__ghi"], frame["satellite__ghi__source"], strict=True))


# --- fallbacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_the_first_source_that_is_up_and_has_an_answer_answers(engine):
    found = told(power(), "10:00", "10:05", "10:40", "11:12", "12:06", engine=engine)
    assert found == [
        (0.0, "constant"),  # nothing has arrived yet: the satellite was never heard of, the backup is missing
        (100.0, "satellite__ghi"),
        (200.0, "satellite__ghi"),
        (190.0, "backup__ghi"),  # the satellite's last row came at 10:35, more than 30m before
        (None, "satellite__ghi"),  # a null is what the satellite says
    ]


def test_a_provider_is_down_exactly_down_after_its_last_heartbeat():
    # The last heartbeat is at 10:35. It lies in (t - 30m, t] until t = 11:05, which is the first t of the outage.
    assert told(power(), "11:04:59.999999", "11:05") == [(200.0, "satellite__ghi"), (0.0, "constant")]


def test_a_provider_without_down_after_is_never_down_and_its_status_decides():
    service = power(down_after=None)
    # At 11:05 the event of 10:30 is 35 minutes old; at 11:31 it is older than the view's hour, and the backup answers.
    assert told(service, "11:05", "11:30", "11:31") == [
        (200.0, "satellite__ghi"),
        (200.0, "satellite__ghi"),
        (190.0, "backup__ghi"),
    ]


def test_one_down_after_can_be_for_all_providers():
    # At 11:45 the backup's last row (11:10) is 35 minutes old as well.
    assert told(power(down_after="30m"), "11:12", "11:45") == [(190.0, "backup__ghi"), (0.0, "constant")]
    assert told(power(), "11:45") == [(190.0, "backup__ghi")]


def test_a_null_is_passed_over_where_that_is_asked_for():
    # At 12:06 the backup's event of 11:00 is older than an hour, so the constant is next.
    assert told(power(skip_null=True), "12:06") == [(0.0, "constant")]


def test_a_retracted_value_is_no_answer():
    gone = SATELLITE[:1].with_columns(is_retraction=True, arrival_time=pl.lit(at("10:07")), log_sequence=3)
    frame = pl.concat([SATELLITE[:1].with_columns(is_retraction=False), gone], how="diagonal_relaxed")
    assert told(power(), "10:06", "10:15", views=[satellite(frame), backup()]) == [
        (100.0, "satellite__ghi"),
        (110.0, "backup__ghi"),
    ]


def test_where_nothing_can_answer_the_feature_answers_itself():
    service = power(fallbacks={"satellite__ghi": "backup__ghi"})
    views = [satellite(), backup()]
    found = al.point_in_time_join(sites("11:06", "11:12", "12:04"), views, service=service, status=True, sources=True)
    assert [row[2:5] for row in found.rows()] == [
        (200.0, "present", "satellite__ghi"),  # down, but the backup's event of 10:00 is older than an hour
        (190.0, "present", "backup__ghi"),
        (None, "expired", "satellite__ghi"),  # both are too old, and the satellite's status says so
    ]


def test_the_status_is_that_of_the_source_and_a_constant_is_present():
    frame = al.point_in_time_join(sites("10:00", "12:06"), [satellite(), backup()], service=power(), status=True)
    assert frame["satellite__ghi__status"].to_list() == ["present", "null"]
    assert frame.columns == ["site", "prediction_time", "satellite__ghi", "satellite__ghi__status", "provisional"]


def test_the_column_keeps_its_features_type():
    service = power(features=["satellite__cloud"], fallbacks={"satellite__cloud": ["backup__cloud", -1]})
    frame = al.point_in_time_join(sites("10:00", "10:06", "11:12"), [satellite(), backup()], service=service)
    assert frame.schema["satellite__cloud"] == pl.Int16  # of the backup, which has Int8
    assert frame["satellite__cloud"].to_list() == [-1, 1, 8]


def test_a_sequence_falls_back_to_a_sequence_and_to_a_constant_one():
    views = [satellite(SATELLITE, al.sequence("ghi", 2)), backup(al.sequence("ghi", 2))]
    name = "satellite__ghi_sequence_2"
    service = power(features=[name], fallbacks={name: ["backup__ghi_sequence_2", al.constant([0.0, 0.0])]})
    frame = al.point_in_time_join(sites("10:00", "10:40", "11:12"), views, service=service)
    assert frame[name].to_list() == [[0.0, 0.0], [100.0, 200.0], [110.0, 190.0]]


def test_a_service_gives_its_features_in_its_order_and_no_others():
    service = al.FeatureService("all", ["backup:mode", "satellite"])
    frame = al.point_in_time_join(sites("10:40"), [satellite(), backup()], service=service, sources=True)
    assert frame.columns == ["site", "prediction_time", "backup__mode", "satellite__ghi", "satellite__cloud"]


def test_as_of_hides_heartbeats_too():
    # At 12:10 the row of 12:05 is not known as of 11:20: the last heartbeat is that of 10:35.
    service = power(variants=VARIANTS)
    assert chosen(service, "full", "12:10") == ["12:10"]
    assert chosen(service, "full", "12:10", as_of=at("11:20")) == []
    assert chosen(service, "no_satellite", "12:10", as_of=at("11:20")) == ["12:10"]


def test_an_empty_poll_is_a_heartbeat_and_counts_from_its_position_on():
    log = PolledLog(SATELLITE[:2], "met", ["site"], empty=table("arrival_time log_sequence", ("11:00", 2)))
    service = power(down_after={"met": "30m"})
    views = [satellite(log), backup()]
    assert told(service, "11:29", views=views) == [(200.0, "satellite__ghi")]
    assert told(service, "11:29", views=views, positions={"satellite": 2}) == [(200.0, "satellite__ghi")]
    assert told(service, "11:29", views=views, positions={"satellite": 1}) == [(190.0, "backup__ghi")]


# --- variants -------------------------------------------------------------------------------------------------------

VARIANTS = [al.Variant("full"), al.Variant("no_satellite", needs=["backup"])]


def chosen(service: al.FeatureService, variant: str, *instants: str, **more: Any) -> list[Any]:
    frame = al.point_in_time_join(sites(*instants), [satellite(), backup()], service=service, variant=variant, **more)
    return [f"{t:%H:%M}" for t in frame["prediction_time"]]


def test_a_variants_rows_are_those_at_which_it_would_have_been_chosen():
    service = power(variants=VARIANTS)
    times = ("10:00", "10:05", "11:04", "11:05", "12:05")
    assert chosen(service, "full", *times) == ["10:05", "11:04", "12:05"]
    assert chosen(service, "no_satellite", *times) == ["10:00", "11:05"]
    assert chosen(service, "no_satellite", *times, rows="all") == ["10:00", "10:05", "11:04", "11:05", "12:05"]


def test_rows_at_which_no_variant_fits_are_in_none():
    service = power(variants=VARIANTS, down_after="30m")
    assert chosen(service, "full", "10:04", "12:04") == []
    assert chosen(service, "no_satellite", "10:04", "12:04", "11:05", "11:39") == ["11:39"]


def test_a_needed_provider_must_be_fresh_enough_and_exactly_the_limit_is():
    fresh = al.Variant("full", max_age={"satellite": "10m"})
    service = power(variants=[fresh, al.Variant("no_satellite", needs=["backup"])])
    # The heartbeat of 10:35 is exactly 10 minutes old at 10:45.
    assert chosen(service, "full", "10:45", "10:46") == ["10:45"]
    assert chosen(service, "no_satellite", "10:45", "10:46") == ["10:46"]


def test_the_newest_event_of_a_needed_provider_must_be_fresh_enough_too():
    fresh = al.Variant("full", max_event_age="1h")
    service = power(down_after=None, variants=[fresh, al.Variant("no_satellite", needs=["backup"])])
    # The event of 10:30 is known from 10:35 on, and an hour old at 11:30; that of 12:00 is known from 12:05 on.
    times = ("10:00", "10:05", "11:00", "11:01", "11:30", "11:30:00.000001", "12:04", "12:05")
    assert chosen(service, "full", *times) == ["10:05", "11:00", "11:01", "11:30", "12:05"]
    assert chosen(service, "no_satellite", *times) == ["10:00", "11:30", "12:04"]
    assert chosen(service, "full", "12:05", as_of=at("12:04")) == []


def test_a_late_event_does_not_make_a_provider_older_and_a_retraction_brings_nothing():
    frame = pl.concat(
        [
            SATELLITE[:2],
            table(
                "site event_time arrival_time log_sequence",
                *(("a", "09:00", "10:50", 2), ("a", "09:10", "10:51", 3), ("a", "09:20", "10:52", 4)),
            ),
            table("site event_time arrival_time is_retraction log_sequence", ("a", "11:20", "11:25", True, 5)),
        ],
        how="diagonal_relaxed",
    )
    service = power(down_after=None, variants=[al.Variant("full", max_event_age={"satellite": "30m"})])
    times = ("10:36", "10:53", "11:00", "11:26")
    found = al.point_in_time_join(sites(*times), [satellite(frame), backup()], service=service, variant="full")
    assert [f"{t:%H:%M}" for t in found["prediction_time"]] == ["10:36", "10:53", "11:00"]


def test_of_forecasts_the_newest_issue_must_be_fresh_enough():
    runs = table("site event_time issue_time arrival_time wind", ("a", "18:00", "10:00", "10:20", 5.0))
    view = al.FeatureView("nwp", ["site"], runs, [al.forecast("wind", "6h", "6h")], kind="forecast")
    service = al.FeatureService(
        "power", ["nwp__wind_forecast_6h"], variants=[al.Variant("full", max_event_age="1h")], views=[view]
    )
    found = al.point_in_time_join(sites("10:19", "10:20", "11:00", "11:01"), view, service=service, variant="full")
    assert [f"{t:%H:%M}" for t in found["prediction_time"]] == ["10:20", "11:00"]


def test_a_variant_may_give_fewer_features():
    service = power(
        features=["satellite__ghi", "backup__cloud"],
        variants=[al.Variant("full"), al.Variant("no_satellite", features=["backup:cloud"])],
    )
    frame = al.point_in_time_join(sites("11:05"), [satellite(), backup()], service=service, variant="no_satellite")
    assert frame.columns == ["site", "prediction_time", "backup__cloud"]
    assert frame.height == 1  # needs are the providers of its features: the backup alone


def test_a_variant_that_reads_one_provider_asks_for_its_entities_alone():
    other = al.FeatureView("grid", ["zone"], BACKUP.rename({"site": "zone"}), [al.latest("ghi")])
    service = al.FeatureService(
        "both",
        ["satellite__ghi", "grid__ghi"],
        down_after={"satellite": "30m"},
        variants=[al.Variant("full"), al.Variant("grid_only", features=["grid__ghi"])],
    )
    spine = table("zone prediction_time", ("a", "11:12"))
    frame = al.point_in_time_join(spine, [satellite(), other], service=service, variant="grid_only")
    assert frame["grid__ghi"].to_list() == [190.0]


# --- training sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_a_training_set_for_a_variant_says_so_and_is_built_again(tmp_path, engine):
    service = power(variants=VARIANTS)
    spine = sites("10:00", "10:05", "11:05", "11:12").with_columns(note=pl.Series(["p", "q", "r", "s"]))
    dataset = al.build_dataset(
        spine, [satellite(), backup()], service=service, variant="no_satellite", engine=engine, sources=True
    )
    assert dataset.frame["note"].to_list() == ["p", "r", "s"]
    assert dataset.frame["satellite__ghi"].to_list() == [0.0, 0.0, 190.0]
    assert dataset.frame.columns == [
        *("site", "prediction_time", "note", "satellite__ghi", "satellite__ghi__source", "provisional"),
    ]
    assert dataset.feature_columns == ["satellite__ghi"]
    manifest = dataset.manifest
    assert manifest["service"] == {"name": "power", "variant": "no_satellite", "rows": "chosen", "sources": True}
    assert manifest["features"]["satellite__ghi"]["sources"] == {"constant": 2, "backup__ghi": 1}
    assert manifest["spine"]["rows"] == 3
    frames = {"satellite": SATELLITE, "backup": BACKUP}
    assert al.rebuild(manifest, spine, frames).same
    assert al.rebuild(manifest, dataset.frame.select(manifest["spine"]["columns"]), frames).same
    changed = al.rebuild(manifest, spine, frames | {"satellite": SATELLITE[1:]})
    assert not changed.same


def test_without_a_service_a_manifest_is_as_it_was():
    manifest = al.build_dataset(sites("10:40"), [satellite()]).manifest
    assert "service" not in manifest
    assert "service" not in manifest["definitions"]
    assert manifest["features"]["satellite__ghi"] == {"rows": 1, "nulls": 0}


def test_a_training_set_without_rows_can_be_built():
    service = power(variants=VARIANTS)
    dataset = al.build_dataset(sites("10:00"), [satellite(), backup()], service=service, variant="full")
    assert dataset.frame.shape == (0, 4)
    assert dataset.frame.schema["satellite__ghi"] == pl.Float64


def test_labels_stand_beside_the_rows_of_a_variant():
    service = power(variants=VARIANTS)
    dataset = al.build_dataset(
        sites("10:00", "10:10", "11:05"),
        [satellite(), backup()],
        service=service,
        variant="no_satellite",
        label=al.label("mode", horizon="1h"),
    )
    assert dataset.frame.select("label").to_series().to_list() == ["y", None]  # of 10:00 and 11:05
    assert dataset.frame["prediction_time"].to_list() == [at("10:00"), at("11:05")]


def test_a_service_survives_as_plain_data():
    service = al.FeatureService(
        "power",
        ["satellite__ghi", "satellite__cloud", "backup__mode"],
        fallbacks={
            "satellite__ghi": ["backup__ghi", float("inf")],
            "satellite__cloud": "backup__cloud",
            "backup__mode": al.constant("dry"),
        },
        down_after="1h",
        variants=[
            al.Variant("full", max_age={"satellite": "5m"}, max_event_age="1h"),
            al.Variant("less", needs=[], features=["backup__mode"]),
        ],
        skip_null=True,
    )
    described = describe_service(service)
    assert describe_service(read_service(described)) == described
    assert described["fallbacks"]["backup__mode"] == [{"constant": "dry"}]
    ages = al.FeatureService(
        "ages", ["w__event_age", "w__seen"], fallbacks={"w__event_age": timedelta(1), "w__seen": at("10:00")}
    )
    assert read_service(describe_service(ages)).fallbacks == ages.fallbacks


# --- types ----------------------------------------------------------------------------------------------------------


def test_the_type_of_every_feature_is_known_before_it_is_computed():
    frame = table(
        "site event_time arrival_time x n flag text small single",
        ("a", "10:00", "10:05", 1.5, 2, True, "t", 3, 0.5),
        small=pl.Int16,
        single=pl.Float32,
    ).with_columns(pair=pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2)), big=pl.lit(7, pl.UInt32))
    every = ["count", "sum", "mean", "std", "var", "min", "max", "first", "last", "median", "q90", "slope"]
    features = [
        *(al.latest(name) for name in ("x", "n", "flag", "text", "small", "single", "pair", "big")),
        *(al.lag(name, "10m") for name in ("text", "pair")),
        *(al.window(name, every, "1h") for name in ("x", "n", "flag", "small", "single", "big")),
        al.window("text", ["count", "first", "last"], "1h"),
        *(al.sequence(name, 2) for name in ("x", "text", "pair")),
        al.event_age(),
        al.arrival_age(),
    ]
    view = al.FeatureView("w", ["site"], frame, features)
    given = al.point_in_time_join(sites("10:30"), view).schema
    assert {view.column_name(f): view.column_type(f) for f in view.features} == {
        name: given[name] for name in view.column_names
    }


@pytest.mark.parametrize(
    ("feature", "fallback", "fits"),
    [
        ("satellite__ghi", 0, True),
        ("satellite__ghi", float("nan"), True),
        ("satellite__ghi", "backup__cloud", True),  # every Int8 is a Float64
        ("satellite__ghi", True, False),
        ("satellite__ghi", al.constant("low"), False),
        ("satellite__ghi", "backup__mode", False),
        ("satellite__cloud", 40_000, False),  # Int16
        ("satellite__cloud", 1.5, False),
        ("satellite__cloud", "backup__ghi", False),
        ("backup__cloud", "satellite__cloud", False),  # narrower
        ("backup__mode", al.constant("dry"), True),
        ("backup__mode", 3, False),
    ],
)
def test_a_fallback_must_be_of_its_features_type(feature, fallback, fits):
    service = al.FeatureService("power", [feature], fallbacks={feature: [fallback]})
    if fits:
        bind(service, [satellite(), backup()])
    else:
        with pytest.raises(al.ServiceError, match="the feature is"):
            bind(service, [satellite(), backup()])


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_fallback_of_another_type_is_refused_with_what_to_write():
    with pytest.raises(al.ServiceError) as refused:
        power(fallbacks={"satellite__ghi": "backup__mode"}, views=[satellite(), backup()])
    assert str(refused.value) == (
        "service 'power': the fallback of 'satellite__ghi' is 'backup__mode', which is String, and the feature is Float64\n\n"
        'hint: derive a column of that type, e.g. derive={"mode_same": pl.col("mode").cast(pl.Float64)}.'
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"features": []}, "features are empty"),
        ({"features": "satellite__ghi"}, "is not a list of names"),
        ({"features": ["satellite__ghi", "satellite:ghi"]}, "more than once"),
        ({"features": ["satellite__ghii"]}, "did you mean 'satellite__ghi'"),
        ({"features": ["satellite", "satellite__ghi"]}, "more than once"),
        ({"fallbacks": {"satellite__cloud": 1}}, "not among its features"),
        ({"fallbacks": {"satellite__ghi": []}}, "are empty"),
        ({"fallbacks": {"satellite__ghi": [0.0, "backup__ghi"]}}, "go on after the constant 0.0"),
        ({"fallbacks": {"satellite__ghi": ["satellite__ghi"]}}, "more than once"),
        ({"fallbacks": {"satellite__ghi": ["backup__gh"]}}, "did you mean 'backup__ghi'"),
        ({"fallbacks": {"satellite__ghi": [None]}}, "None cannot stand in"),
        ({"down_after": {"sat": "1h"}}, "no provider of the views"),
        ({"down_after": "soon"}, "is not a duration"),
        ({"variants": ["full"]}, "is not a variant"),
        ({"variants": [al.Variant("full"), al.Variant("full")]}, "more than once"),
        ({"variants": [al.Variant("full", needs=["sat"])]}, "needs 'sat'"),
        ({"variants": [al.Variant("full", features=["backup__ghi"])]}, "no view has a feature"),
        ({"variants": [al.Variant("full", needs=["satellite"], max_age={"backup": "1h"})]}, "does not need"),
        ({"variants": [al.Variant("b", needs=["backup"]), al.Variant("full")]}, "can never be passed over"),
    ],
)
def test_a_service_that_cannot_mean_anything_is_refused_when_it_is_declared(arguments, complaint):
    with pytest.raises(al.DefinitionError, match=complaint):
        power(**{"views": [satellite(), backup()]} | arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"variant": "full"}, "and no service"),
        ({"service": power(), "variant": "full"}, "has no variant 'full'"),
        ({"service": power(), "rows": "some"}, "rows='some' is unknown"),
        ({"service": "power"}, "is not a service"),
    ],
)
def test_a_join_refuses_services_that_do_not_fit(arguments, complaint):
    with pytest.raises(al.ServiceError, match=complaint):
        al.point_in_time_join(sites("10:40"), [satellite(), backup()], **arguments)
