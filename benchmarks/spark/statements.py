"""The rules as plain Spark SQL, in the forms that a good engineer would write, and the same question to asknown.

The question: two `latest`, a `lag` of a day, and five aggregates over the last day. Of a day's bounds: `open` looks for the
latest event however old, as a feature does that names no limit; `bounded` no further than two days, which lets SQL read less.

Forms:
    ranked: the range join, then of each event the last revision by `row_number()`. The rules read aloud.
    intervals: `lead()` over the observations first, so that each revision knows when it is superseded; the range join then
        finds exactly the current ones, and nothing is ranked per pair.
    binned: `intervals` whose join is on entity and day, each spine row standing in the days it looks at. `bounded` only.

Hints spread the spine to every executor; it is the small side. Joins look no further back than some feature does. The bounds of a
question are worked out once for it, and not for each pair: Spark adds an interval to an instant by way of a calendar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Question = Literal["open", "bounded"]
FORMS: Mapping[Question, tuple[str, ...]] = {
    "open": ("ranked", "intervals"),
    "bounded": ("ranked", "intervals", "binned"),
}
ANSWERS = ("temp", "load", "temp_yesterday", "temp_mean", "temp_std", "temp_min", "temp_max", "temp_sum")
PICKED = ANSWERS[:3]

_BOUNDS = """
WITH asked AS (
    SELECT row, entity, prediction_time, prediction_time - INTERVAL 24 HOURS AS yesterday,
           prediction_time - INTERVAL 48 HOURS AS earliest
    FROM spine
),
"""

_RANKED = (
    _BOUNDS
    + """
counting AS (
    SELECT /*+ BROADCAST(s) */ s.row, s.yesterday, o.event_time, o.is_retraction, o.temp, o.load,
           row_number() OVER (
               PARTITION BY s.row, o.event_time ORDER BY o.arrival_time DESC, o.log_sequence DESC) AS age
    FROM observations o JOIN asked s ON o.entity = s.entity
     AND o.arrival_time <= s.prediction_time AND o.event_time <= s.prediction_time {reach}
),
current AS (SELECT * FROM counting WHERE age = 1 AND NOT is_retraction)
{answers}
"""
)

_REVISIONS = (
    _BOUNDS
    + """
revisions AS (
    SELECT entity, event_time, arrival_time, is_retraction, temp, load,
           lead(arrival_time) OVER (
               PARTITION BY entity, event_time ORDER BY arrival_time, log_sequence) AS superseded
    FROM observations
),
"""
)

_INTERVALS = (
    _REVISIONS
    + """
current AS (
    SELECT /*+ BROADCAST(s) */ s.row, s.yesterday, o.event_time, o.temp, o.load
    FROM revisions o JOIN asked s ON o.entity = s.entity
     AND o.arrival_time <= s.prediction_time AND o.event_time <= s.prediction_time {reach}
     AND (o.superseded IS NULL OR o.superseded > s.prediction_time)
    WHERE NOT o.is_retraction
)
{answers}
"""
)

_BINNED = (
    _REVISIONS
    + """
by_day AS (
    SELECT *, explode(sequence(
        unix_micros(prediction_time) div 86400000000 - 2, unix_micros(prediction_time) div 86400000000)) AS day
    FROM asked
),
current AS (
    SELECT /*+ BROADCAST(s) */ s.row, s.yesterday, o.event_time, o.temp, o.load
    FROM revisions o JOIN by_day s
      ON o.entity = s.entity AND unix_micros(o.event_time) div 86400000000 = s.day
     AND o.arrival_time <= s.prediction_time AND o.event_time <= s.prediction_time {reach}
     AND (o.superseded IS NULL OR o.superseded > s.prediction_time)
    WHERE NOT o.is_retraction
)
{answers}
"""
)

_ANSWERS = """,
answered AS (
    SELECT row,
        max_by(temp, event_time) AS temp,
        max_by(load, event_time) AS load,
        max_by(temp, event_time) FILTER (WHERE event_time <= yesterday) AS temp_yesterday,
        avg(temp) FILTER (WHERE event_time > yesterday) AS temp_mean,
        stddev_samp(temp) FILTER (WHERE event_time > yesterday) AS temp_std,
        min(temp) FILTER (WHERE event_time > yesterday) AS temp_min,
        max(temp) FILTER (WHERE event_time > yesterday) AS temp_max,
        sum(temp) FILTER (WHERE event_time > yesterday) AS temp_sum
    FROM current GROUP BY row
)
SELECT /*+ BROADCAST(spine) */ spine.*, {names} FROM spine LEFT JOIN answered USING (row)
"""


def statement(form: str, question: Question) -> str:
    """SQL over the tables `spine` (row, entity, prediction_time) and `observations`; columns of the spine, then `ANSWERS`."""
    text = {"ranked": _RANKED, "intervals": _INTERVALS, "binned": _BINNED}[form]
    reach = "AND o.event_time >= s.earliest" if question == "bounded" else ""
    answers = _ANSWERS.strip().format(names=", ".join(f"answered.{name}" for name in ANSWERS))
    return text.format(reach=reach, answers="").rstrip() + answers


def features(question: Question) -> list[Any]:
    """The question's features, in the order of `ANSWERS`."""
    import alignment as al

    limit, tolerance = ("48h", "24h") if question == "bounded" else (None, None)
    return [
        al.latest("temp", max_event_age=limit),
        al.latest("load", max_event_age=limit),
        al.lag("temp", "24h", tolerance=tolerance, name="temp_yesterday"),
        al.window("temp", ["mean", "std", "min", "max", "sum"], "24h"),
    ]
