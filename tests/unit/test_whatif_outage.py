"""What an outage costs: scores by which providers were up, winners and the router, typed by hand."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from makers import at

import alignment as al
from alignment.errors import DefinitionError, ServiceError, ViewError

HOUR = timedelta(hours=1)
START = at("00:00")
COUNT = 240  # hours: ten days
CUT = START + 7 * 24 * HOUR


class Newest:
    """Says the first feature; where it is missing, 0."""

    def fit(self, rows, target):
        self.fitted = len(rows), len(target)

    def predict(self, rows):
        return np.nan_to_num(rows[:, 0])


def hours(count=COUNT):
    return [START + number * HOUR for number in range(count)]


def feed(above=0.0, held_up=()):
    """A load that rises by 1 an hour and is known at once; or what lies above it, or is held up: (from, to) in hours."""
    frame = pl.DataFrame({"station": "a", "event_time": hours(), "load": [n + above for n in map(float, range(COUNT))]})
    arrival = pl.col("event_time")
    for begin, end in held_up:
        down = arrival.is_between(START + begin * HOUR, START + end * HOUR, closed="left")
        arrival = pl.when(down).then(pl.lit(START + end * HOUR).dt.cast_time_unit("us")).otherwise(arrival)
    return frame.with_columns(arrival_time=arrival)


def views(**arguments):
    # The meter says what is now, 1 below the label of an hour later; the plan 5 above that, 4 above the label.
    return [
        al.FeatureView("meter", ["station"], feed(**arguments), [al.latest("load")]),
        al.FeatureView("plan", ["station"], feed(5.0), [al.latest("load")]),
    ]


def service(*variants, **arguments):
    variants = variants or (al.Variant("full", features=["meter"]), al.Variant("spare", features=["plan"]))
    return al.FeatureService("power", ["meter", "plan"], **({"down_after": "2h", "variants": variants} | arguments))


def down(begin, end, **arguments):
    return al.Outage("meter", START + begin * HOUR, START + end * HOUR, **arguments)


def priced(*outages, given=None, of=None, **arguments):
    spine = pl.DataFrame({"station": "a", "prediction_time": hours()})
    truth = al.Observations(feed(), ["station"])
    arguments = {"label": al.label("load", "1h", observations=truth), "model": Newest, "test_from": CUT} | arguments
    return al.outage_cost(spine, given or views(), of or service(), outages=outages, **arguments)


def test_by_hand_half_a_day_without_the_meter():
    # Held up from hour 216 to 228. The last heartbeat is that of 215: down from 217 (two hours of silence) to 227.
    report = priced(down(216, 228))
    (up, without) = report.winners.to_dicts()
    assert (up["pattern"], up["down"], up["rows"], up["days"]) == ("all up", [], 60, 3)
    assert (without["pattern"], without["down"], without["rows"], without["days"]) == (
        "without meter",
        ["meter"],
        11,
        1,
    )
    scores = {(row["pattern"], row["variant"]): row for row in report.frame.to_dicts()}
    # Up, the meter is 1 below the label, at 216 it is 2 below; down it stays at 215, and the label is 218 to 228.
    assert scores["all up", "full"]["mae"] == pytest.approx((59 * 1 + 2) / 60)
    assert scores["without meter", "full"]["mae"] == sum(range(3, 14)) / 11 == 8.0
    assert scores["without meter", "full"]["rmse"] == pytest.approx(np.sqrt(sum(n * n for n in range(3, 14)) / 11))
    assert scores["all up", "spare"]["mae"] == scores["without meter", "spare"]["mae"] == 4.0
    assert scores["without meter", "full"]["mae_without_outages"] == 1.0
    assert [scores[key]["rows_served"] for key in scores] == [60, 0, 0, 11]
    # The spare one wins by 4 while the meter is down, which costs 3 against the full one with the meter up.
    assert (up["winner"], without["winner"], without["runner_up"]) == ("full", "spare", "full")
    assert (without["served"], without["rows_served"], without["mae_margin"]) == ("spare", 11, 4.0)
    assert (without["router_mae"], without["router_mae_cost"]) == (4.0, 3.0)
    assert up["router_mae_cost"] == pytest.approx(1 / 60)
    assert (up["router_mae_over_winner"], without["router_mae_over_winner"]) == (0.0, 0.0)
    assert (up["misrouted"], without["misrouted"]) == (False, False)
    overall = {row["who"]: row for row in report.overall.to_dicts()}
    assert [row["rows"] for row in overall.values()] == [71, 71, 71]
    assert overall["router"]["mae"] == pytest.approx((61 + 11 * 4) / 71)
    assert overall["full"]["mae"] == pytest.approx((61 + 11 * 8) / 71)
    assert overall["full"]["mae_over_router"] == pytest.approx(11 * 4 / 71)
    assert overall["spare"]["mae"] == 4.0
    assert overall["router"]["mae_over_router"] == 0.0


def test_an_outage_that_happened_costs_what_an_injected_one_does():
    injected = priced(down(216, 228))
    happened = priced(given=views(held_up=[(216, 228)]))
    same = [name for name in injected.frame.columns if name != "mae_without_outages"]
    assert happened.frame.select(same).equals(injected.frame.select(same))
    assert happened.overall.equals(injected.overall)
    assert happened.frame["mae_without_outages"].null_count() == 4
    assert happened.winners["router_mae_cost"].null_count() == 2


def test_whoever_is_better_on_five_days_alike_is_clearly_better():
    spells = [down(24 * day, 24 * day + 12) for day in range(5, 10)]
    four = priced(*spells[1:], test_from=START + 5 * 24 * HOUR)
    five = priced(*spells, test_from=START + 5 * 24 * HOUR)
    assert four.winners["clear"].to_list() == [True, False]  # up on five days, down on four
    (up, without) = five.winners.to_dicts()
    assert (without["days"], without["rows"], without["winner"]) == (5, 55, "spare")
    # Every day is the same, so that whatever days are drawn the difference is.
    assert (without["mae_margin_low"], without["mae_margin_high"], without["clear"]) == (4.0, 4.0, True)
    assert (up["winner"], up["clear"]) == ("full", True)
    assert "Where one variant is clearly better, the service chooses it." in str(five)


def test_a_service_that_prefers_the_worse_variant_is_told():
    prefers = service(al.Variant("spare", features=["plan"]), al.Variant("full", features=["meter"]))
    report = priced(of=prefers, test_from=START + 5 * 24 * HOUR)
    assert report.winners.select("winner", "served", "clear", "misrouted").rows() == [("full", "spare", True, True)]
    assert report.winners["router_mae_over_winner"].to_list() == [3.0]
    assert (
        "The service does not choose the better variant everywhere: all up, full errs by 3.000 less than what it chooses, spare."
        in str(report)
    )
    # Two that are as good as each other, and the service chooses neither: nobody is clearly ahead, and it is wrong all the same.
    twins = [al.Variant("one", features=["meter"]), al.Variant("other", needs=["plan"], features=["meter"])]
    report = priced(of=service(al.Variant("spare", features=["plan"]), *twins), test_from=START + 5 * 24 * HOUR)
    assert report.winners.select("winner", "clear", "misrouted").rows() == [("one", False, True)]


def test_rows_at_which_no_variant_fits_are_scored_but_not_for_the_router():
    report = priced(down(216, 228), of=service(al.Variant("full", features=["meter"])))
    (up, without) = report.winners.to_dicts()
    assert (up["runner_up"], up["mae_margin"], up["clear"]) == (None, None, False)  # nobody to be ahead of
    assert (without["served"], without["rows_served"], without["router_mae"]) == (None, 0, None)
    assert report.overall.select("who", "rows").rows() == [("full", 60), ("router", 60)]
    assert report.notes[-1] == "at 11 of 71 rows the service would have chosen no variant"
    needy = service(al.Variant("full", needs=["meter"]), down_after={"meter": "1us"})
    report = priced(down(0, 239), of=needy)  # up at the very instant of a heartbeat only, and there is none
    assert (report.overall.height, report.winners["served"].to_list()) == (0, [None])


def test_fallbacks_answer_for_a_variant_as_they_would_have():
    report = priced(down(216, 228), of=service(fallbacks={"meter__load": ["plan__load"]}))
    scores = {(row["pattern"], row["variant"]): row["mae"] for row in report.frame.to_dicts()}
    assert scores["without meter", "full"] == 4.0  # the plan's value in the meter's place


def test_outages_can_lose_rows_and_slow_them_down():
    lost = priced(down(216, 228, lost=True)).frame
    # From 228 on the meter is up again: its own row of 228 arrives. What was lost matters no more to the newest value.
    assert lost["mae"].to_list() == priced(down(216, 228)).frame["mae"].to_list()
    late = [
        al.FeatureView("meter", ["station"], feed().with_columns(pl.col("arrival_time") + HOUR), [al.latest("load")])
    ]
    late += views()[1:]
    slow = priced(down(168, COUNT, slow=3.0), given=late, of=service(down_after="10h")).frame
    (full,) = slow.filter(pl.col("variant") == "full").to_dicts()
    # An hour late the meter is 2 below the label. What would have arrived from 168 on takes three hours: at 168 and 169 the
    # newest is that of 166 (3 and 4 below the label), afterwards that of three hours ago (4 below).
    assert full["mae_without_outages"] == 2.0
    assert full["mae"] == pytest.approx((3 + 4 * 70) / 71)


def test_without_down_after_nobody_is_ever_down():
    report = priced(down(216, 228), of=service(al.Variant("full", features=["meter"]), down_after=None))
    assert report.winners["pattern"].to_list() == ["all up"]
    assert report.notes[-1].startswith("service 'power' names no down_after, so that no provider is ever down")


def test_several_providers_make_a_pattern_together():
    outages = (down(216, 228), al.Outage("plan", START + 222 * HOUR, START + 234 * HOUR))
    report = priced(*outages)
    # The meter is down from 217 to 227, the plan from 223 to 233.
    assert report.winners.select("pattern", "down", "rows").rows() == [
        ("all up", [], 71 - 17),
        ("without meter", ["meter"], 6),
        ("without plan", ["plan"], 6),
        ("without meter, plan", ["meter", "plan"], 5),
    ]


def test_a_model_by_variant():
    class Zero(Newest):
        def predict(self, rows):
            return np.zeros(len(rows))

    report = priced(model={"full": Newest(), "spare": Zero})
    assert dict(report.models) == {"full": "Newest", "spare": "Zero"}
    assert report.frame["mae"].to_list() == [1.0, np.mean(range(169, 240))]
    with pytest.raises(ServiceError, match="there is no model for the variant 'spare' of service 'power'"):
        priced(model={"full": None})
    with pytest.raises(ServiceError, match="has no variant 'fool'"):
        priced(model={"full": None, "spare": None, "fool": None})


def test_which_rows_train_a_variant():
    held_up = views(held_up=[(100, 150)])  # the meter is down from 101 to 149
    assert dict(priced(given=held_up).train_rows) == {"full": 167, "spare": 167}
    assert dict(priced(given=held_up, train_rows="chosen").train_rows) == {"full": 118, "spare": 49}
    with pytest.raises(DefinitionError, match="would not have been chosen at any training row"):
        priced(train_rows="chosen")
    with pytest.raises(DefinitionError, match="train_rows='some' is unknown"):
        priced(train_rows="some")


def test_training_rows_know_nothing_of_injected_outages():
    report = priced(down(50, 200), given=views(held_up=[(100, 150)]), train_rows="chosen")
    assert dict(report.train_rows) == {"full": 118, "spare": 49}


def test_an_outage_of_nobody_is_refused():
    with pytest.raises(ViewError, match="'mast' is no provider of the views"):
        priced(al.Outage("mast", START, CUT))


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_the_text_is_plain_tables():
    assert str(priced(down(216, 228), unit="kW")) == (
        "What an outage costs: service 'power', load (kW), 71 rows tested on 3 days (UTC)\n"
        "\n"
        "Mean absolute error, kW:\n"
        "\n"
        "providers      rows   share  days   full  spare\n"
        "all up           60  84.5 %     3  1.017  4.000\n"
        "without meter    11  15.5 %     1  8.000  4.000\n"
        "\n"
        "providers      winner  ahead by     ahead, 95 %  service chose  router  over winner  over winner, 95 %  outage costs     costs, 95 %\n"
        "all up          full?     2.983  2.917 to 3.000           full   1.017            -                  -        +0.017  0.000 to 0.083\n"
        "without meter  spare?     4.000               -          spare   4.000            -                  -        +3.000               -\n"
        "\n"
        "over all rows  rows    MAE       MAE, 95 %  over the router      over, 95 %\n"
        "full             71  2.099  1.000 to 4.391           +0.620  0.000 to 1.913\n"
        "spare            71  4.000  4.000 to 4.000           +2.521  1.522 to 3.000\n"
        "router           71  1.479  1.000 to 2.478                -               -\n"
        "\n"
        "Nowhere is one variant clearly better.\n"
        "\n"
        "Each variant has a model of its own: Newest, trained on 167 rows.\n"
        "\n"
        "A winner with a question mark is not clearly ahead: its interval reaches 0, or the days are too few.\n"
        "\n"
        "Injected: meter late from 2026-01-14 00:00:00Z to 2026-01-14 12:00:00Z.\n"
        "\n"
        "Outage costs: the router's error less what it was on the same rows without what was injected.\n"
        "\n"
        "Trained at T = 2026-01-12 00:00:00Z, tested on the rows from T on.\n"
        "\n"
        "167 rows train and 71 are tested; not trained on: 1 by label_overlap.\n"
        "\n"
        "3 days are few to draw from: intervals are rough, and rather too narrow."
    )


def test_the_dictionary_is_json():
    plain = json.loads(json.dumps(priced(down(216, 228, lost=True)).to_dict(), allow_nan=False))
    assert plain["outages"] == [
        {"provider": "meter", "start": "2026-01-14T00:00:00+00:00", "end": "2026-01-14T12:00:00+00:00", "lost": True}
    ]
    assert [row["pattern"] for row in plain["winners"]] == ["all up", "without meter"]
    assert plain["patterns"][2]["down"] == ["meter"]


def test_the_page_and_the_notebook_stand_alone():
    report = priced(down(216, 228))
    page = report.to_html()
    assert page.startswith("<!doctype html>")
    assert page.count("<tr>") == 3 + 2 + 2 + 3  # heads; two patterns twice, two variants and the router
    assert not any(word in page for word in ("<script", "src=", "href="))
    piece = report._repr_html_()
    assert not any(word in piece for word in ("<html", "<style"))


def test_the_picture_rings_what_the_service_chose():
    pytest.importorskip("matplotlib")
    figure = priced(down(216, 228), unit="kW").plot()
    (panel,) = figure.axes
    assert panel.get_xlabel() == "mean absolute error of load, kW"
    assert [text.get_text() for text in panel.get_yticklabels()] == [
        "all up\n60 rows, 3 d",
        "without meter\n11 rows, 1 d",
    ]
    rings = [line for line in panel.get_lines() if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in rings] == [pytest.approx(61 / 60), 4.0]
    assert {line.get_label() for line in panel.get_lines()} >= {"full", "spare", "chosen by the service"}


def test_the_picture_says_where_the_service_chose_none():
    pytest.importorskip("matplotlib")
    figure = priced(down(216, 228), of=service(al.Variant("full", features=["meter"]))).plot()
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == [
        "all up\n60 rows, 3 d",
        "without meter\n11 rows, 1 d\nthe service chose none",
    ]


def test_no_two_columns_of_a_table_are_called_alike():
    tables = [part.splitlines() for part in str(priced(down(216, 228))).split("\n\n") if "  " in part]
    for head, *_ in tables[:3]:
        names = [name for name in head.split("  ") if name]
        assert len(set(names)) == len(names)
