"""Who uses a feature, a provider or a column: views files, manifests, and what was served."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ingestion import create_log, open_log
from serving.cli import run
from serving.declarations import read_declarations
from serving.lineage import Lineage, find_uses
from serving.online import FeatureServer, OnlineSettings, read_service
from serving.served import ServedLog

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
VIEWS = """
from datetime import UTC, datetime
import alignment as al, ingestion, polars as pl

satellite = ingestion.open_log("logs", "satellite")
backup = ingestion.open_log("logs", "dwd")
views = [
    al.FeatureView("sky", ["site"], satellite, [al.latest("ghi"), al.latest("clearness", name="clear")],
                   derive={"clearness": pl.col("ghi") / pl.col("ghi_clear")}),
    al.FeatureView("dwd", ["site"], backup, [al.latest("ghi"), al.window("cloud", "mean", "1h")]),
]
services = [
    al.FeatureService(
        "power", ["sky__ghi", "dwd__cloud_mean_1h"], fallbacks={"sky__ghi": ["dwd__ghi", 0.0]}, down_after="30m",
        variants=[al.Variant("full"), al.Variant("no_satellite", needs=["dwd"], features=["dwd__cloud_mean_1h"])],
    )
]
label = al.label("ghi", horizon="20m", observations=views[0])
spine = al.make_spine({"site": ["a"]}, datetime(2026, 6, 1, 12, tzinfo=UTC), datetime(2026, 6, 1, 13, tzinfo=UTC), "10m")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, columns in {"satellite": ["ghi", "ghi_clear"], "dwd": ["ghi", "cloud"]}.items():
        log = create_log("logs", name, entities=["site"], clock=lambda: NOON + timedelta(minutes=1))
        log.append(pl.DataFrame({"site": ["a"], "event_time": [NOON]} | {column: [1.0] for column in columns}))
    Path("views.py").write_text(VIEWS)
    assert run(["dataset", "build", "views.py", "sets/full", "--service", "power"]) == 0
    assert run(["dataset", "build", "views.py", "sets/dwd", "--service", "power", "--variant", "no_satellite"]) == 0
    return tmp_path


def uses(found: Lineage, *whats: str) -> list[tuple[str, str]]:
    return [
        (use.what, Path(use.where).name if use.what == "data set" else use.name)
        for use in found.uses
        if not whats or use.what in whats
    ]


def look(name: str, *, root: str | None = "logs") -> Lineage:
    return find_uses(name, [read_declarations(Path("views.py"))], root=root)


def test_a_feature_is_followed_to_services_variants_and_data_sets(place):
    for name in ("sky__ghi", "sky:ghi"):
        found = look(name)
        assert found.is_a == ("feature",)
        assert uses(found) == [
            ("feature", "sky__ghi"),
            ("service", "power"),
            ("variant", "power/full"),  # no_satellite does not give it
            ("data set", "full"),
        ]


def test_a_provider_is_followed_to_all_its_views_its_labels_and_the_variants_that_need_it(place):
    found = look("satellite")
    assert found.is_a == ("provider",)
    assert uses(found) == [
        *(("feature", "sky__ghi"), ("feature", "sky__clear"), ("label", "label"), ("service", "power")),
        *(("variant", "power/full"), ("data set", "dwd"), ("data set", "full")),  # the labels of both are its
    ]
    how = {use.name: use.how for use in found.uses}
    assert how["power/full"] == "needs satellite; gives sky__ghi"
    assert how["label"] == "ghi after 20m, provider satellite"


def test_a_fallback_is_a_use_and_a_name_may_be_a_view_and_a_provider(place):
    found = look("dwd")
    assert found.is_a == ("provider",)  # the view is the provider's: the same features
    assert ("fallback", "power/sky__ghi") in uses(found)
    assert uses(found, "variant") == [("variant", "power/full"), ("variant", "power/no_satellite")]
    of_full = next(use for use in found.uses if use.what == "data set" and use.where.endswith("full"))
    assert of_full.how == "dwd__cloud_mean_1h; fallback dwd__ghi; service power"


def test_a_column_is_followed_through_derived_columns_and_by_provider(place):
    assert uses(look("ghi_clear"), "feature") == [("feature", "sky__clear")]
    assert look("ghi_clear").uses[0].how == "latest of clearness, provider satellite, derived from ghi, ghi_clear"
    assert uses(look("ghi"), "feature", "label") == [
        *(("feature", "sky__ghi"), ("feature", "sky__clear"), ("feature", "dwd__ghi"), ("label", "label")),
    ]
    assert uses(look("dwd.ghi"), "feature", "label") == [("feature", "dwd__ghi")]
    assert len(uses(look("site"), "feature")) == 4  # an entity: nothing works without it


def test_a_renamed_column_is_found_by_both_names(place):
    open_log("logs", "dwd").rename_column("cloud", "cloud_cover")
    for name in ("cloud", "cloud_cover", "dwd.cloud_cover"):
        assert uses(look(name), "feature") == [("feature", "dwd__cloud_mean_1h")]
        assert uses(look(name), "data set") == [("data set", "dwd"), ("data set", "full")]


def test_without_views_files_the_logs_tell_of_data_sets(place):
    found = find_uses("sky__ghi", root="logs")
    assert uses(found) == [("data set", "full")]
    assert uses(find_uses("sky__ghi", datasets=[Path("sets")])) == [("data set", "full")]
    (place / "sets/full/manifest.json").unlink()
    gone = find_uses("sky__ghi", root="logs")
    assert (gone.uses, gone.unread) == ((), (str(place / "sets/full/manifest.json"),))


def test_what_was_served_is_dated_and_features_that_no_file_declares_are_named(place):
    declared = read_declarations(Path("views.py"))
    then = NOON + timedelta(minutes=5)
    server = FeatureServer(declared.views, settings=OnlineSettings(clock_allowance="0s"), clock=lambda: then)
    server.catch_up()
    with ServedLog("logs", declared.views, clock=lambda: then) as served:
        server.on_answer.append(served.offer)
        read_service(server, declared.services[0], {"site": ["a"]})  # takes sky__ghi, dwd__ghi and dwd__cloud_mean_1h
    server.close()
    found = look("satellite")
    assert {use.name: use.last_served for use in found.uses if use.what in ("feature", "variant")} == {
        "sky__ghi": then,
        "sky__clear": None,
        "power/full": then,
    }
    assert uses(found, "served") == []
    assert uses(find_uses("satellite", root="logs")) == [
        ("data set", "dwd"),
        ("data set", "full"),
        ("served", "sky__ghi"),
    ]


def test_the_command_says_no_where_nobody_uses_it(place, capsys):
    capsys.readouterr()
    assert run(["lineage", "sky__ghi", "views.py", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["is_a"] == ["feature"]
    assert told["uses"][0] == {
        "what": "feature",
        "name": "sky__ghi",
        "how": "latest of ghi, provider satellite",
        "where": "views.py",
        "features": ["sky__ghi"],
        "last_served": None,
    }
    open_log("logs", "dwd").append(
        pl.DataFrame(
            {"site": ["a"], "event_time": [NOON + timedelta(hours=1)], "ghi": [1.0], "cloud": [1.0], "wind": [2.0]}
        ),
        evolve=True,
    )
    for name in ("wind", "dwd.wind"):
        assert run(["lineage", name, "views.py"]) == 1
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"nothing uses '{name}'\n")
    assert run(["lineage", "satellite", "views.py", "--datasets", "sets"]) == 0
    assert "needs satellite; gives sky__ghi" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sky__gih", "did you mean 'sky__ghi'"),
        ("sky:gih", "did you mean 'sky__ghi'"),
        ("satelite", "did you mean 'satellite'"),
        ("cluod", "did you mean 'cloud'"),
        ("dwd.cluod", "did you mean 'dwd.cloud'"),
        ("dwd.pressure", "there are 'dwd."),
        ("zzz", "there are 'arrival_"),
    ],
)
@pytest.mark.parametrize("places", [["views.py"], ["--datasets", "sets", "--root", "logs"]])
def test_the_command_tells_a_typo_from_a_name_that_nobody_uses(place, capsys, places, name, hint):
    capsys.readouterr()
    assert run(["lineage", name, *places, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"there is no feature, view, provider or column '{name}' here\n\nhint: {hint}" in captured.err


def test_the_command_refuses_to_look_nowhere(place, capsys, monkeypatch):
    assert run(["lineage", "sky__ghi", "--root", "nothing"]) == 3
    assert run(["lineage", "sky__ghi", "--datasets", "nothing"]) == 2
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert run(["lineage", "sky__ghi"]) == 2
    assert "asknown lineage sky__ghi features.py --root LOGS" in capsys.readouterr().err


def test_the_command_resolve_tells_the_variant_and_why_not(place, capsys):
    capsys.readouterr()
    assert run(["resolve", "views.py", "power", "--as-of", "2026-06-01T12:10:00Z"]) == 0
    assert "power at 2026-06-01T12:10:00+00:00: full" in capsys.readouterr().out
    assert run(["resolve", "views.py", "power", "--as-of", "2026-06-01T13:00:00Z", "--json"]) == 1  # all are down
    told = json.loads(capsys.readouterr().out)
    assert told["variant"] is None
    assert told["variants"][1]["reason"] == "'dwd' is down: silent for 0:59:00, may be for 30m"
    assert run(["resolve", "views.py", "solar"]) == 2
    assert "its services are 'power'" in capsys.readouterr().err
    Path("bare.py").write_text(VIEWS.partition("services = ")[0])
    assert run(["resolve", "bare.py", "power"]) == 2
    assert 'hint: add one: services = [al.FeatureService("power", ["sky__ghi"])]' in capsys.readouterr().err
    assert run(["resolve", "views.py", "power", "--as-of", "2999-01-01T00:00:00Z"]) == 2
    assert "as_of=2999-01-01T00:00:00+00:00 is later than what is known: 20" in capsys.readouterr().err


def test_a_log_that_is_not_there_is_made_on_the_command_line(place, capsys):
    Path("early.py").write_text(VIEWS.replace('"logs"', '"nowhere"'))
    assert run(["lineage", "sky__ghi", "early.py"]) == 3
    assert capsys.readouterr().err == (
        f"LogNotFoundError: '{place}/nowhere' has no log of provider 'satellite'\n\n"
        f'hint: make it first: create_log("{place}/nowhere", "satellite", entities=["..."]).\n'
        f"      on the command line: asknown log append {place}/nowhere satellite FILE --entities COLUMN\n"
    )
