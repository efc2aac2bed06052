"""The rules of time as SQL: which rows count, which are current, and where a question looks.

Read it beside docs/concepts/the-rules-as-sql.md. Texts in braces are filled in by `sql`; instants are microseconds. Tables:

- `observed`: one row per revision as it was read, `questions`: one row per spine row with its entity and `seen`;
- `revisions`: rows with values, and from when until when each is the last of its key;
- `asks`: for one feature, the events `[lo, hi]` that each question may use.
"""

from __future__ import annotations

FOREVER = 2**63 - 1
ALWAYS = -(2**63)

BLOCK = 32
"""Rows of one entity are kept in event order in blocks of this many, so that a question need not look at all of them."""


def sql(text: str, **parts: object) -> str:
    """`text` with `{parts}` filled in."""
    return text.format(forever=FOREVER, block=BLOCK, **parts)


ENTITIES = """
CREATE TEMP TABLE entities AS
SELECT {keys}, row_number() OVER () AS entity
FROM (SELECT DISTINCT {keys} FROM spine WHERE {all_known})
"""

QUESTIONS = """
CREATE TEMP TABLE questions AS
SELECT spine_row, {entity} AS entity, t, least(t, {as_of}) AS seen
FROM spine {join_entities}
"""

COUNTING = """
-- R1: rows that can count for some question. Log positions were applied when the rows were read; each question's own `seen`
-- is compared with `arrival` below. Rows of entities that nobody asks about are left out.
CREATE TEMP VIEW counting AS
SELECT {entity} AS entity, observed.*
FROM observed {join_entities}
WHERE arrival <= {limit}
"""

REVISIONS = """
CREATE TEMP TABLE {revisions} AS
WITH counting_here AS (
    SELECT * FROM counting WHERE {on_notice}                                            -- R10: min_notice
),
withdrawals AS (
    -- R3: of a forecast, a retraction that names no issue ends all issues of its event before it.
    SELECT *, {next_withdrawal} AS next_withdrawal FROM counting_here
),
followed AS (
    -- R2: revisions of one key are ordered by arrival, then by sequence; the next one of either sort ends this one.
    SELECT *, lead(arrival) OVER one_key AS next_revision FROM withdrawals
    WHERE NOT {withdraws_all}
    WINDOW one_key AS (PARTITION BY entity, {key} ORDER BY arrival, sequence, row)
),
spans AS (
    -- R3: from a retraction until the next row with values the key is withdrawn. A retraction of a key that was never seen
    -- follows no row with values, and so changes nothing.
    SELECT *,
        least(coalesce(next_revision, {forever}), coalesce(next_withdrawal, {forever})) AS known_until,
        coalesce(lead(arrival) OVER one_key, {forever}) AS gone_until
    FROM followed
    WHERE NOT is_retraction
    WINDOW one_key AS (PARTITION BY entity, {key} ORDER BY arrival, sequence, row)
)
SELECT * EXCLUDE (is_retraction, next_withdrawal, next_revision),
    row_number() OVER (PARTITION BY entity ORDER BY {event_order}) - 1 AS place,        -- R4
    place // {block} AS block
FROM spans
WHERE arrival < gone_until
"""

NEXT_WITHDRAWAL = """min(arrival) FILTER (WHERE is_retraction AND issue IS NULL) OVER (
        PARTITION BY entity, {subject} ORDER BY arrival, sequence, row ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)"""

BLOCKS = """
CREATE TEMP TABLE {revisions}_blocks AS
SELECT entity, block, min(event) AS first_event, max(event) AS last_event FROM {revisions} GROUP BY entity, block
"""

ASKS = """
CREATE OR REPLACE TEMP TABLE asks AS
SELECT ranges.ask, questions.entity, seen, lo, hi, lower_end.block AS lo_block, upper_end.block AS hi_block
FROM ranges
JOIN questions USING (spine_row)
ASOF JOIN (SELECT entity, first_event, max(block) AS block FROM {revisions}_blocks GROUP BY entity, first_event) upper_end
    ON questions.entity = upper_end.entity AND ranges.hi >= upper_end.first_event
ASOF JOIN (SELECT entity, last_event, min(block) AS block FROM {revisions}_blocks GROUP BY entity, last_event) lower_end
    ON questions.entity = lower_end.entity AND ranges.lo <= lower_end.last_event
WHERE lo_block <= hi_block
"""

CANDIDATES = """
candidates AS (
    -- Rows in the question's range of events that had arrived, and whose key has not been replaced by `seen`.
    SELECT looking.ask, looking.seen, looking.hi, revisions.*,
        seen < known_until AS is_present, NOT is_present AS is_withdrawn
    FROM (SELECT ask, entity, seen, lo, hi, unnest(range({first_block}, hi_block + 1)) AS block FROM {asks}) looking
    JOIN {revisions} AS revisions USING (entity, block)
    WHERE event BETWEEN lo AND hi AND arrival <= seen AND seen < gone_until
),
rows_to_use AS (SELECT *, {is_current} AS is_current FROM candidates)
"""

IS_CURRENT = "is_present"
IS_NEWEST_ISSUE = "is_present AND place = max(place) FILTER (WHERE is_present) OVER (PARTITION BY ask, event)"
"""R2: of the issues of an event that are present, the newest; `place` orders them."""
HAS_NO_NEWER_ISSUE = """is_present AND NOT EXISTS (
        SELECT 1 FROM {revisions} newer
        WHERE newer.entity = candidates.entity AND {same_subject} AND newer.issue > candidates.issue
            AND newer.arrival <= candidates.seen AND candidates.seen < newer.known_until)"""
"""The same where ids are declared, so that a newer issue may speak of another event (R4)."""

PICK = """
INSERT INTO picked
WITH {candidates},
found AS (
    -- R6, R9, R10: the greatest event, and of a forecast its newest issue.
    SELECT ask, max_by(place, place) FILTER (WHERE is_current {and_value}) AS place,
        bool_or(is_current) AS some_current, bool_or(is_withdrawn) AS some_withdrawn
    FROM rows_to_use GROUP BY ask
)
SELECT ask, entity, found.place, coalesce(some_current, false), coalesce(some_withdrawn, false)
FROM still_open LEFT JOIN found USING (ask)
WHERE found.place IS NOT NULL OR {first_block} <= lo_block
"""

PICKED = """
SELECT ask, row, event, arrival, {issue} AS issue, sequence, some_current, some_withdrawn
FROM picked LEFT JOIN {revisions} USING (entity, place)
"""

LAST_N = """
INSERT INTO picked
WITH {candidates},
found AS (
    -- R11: the last so many events.
    SELECT ask, max_by(row, place, {length}) FILTER (WHERE is_current) AS rows, bool_or(is_withdrawn) AS some_withdrawn
    FROM rows_to_use GROUP BY ask
)
SELECT ask, found.rows, coalesce(some_withdrawn, false)
FROM still_open LEFT JOIN found USING (ask)
WHERE len(found.rows) = {length} OR {first_block} <= lo_block
"""

TIES = """
-- R17: rows of one key and arrival that nothing orders, each with the one before it in the order given.
SELECT row, row_before, event_before AS event, arrival, {differs} AS differs
FROM (
    SELECT row, arrival, {withdraws_all} AS withdraws_all, lag({withdraws_all}) OVER one_instant AS withdrew_all,
        lag(row) OVER one_instant AS row_before, lag(event) OVER one_instant AS event_before
    FROM counting
    {only}
    WINDOW one_instant AS (PARTITION BY entity, {key}, arrival, sequence ORDER BY row)
)
WHERE row_before IS NOT NULL AND {which}
ORDER BY row_before, row
"""
