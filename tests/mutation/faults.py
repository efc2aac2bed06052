"""Hand-made faults: a text that is in the source once, what it becomes, and the rule that this breaks.

A fault's file is found by its text, so that moving code from file to file does not hide it; a test asserts that each text is
still there exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fault:
    """One fault."""

    what: str
    rule: str
    old: str
    new: str
    package: str = "alignment"
    tests: str = ""
    """Which tests are to notice it; empty: those of its package."""


def place_of(fault: Fault, root: Path = ROOT) -> Path:
    """The one file of the fault's package that has its text."""
    places = [path for path in sorted((root / fault.package).rglob("*.py")) if fault.old in path.read_text()]
    if len(places) != 1:
        raise LookupError(f"{fault.what!r}: its text is in {[path.name for path in places]}, not in exactly one file")
    return places[0]


FAULTS = [
    # --- which rows count -----------------------------------------------------------------------------------------
    Fault(
        "a row that arrives exactly at t does not count",
        "R1",
        "while at < arrived and came[at] <= until:",
        "while at < arrived and came[at] < until:",
    ),
    Fault(
        "as_of is ignored", "R1", "return np.full_like(t, as_of_us) if always else np.minimum(t, as_of_us)", "return t"
    ),
    Fault(
        "as_of moves t where it is later",
        "R1",
        "return np.full_like(t, as_of_us) if always else np.minimum(t, as_of_us)",
        "return np.maximum(t, as_of_us)",
    ),
    Fault(
        "all rows up to as_of count, whatever t",
        "R1",
        "return np.full_like(t, as_of_us) if always else np.minimum(t, as_of_us)",
        "return np.full_like(t, as_of_us)",
    ),
    Fault(
        "a position is ignored by bare frames",
        "R1",
        "rows = rows.filter(pl.col(self.log_sequence) <= position)",
        "pass",
    ),
    Fault(
        "provisional from as_of on, not after it",
        "R1",
        "np.zeros(len(t), bool) if until_us is None else t > until_us",
        "np.zeros(len(t), bool) if until_us is None else t >= until_us",
    ),
    # --- revisions ------------------------------------------------------------------------------------------------
    Fault("log_sequence does not order rows of one arrival", "R2", "        if not in_order:\n", "        if False:\n"),
    Fault("arrivals are not brought into order", "R2", "    if not is_sorted(a):\n", "    if False:\n"),
    Fault(
        "the first revision stays current",
        "R2",
        "                    current[place] = row[now]\n",
        "                    current[place] = row[now] if current[place] < 0 else current[place]\n",
    ),
    Fault(
        "an old run that arrives late displaces a newer one",
        "R2",
        "                            if issue < b:\n                                continue\n",
        "",
    ),
    Fault(
        "a forecast without issue_time has one issue for all arrivals",
        "R2",
        "issue = pl.col(ARRIVAL) if",
        "issue = pl.lit(0, pl.Int64) if",
    ),
    Fault(
        "a null revision is passed over",
        "R2",
        "            flag = PRESENT_NULL\n        flags[i] = flag",
        "            flag = NEVER\n        flags[i] = flag",
    ),
    Fault(
        "rows of one arrival change places where runs are merged",
        "R17",
        "        if spare_key[i] <= key[j]:\n",
        "        if spare_key[i] < key[j]:\n",
    ),
    # --- retractions ----------------------------------------------------------------------------------------------
    Fault(
        "a retraction is kept but does nothing",
        "R3",
        "        flag = WITHDRAWN if len(retraction) > 0 and retraction[row] != 0 else PRESENT",
        "        flag = PRESENT",
    ),
    Fault(
        "a retraction of an unknown key makes it retracted",
        "R3",
        "                        if state[place] != NEVER:\n                            state[place] = WITHDRAWN\n                            current[place] = -1\n                elif first_only:",
        "                        state[place] = WITHDRAWN\n                        current[place] = -1\n                        lowest, top = min(lowest, place), max(top, place)\n                elif first_only:",
    ),
    Fault(
        "a withdrawn event still shows",
        "R3",
        "                            state[place] = WITHDRAWN\n                            current[place] = -1\n                elif first_only:",
        "                            state[place] = WITHDRAWN\n                elif first_only:",
    ),
    Fault(
        "a retraction without issue withdraws the newest issue only",
        "R3",
        "for k in range(start, b + 1):",
        "for k in range(b, b + 1):",
    ),
    Fault(
        "no older issue shows after a withdrawal",
        "R3",
        "                            while b >= start and by_issue[b] < 0:\n                                b -= 1\n",
        "                            b = b if by_issue[b] >= 0 else start - 1\n",
    ),
    Fault(
        "is_retraction null means true",
        "R3",
        "fill_null(value=False).alias(RETRACTION)",
        "fill_null(value=True).alias(RETRACTION)",
    ),
    # --- ids ------------------------------------------------------------------------------------------------------
    Fault(
        "an event that moves leaves its old place filled",
        "R4",
        "                            current[place] = -1\n                    elif now < 0",
        "                            pass\n                    elif now < 0",
    ),
    Fault(
        "a moved event's old place is called withdrawn",
        "R4",
        "state[place] = NEVER if now >= 0 else WITHDRAWN",
        "state[place] = WITHDRAWN",
    ),
    Fault(
        "a retracted id is forgotten", "R4", "by_subject[s] = now if now >= 0 else -2 - before", "by_subject[s] = now"
    ),
    Fault(
        "events of one arrival are not ordered by id",
        "R4",
        "        if ORDER not in frame.columns:\n            return identity\n",
        "        if ORDER not in frame.columns:\n            return frozen(np.empty(0, np.int64))\n",
    ),
    # --- early events ---------------------------------------------------------------------------------------------
    Fault(
        "an arrival is not raised to its event",
        "R5",
        "pl.when(early).then(EVENT).otherwise(ARRIVAL)",
        "pl.when(early).then(ARRIVAL).otherwise(ARRIVAL)",
    ),
    Fault(
        "exactly the clock tolerance is refused",
        "R5",
        "> observations.tolerance.total_us)",
        ">= observations.tolerance.total_us)",
    ),
    # --- latest and ages ------------------------------------------------------------------------------------------
    Fault(
        "exactly the age limit is expired",
        "R7",
        ".gather(row_index(picks)) < floor",
        ".gather(row_index(picks)) <= floor",
    ),
    Fault(
        "age limits are ignored",
        "R7",
        "            picks = np.where(old.fill_null(value=False).to_numpy(), np.int32(codes.EXPIRED), picks)\n",
        "",
    ),
    Fault(
        "skip_null takes the newest event all the same",
        "R6",
        "if pass_nulls == 0 or state[p] == PRESENT:",
        "if pass_nulls >= 0 or state[p] == PRESENT:",
    ),
    Fault(
        "an arrival limit looks at events",
        "R7",
        "zip(self.view.limits(feature), (EVENT, ARRIVAL, ISSUE), strict=True)",
        "zip(self.view.limits(feature), (EVENT, EVENT, ISSUE), strict=True)",
    ),
    Fault(
        "a feature's own limit does not override its view's",
        "R7",
        "feature.max_event_age or self.max_event_age",
        "self.max_event_age or feature.max_event_age",
    ),
    # --- windows --------------------------------------------------------------------------------------------------
    Fault(
        "a window includes its start",
        "R8",
        "return lower + 1, shifted(t, zone, (-1, feature.offset))",
        "return lower, shifted(t, zone, (-1, feature.offset))",
    ),
    Fault(
        "an offset moves the end alone",
        "R8",
        "lower = shifted(t, zone, (-1, feature.offset), (-1, feature.length))",
        "lower = shifted(t, zone, (-1, feature.length))",
    ),
    Fault(
        "nulls count",
        "R8",
        "        if state[i] == PRESENT:\n            x = column[i]\n            n += 1\n",
        "        if state[i] == PRESENT or state[i] == 2:\n            x = column[i]\n            n += 1\n",
    ),
    Fault("the spread divides by n", "R8", "squares / (n - 1)", "squares / n"),
    Fault("quantiles take the nearest value below", "R8", "return x + gap * part", "return x"),
    Fault("the slope is per minute", "R8", "HOUR_US = 3_600_000_000.0", "HOUR_US = 60_000_000.0"),
    Fault(
        "the slope is through the first event's mean",
        "R8",
        "x_mean, y_mean = x_sum / n, y_sum / n",
        "x_mean, y_mean = 0.0, y_sum / n",
    ),
    Fault(
        "a NaN is passed over by min",
        "R8",
        "exact[to, q] = whole if nan else least if aggregate == MIN",
        "exact[to, q] = least if aggregate == MIN",
    ),
    Fault("a NaN is passed over by last", "R8", "= NAN if nan else current[p]", "= current[p]"),
    Fault("an integer sum wraps around", "R8", "overflow[0] = to + 1", "pass"),
    Fault("first and last change places", "R8", "up = aggregate == FIRST\n", "up = aggregate == LAST\n"),
    Fault(
        "a window's end moves on by one event at most",
        "R8",
        "if events[end] <= upper and events[end + 1] > upper:",
        "if events[end] <= upper:",
    ),
    Fault(
        "a window's begin moves on by one event at most",
        "R8",
        "                            and (begin + 1 == n_slots or events[begin + 1] >= lower)\n",
        "",
    ),
    Fault(
        "a null is picked in haste",
        "R6",
        "if p >= lowest and events[p] >= lower and state[p] == PRESENT:",
        "if p >= lowest and events[p] >= lower:",
    ),
    # --- lags, leads, sequences -----------------------------------------------------------------------------------
    Fault(
        "a lag's tolerance is ignored",
        "R9",
        "return shifted(t, zone, (-1, feature.by), (-1, feature.tolerance)), upper",
        "return None, upper",
    ),
    Fault(
        "a lag's far end does not count",
        "R9",
        "return shifted(t, zone, (-1, feature.by), (-1, feature.tolerance)), upper",
        "return shifted(t, zone, (-1, feature.by), (-1, feature.tolerance)) + 1, upper",
    ),
    Fault("min_notice is ignored", "R10", "    return np.where(late, np.int32(-1), codes)\n", "    return codes\n"),
    Fault(
        "exactly min_notice is too late",
        "R10",
        "late = numbers(frame[ARRIVAL]) > (latest",
        "late = numbers(frame[ARRIVAL]) >= (latest",
    ),
    Fault(
        "min_notice is 24 hours a day",
        "R15",
        "latest = shifted(events, zone, (-1, notice))",
        "latest = shifted(events, None, (-1, notice))",
    ),
    Fault(
        "a lead's tolerance reaches forward",
        "R10",
        "return shifted(t, zone, (1, feature.lead), (-1, feature.tolerance)), shifted(t, zone, (1, feature.lead))",
        "return shifted(t, zone, (1, feature.lead)), shifted(t, zone, (1, feature.lead), (1, feature.tolerance))",
    ),
    Fault(
        "a sequence is newest first",
        "R11",
        "picks[target + length - filled, q] = current[p]",
        "picks[target + filled - 1, q] = current[p]",
    ),
    Fault(
        "max_span includes its far end",
        "R11",
        "return shifted(t, zone, (-1, feature.max_span)) + 1, 0",
        "return shifted(t, zone, (-1, feature.max_span)), 0",
    ),
    Fault("the grid ends at t and not at its last point", "R11", "else moment // step * step", "else moment"),
    Fault(
        "a slot holds its first event",
        "R11",
        "            picks[target + length - 1 - g, q] = current[p]\n            filled = True\n        while p >= lowest and events[p] > lower:\n            p -= 1\n",
        "            filled = True\n        while p >= lowest and events[p] > lower:\n            picks[target + length - 1 - g, q] = current[p] if current[p] >= 0 else picks[target + length - 1 - g, q]\n            p -= 1\n",
    ),
    # --- labels ---------------------------------------------------------------------------------------------------
    Fault(
        "a label's tolerance is ignored",
        "R12",
        "shifted(spine.t, zone, (1, label.horizon), (-1, label.tolerance))",
        "shifted(spine.t, zone, (1, label.horizon))",
    ),
    Fault("the first release is the last", "R12", 'first_only=label.release == "first"', "first_only=False"),
    Fault(
        "a label counts before it is released",
        "R12",
        "(due < numbers(frame[ARRIVAL])) | (due > as_of_us)",
        "(due < numbers(frame[ARRIVAL])) | (due < 0)",
    ),
    Fault(
        "a label takes a revision from after its release",
        "R12",
        "(due < numbers(frame[ARRIVAL])) | (due > as_of_us)",
        "(due < 0) | (due > as_of_us)",
    ),
    Fault(
        "a later move takes the released label away",
        "R12",
        '& (pl.col("@next").is_null() | (pl.col("@next") > pl.col("@due")))',
        '& pl.col("@next").is_null()',
    ),
    # --- zones ----------------------------------------------------------------------------------------------------
    Fault("calendar days are 24 hours", "R15", "    if zone is None or not days:\n", "    if True:\n"),
    Fault("a doubled local time is its second pass", "R15", 'ambiguous="earliest"', 'ambiguous="latest"'),
    Fault(
        "the grid of a zone starts at UTC midnight",
        "R15",
        "    midnight = local_midnight(t, zone)\n",
        "    midnight = t - t % 86_400_000_000\n",
    ),
    Fault(
        "a bound goes back in the second pass", "R15", "moved[row] = max(moved[row],", "moved[row] = min(moved[row],"
    ),
    # --- the join -------------------------------------------------------------------------------------------------
    Fault(
        "a null key is asked about like any other",
        "R21",
        "codes[-2][asked[name].is_null().to_numpy()] = -1",
        "codes[-2][asked[name].is_null().to_numpy()] = 0",
    ),
    Fault(
        "retracted is called missing",
        "R20",
        "    if _any_withdrawn(events, state, lowest, min(end - 1, top), lower):\n        return RETRACTED\n    return MISSING",
        "    return MISSING",
    ),
    Fault(
        "a null value is called present",
        "R20",
        "found[is_null & (picks >= 0)] = _NULL",
        "found[is_null & (picks >= 0)] = _PRESENT",
    ),
    Fault(
        "rows from before a column existed are null",
        "R20",
        "found[before_column] = _MISSING",
        "found[before_column] = _NULL",
    ),
    Fault(
        "different rows of one key and arrival pass",
        "R17",
        '    if ties.any() and observations.on_tie == "error":\n',
        "    if False:\n",
    ),
    # --- what stands in for a provider that is down -----------------------------------------------------------------
    Fault(
        "a provider is up as long after its last heartbeat as it may be silent, for services",
        "R20",
        "return np.asarray(last <= t - down_after_us, np.bool_)",
        "return np.asarray(last < t - down_after_us, np.bool_)",
    ),
    Fault(
        "a heartbeat at t does not count",
        "R20",
        'place = np.searchsorted(arrivals, known, side="right") - 1',
        'place = np.searchsorted(arrivals, known, side="left") - 1',
    ),
    Fault(
        "heartbeats after as_of count",
        "R20",
        "known = t if as_of_us is None else np.minimum(t, as_of_us)",
        "known = t",
    ),
    Fault(
        "a variant refuses exactly its greatest age",
        "R20",
        "return np.asarray(last < t - max_age_us, np.bool_)",
        "return np.asarray(last <= t - max_age_us, np.bool_)",
    ),
    Fault(
        "heartbeats later than the position count for services",
        "R20",
        'return np.asarray(told(position=position)["arrival_time"]',
        'return np.asarray(told(position=None)["arrival_time"]',
    ),
    Fault(
        "a source whose provider is down answers",
        "R20",
        "return np.asarray(answered & ~down, np.bool_)",
        "return np.asarray(answered, np.bool_)",
    ),
    Fault(
        "a null is never an answer",
        "R20",
        "answered = status == PRESENT if skip_null else",
        "answered = status == PRESENT if True else",
    ),
    Fault(
        "the last source that can answer does",
        "R20",
        "for place in range(len(fits) - 1, -1, -1):",
        "for place in range(len(fits)):",
    ),
    Fault(
        "where nothing can answer the last source does",
        "R20",
        "for source in sources], rows, none=0)",
        "for source in sources], rows, none=len(sources) - 1)",
    ),
    Fault(
        "a variant fits if one of the providers that it needs does",
        "R20",
        "            good &= problem == FITS\n",
        "            good |= problem == FITS\n",
    ),
    Fault(
        "a variant needs nobody to be up",
        "R20",
        "        found[is_down(last, t, down_after_us)] = IS_DOWN\n",
        "        pass\n",
    ),
    Fault(
        "the greatest age of a needed provider is ignored",
        "R20",
        "        found[is_stale(last, t, max_age.total_us)] = IS_STALE\n",
        "        pass\n",
    ),
    Fault(
        "the age of the newest event is ignored",
        "R20",
        "        found[is_stale(newest, t, max_event_age.total_us)] = IS_OLD\n",
        "        pass\n",
    ),
    Fault(
        "a late event makes a provider older",
        "R20",
        "np.maximum.accumulate(events[order]) if len(order) else events",
        "events[order]",
    ),
    Fault(
        "a retraction brings a new event",
        "R20",
        "frame = frame.filter(~frame[RETRACTION]) if RETRACTION in frame.columns else frame",
        "pass",
    ),
    Fault(
        "a variant's training set has all rows",
        "R20",
        'if self.variant is None or self.rows == "all":',
        "if True:",
    ),
    Fault(
        "the status stays that of the feature",
        "R20",
        "pick([_PRESENT if c is None or c.status is None else c.status for c in columns], chosen),",
        "columns[0].status,",
    ),
    # --- what is decided in the commit loop -------------------------------------------------------------------------
    *(
        Fault(what, rule, old, new, package="ingestion")
        for what, rule, old, new in [
            (
                "a poll that another job overtook is stored",
                "R14",
                "if attempt.after is not None and table.last_poll_record() != attempt.after:",
                "if False:",
            ),
            (
                "a failed poll is stamped",
                "R20",
                "polled = attempt.poll is not None and attempt.poll.outcome in STAMPED",
                "polled = attempt.poll is not None",
            ),
            (
                "an empty poll is not stamped",
                "R20",
                "polled = attempt.poll is not None and attempt.poll.outcome in STAMPED",
                "polled = False",
            ),
            (
                "a failed poll moves the cursor",
                "R14",
                "return sequence + 1, sequence if poll.outcome in MOVES_ON else None",
                "return sequence + 1, sequence",
            ),
            (
                "a poll of which nothing was kept is a heartbeat",
                "R20",
                'outcome="refused" if only_bad else "empty"',
                'outcome="empty"',
            ),
            (
                "a stream's earlier number is stored again",
                "R14",
                "return last is not None and last >= attempt.stream[1]",
                "return last is not None and last == attempt.stream[1] + 1",
            ),
            (
                "a stamp may repeat the one before",
                "R14",
                "return max(now + margin, head.last_stamp_us + 1, received",
                "return max(now + margin, head.last_stamp_us, received",
            ),
            (
                "a row that was set aside is gone from a whole state",
                "R3",
                "there = table.logical_to_stored(present).select(key).lazy()",
                "there = table.logical_to_stored(rows).select(key).lazy()",
            ),
            (
                "an event on the bound of a whole state's window is retracted",
                "R3",
                'alive.filter(pl.col("event_time") > pl.lit(state.since_us',
                'alive.filter(pl.col("event_time") >= pl.lit(state.since_us',
            ),
            (
                "what is gone already is retracted again",
                "R3",
                '        .last()\n        .filter(~pl.col("is_retraction").fill_null(value=False))\n    )\n    if state.since_us',
                "        .last()\n    )\n    if state.since_us",
            ),
            (
                "retractions of a whole state come after its rows",
                "R4",
                "return pl.concat([gone, result.rows])",
                "return pl.concat([result.rows, gone])",
            ),
            (
                "a column that was not sent is null",
                "R22",
                "pl.when(gone | ~pl.col(ABSENT).list.contains(name).fill_null(value=False))",
                "pl.when(pl.lit(value=True))",
            ),
            (
                "a column that was sent as null keeps its value",
                "R22",
                "pl.when(gone | ~pl.col(ABSENT).list.contains(name).fill_null(value=False))",
                "pl.when(pl.col(name).is_not_null())",
            ),
            (
                "a retraction is filled like any row",
                "R22",
                "pl.when(gone | ~pl.col(ABSENT).list.contains(name).fill_null(value=False))",
                "pl.when(~pl.col(ABSENT).list.contains(name).fill_null(value=False))",
            ),
            (
                "issues of a forecast fill each other",
                "R2",
                "        group = [*key, _ORDER]",
                "        group = [*event, _ORDER]",
            ),
            (
                "an id lives where its last row was, though that was a retraction elsewhere",
                "R4",
                'ended = (~value & (pl.col("__entity") == pl.col("__at"))).cum_max()',
                "ended = (~value).cum_max()",
            ),
            (
                "history confirms a measured row",
                "R13",
                'measured = known.revisions.filter(pl.col("arrival_kind") == "measured")  #',
                "measured = known.revisions  #",
            ),
            (
                "a poll of which nothing was kept moves the clock",
                "R20",
                "if attempt.poll is not None and _concluded(attempt.poll, result).outcome not in STAMPED:",
                "if False:",
            ),
            (
                "history may arrive later than now",
                "R13",
                "rows, early = _not_yet(rows, now)",
                "pass",
            ),
            (
                "an issue that comes back after all were withdrawn is taken for unchanged",
                "R3",
                'repeats = repeats.join(withdrawn, on=event, how="anti", nulls_equal=True)',
                "pass",
            ),
            (
                "issues of a forecast are compared with each other",
                "R2",
                "    key = table.definition.revision_columns\n    compared =",
                "    key = table.definition.key_columns\n    compared =",
            ),
            (
                "a provider is up as long after its last heartbeat as it may be silent",
                "R20",
                'last <= to_us(t, "t") - duration_us(down_after, "down_after")',
                'last < to_us(t, "t") - duration_us(down_after, "down_after")',
            ),
            (
                "history is a heartbeat",
                "R20",
                '.filter(pl.col("arrival_kind") == "measured", ~pl.col("batch_id")',
                '.filter(~pl.col("batch_id")',
            ),
            (
                "polls later than the position count",
                "R20",
                '.filter(pl.col("log_sequence") >= since, pl.col("log_sequence") <= at, alive)',
                '.filter(pl.col("log_sequence") >= since, alive)',
            ),
            (
                "a whole state that could not be read whole retracts",
                "R3",
                "whole = not aside and all(result.refused is None for result, _ in checked)",
                "whole = True",
            ),
        ]
    ),
    # --- the online state -----------------------------------------------------------------------------------------
    Fault(
        "online, a row of exactly the age limit is expired",
        "R7",
        "picks = [codes.EXPIRED if row >= 0 and at[row] < floor else row for row in picks]",
        "picks = [codes.EXPIRED if row >= 0 and at[row] <= floor else row for row in picks]",
        tests="online",
    ),
    Fault(
        "online, a null that was picked is present",
        "R20",
        """                "null" if value is None and said == "present" else said
                for value, said in zip(values, status, strict=True)""",
        """                said
                for value, said in zip(values, status, strict=True)""",
        tests="online",
    ),
    Fault(
        "online, a column is null in rows that are older than it",
        "R20",
        '"missing" if row >= 0 and order[row] < since else said for row, said in zip(picks, status, strict=True)',
        '"null" if row >= 0 and order[row] < since else said for row, said in zip(picks, status, strict=True)',
        tests="online",
    ),
    Fault(
        "online, an event below the mark is taken for the newest",
        "R6",
        "place for place, mark in trimmed if rows[place] < 0 or event[rows[place]] < mark",
        "place for place, mark in trimmed if rows[place] < 0",
        tests="online",
    ),
    Fault(
        "online, what was trimmed is taken for what never was",
        "R20",
        "place for place, mark in trimmed if rows[place] < 0 or event[rows[place]] < mark",
        "place for place, mark in trimmed if rows[place] >= 0 and event[rows[place]] < mark",
        tests="online",
    ),
    Fault(
        "a row is dropped though what supersedes it is not visible yet",
        "R1",
        "seen = pl.col(ARRIVAL) <= oldest",
        "seen = pl.lit(value=True)",
        tests="online",
    ),
    Fault(
        "a restamped row still counts as given the notice that it was not given any more",
        "R10",
        "rows = [self._given(of, notice) for of in whole] if notice is not None else whole",
        "rows = whole",
        tests="online",
    ),
    Fault(
        "a later trim lowers an entity's mark",
        "R19",
        "return one | {entity: max(mark, one.get(entity, mark)) for entity, mark in other.items()}",
        "return one | other",
        tests="online",
    ),
    Fault(
        "a restamp does not bring back what was dropped for its row",
        "R14",
        'if (rows["before"] <= trimmed_at).any():',
        "if False:",
        package="serving",
        tests="online",
    ),
    Fault(
        "a row that was taken back is dropped, and its retraction says nothing any more",
        "R20",
        'stays = ~seen | (pl.col("@row") == last) | (pl.col("@row") == before)',
        'stays = ~seen | (pl.col("@row") == last)',
        tests="online",
    ),
    Fault(
        "an id is dropped by the event that it had before it moved",
        "R4",
        'greatest = pl.col(EVENT).filter("stays").max().over(key) if by_id else pl.col(EVENT)',
        "greatest = pl.col(EVENT)",
        tests="online",
    ),
    Fault(
        "a row that is restamped keeps its arrival online",
        "R14",
        "later = np.maximum(arrivals[place], self.arrival.array[there])",
        "later = self.arrival.array[there]",
        tests="online",
    ),
    Fault(
        "a server answers at its clock, though it has not looked at the log since",
        "R19",
        "return min(now, reading.complete_through)",
        "return now",
        package="serving",
        tests="online",
    ),
    Fault(
        "a server trusts its clock as if it were the writer's",
        "R19",
        "self.backend.confirm(heads, looked - self._allowance)",
        "self.backend.confirm(heads, looked)",
        package="serving",
        tests="online",
    ),
    Fault(
        "a server that is too far behind answers",
        "R19",
        "if now - reading.complete_through > self._max_behind:",
        "if False:",
        package="serving",
        tests="online",
    ),
    Fault(
        "what was erased stays in the online state",
        "R16",
        "head > self.position and self._past_changed()",
        "False",
        package="serving",
        tests="online",
    ),
    Fault(
        "of two restamps that are read together the earlier counts",
        "R14",
        '.agg(pl.col("arrival_time").dt.epoch("us").max())',
        '.agg(pl.col("arrival_time").dt.epoch("us").min())',
        package="serving",
        tests="online",
    ),
    Fault(
        "a past instant is answered from rows that came into the log later",
        "R19",
        "found = canonical(observations, compiled.columns, position=position, after=after, event_from_us=event_from)",
        "found = canonical(observations, compiled.columns, after=after, event_from_us=event_from)",
        package="serving",
        tests="online",
    ),
    # --- arrivals that move --------------------------------------------------------------------------------------------
    Fault(
        "a row that would arrive as an outage begins arrives",
        "R23",
        "hit = (arrival >= start) & (arrival < end)",
        "hit = (arrival > start) & (arrival < end)",
        tests="arrivals",
    ),
    Fault(
        "a row that would arrive as an outage ends is concerned",
        "R23",
        "hit = (arrival >= start) & (arrival < end)",
        "hit = (arrival >= start) & (arrival <= end)",
        tests="arrivals",
    ),
    Fault(
        "lost rows are caught up",
        "R23",
        "            kept &= ~hit\n",
        "            arrival = arrival.set(hit, end)\n",
        tests="arrivals",
    ),
    Fault(
        "an outage of some entities holds up all",
        "R23",
        " & outage.concerns(frame, rows.entities, rows.place)",
        "",
        tests="arrivals",
    ),
    Fault(
        "outages happen in the order in which they were named",
        "R23",
        "ordered = sorted(outages, key=_order_of)",
        "ordered = list(outages)",
        tests="arrivals",
    ),
    Fault(
        "slow rows take one delay more",
        "R23",
        "longer = (delay * (factor - 1.0))",
        "longer = (delay * factor)",
        tests="arrivals",
    ),
    Fault(
        "a row that came before its origin is quicker while its provider is slow",
        "R23",
        ".fill_null(0).clip(lower_bound=0)",
        ".fill_null(0)",
        tests="arrivals",
    ),
    Fault(
        "revisions that were held up overtake each other",
        "R23",
        "frame = _in_order(rows, frame).sort(_ROW)",
        "frame = frame.sort(_ROW)",
        tests="arrivals",
    ),
    Fault(
        "the log's sequence turns revisions round that were moved to one instant",
        "R23",
        "arrival[before] + (order[after] < order[before])",
        "arrival[before]",
        tests="arrivals",
    ),
    Fault(
        "what withdraws all issues may overtake those that it withdraws",
        "R23",
        "        group = [*of_event, _GROUP]\n",
        "        pass\n",
        tests="arrivals",
    ),
    Fault(
        "a rule moves every revision for itself",
        "R23",
        "first = keys.is_first(tells.to_numpy())",
        "first = tells.to_numpy()",
        tests="arrivals",
    ),
    Fault(
        "later revisions stay where they were when a rule moves the first",
        "R23",
        "    shift = keys.carried(shift, first)\n",
        "",
        tests="arrivals",
    ),
    Fault(
        "a rule makes rows arrive before they happened",
        "R5",
        "pl.max_horizontal(pl.Series(moved_by), frame[EVENT])",
        "pl.Series(moved_by)",
        tests="arrivals",
    ),
    Fault(
        "what withdraws all issues does not move with them",
        "R23",
        "events.carried(shift, tells.to_numpy())",
        "0",
        tests="arrivals",
    ),
    Fault(
        "rows that did not move are marked",
        "R13",
        "made_up = pl.lit(value=True) if rule is not None else pl.col(ARRIVAL) != pl.col(_BEFORE)",
        "made_up = pl.lit(value=True)",
        tests="arrivals",
    ),
    Fault(
        "polls find nothing while the provider is down", "R20", "empty = empty.filter(~down)", "pass", tests="arrivals"
    ),
    Fault(
        "a provider is down while some of its entities are",
        "R20",
        "if outage.entities is None and outage.slow is None:",
        "if outage.slow is None:",
        tests="arrivals",
    ),
    Fault(
        "a slow provider answers no polls",
        "R20",
        "if outage.entities is None and outage.slow is None:",
        "if outage.entities is None:",
        tests="arrivals",
    ),
    Fault(
        "heartbeats stay where they were",
        "R20",
        'pl.concat([came.select("arrival_time", "log_sequence"), empty])',
        'pl.concat([came.select(pl.col(GIVEN).alias("arrival_time"), "log_sequence"), empty])',
        tests="arrivals",
    ),
    Fault(
        "rows above the position decide how those below it move",
        "R1",
        "stored = in_one_piece(canonical(rows, [], position=position).collect())",
        "stored = in_one_piece(canonical(rows, []).collect())",
        tests="arrivals",
    ),
    Fault(
        "labels arrive when outages say",
        "R12",
        "    rows_of = {view.name: view.observations for view in views}\n    home: str",
        "    views = tuple(transform_arrivals(views, outages=outages))\n    rows_of = {view.name: view.observations for view in views}\n    home: str",
        tests="arrivals",
    ),
    # --- replay --------------------------------------------------------------------------------------------------------
    Fault(
        "later entities of a replay are given the answers of the first ones",
        "R21",
        "np.repeat(np.arange(places.start, places.stop)",
        "np.repeat(np.arange(len(places))",
        tests="arrivals",
    ),
    Fault(
        "a batch of ticks ends one early",
        "R21",
        "slice(begin, begin + (ticks if at_once > 1 else batch_rows)),",
        "slice(begin, begin + (ticks if at_once > 1 else batch_rows - 1)),",
        tests="arrivals",
    ),
    Fault(
        "a replay reads what had arrived by its first tick",
        "R1",
        "last = int(ticks[-1]) if len(ticks) else 0",
        "last = int(ticks[0]) if len(ticks) else 0",
        tests="arrivals",
    ),
    Fault(
        "a view without an answer counts as available",
        "R20",
        '.is_in(["present", "null"])\n            views.setdefault',
        '.is_in(["present", "null", "expired"])\n            views.setdefault',
        tests="arrivals",
    ),
    Fault(
        "the median age is that of the row after",
        "R20",
        "places = [max(0, int(np.ceil(q * numbers[-1])) - 1)",
        "places = [min(int(numbers[-1]) - 1, int(np.ceil(q * numbers[-1])))",
        tests="arrivals",
    ),
    # --- outages found and drawn ---------------------------------------------------------------------------------------
    Fault(
        "silence exactly as long as it may be is an outage",
        "R20",
        ".filter(pl.col(_NEXT) - pl.col(_LAST) > pl.col(_LIMIT))",
        ".filter(pl.col(_NEXT) - pl.col(_LAST) >= pl.col(_LIMIT))",
        tests="outages",
    ),
    Fault(
        "the usual gap is that of most rows, not of most of the time",
        "R20",
        "gaps.filter(gaps.cum_sum() * 2 >= gaps.sum()).first()",
        "gaps.median().cast(pl.Int64)",
        tests="outages",
    ),
    Fault(
        "an outage begins with the last heartbeat",
        "R23",
        "instant_from_us(last + 1)",
        "instant_from_us(last)",
        tests="outages",
    ),
    Fault(
        "a retraction is taken for a new event",
        "R3",
        "at = pl.when(~pl.col(RETRACTION)).then(at)",
        "pass",
        tests="outages",
    ),
    Fault(
        "every entity is out when the provider is",
        "R20",
        "np.maximum(both, 0).sum(axis=1)",
        "0 * both.sum(axis=1)",
        tests="outages",
    ),
    Fault(
        "rows that came with no heartbeat count",
        "R20",
        "frame = frame.filter(pl.col(ARRIVAL).is_in(beats.implode()))",
        "pass",
        tests="outages",
    ),
    Fault(
        "what was known before an outage is what came last, not what is newest",
        "R20",
        "pl.col(_AT).cum_max().over(_WHO).alias(_KNOWN)",
        "pl.col(_AT).alias(_KNOWN)",
        tests="outages",
    ),
    Fault(
        "an event that was known is taken for the next one",
        "R20",
        "allow_exact_matches=False",
        "allow_exact_matches=True",
        tests="outages",
    ),
    Fault(
        "all providers have the same outages",
        "R23",
        "digest = hashlib.sha256(repr(key).encode()).digest()",
        "digest = hashlib.sha256(repr(key[1:]).encode()).digest()",
        tests="outages",
    ),
    Fault(
        "draws depend on the hash seed",
        "R17",
        'int.from_bytes(digest[:16], "little")',
        "hash(key) % (1 << 64)",
        tests="outages",
    ),
    Fault(
        "an outage that begins at the end is there",
        "R23",
        "if first <= outage.span_us[0] < last",
        "if first <= outage.span_us[0] <= last",
        tests="outages",
    ),
    Fault(
        "an entity's draw depends on its place",
        "R23",
        "[self._rng(provider, day, number, repr(one)).random() for one in self.entities]",
        'self._rng(provider, day, number, "all").random(len(self.entities)).tolist()',
        tests="outages",
    ),
    Fault("a partial outage may hit all", "R23", ", len(order) - 1)", ", len(order))", tests="outages"),
    Fault(
        "partial outages have no entities",
        "R23",
        "if part < self.partial else None",
        "if part > 1 + self.partial else None",
        tests="outages",
    ),
    # --- outages of served feeds ---------------------------------------------------------------------------------------
    Fault(
        "a feed serves what was lost",
        "R23",
        "return rows.filter(~concerned.fill_null(value=False))",
        "return rows",
        package="ingestion",
        tests="feeds",
    ),
    Fault(
        "an outage of one site holds up all",
        "R23",
        'concerned &= pl.col("site").is_in(self.sites)',
        "pass",
        package="ingestion",
        tests="feeds",
    ),
    Fault(
        "a feed publishes a correction before what it corrects",
        "R23",
        'order = pl.col("published_time").cum_max().over("site", "event_time")',
        'order = pl.col("published_time")',
        package="ingestion",
        tests="feeds",
    ),
    Fault(
        "a feed is down at the end of its outage",
        "R23",
        "return self.start <= now and (self.end is None or now < self.end)",
        "return self.start <= now and (self.end is None or now <= self.end)",
        package="ingestion",
        tests="feeds",
    ),
    Fault(
        "a feed answers nothing while one site is out",
        "R20",
        "return self.slow is None and self.sites is None",
        "return self.slow is None",
        package="ingestion",
        tests="feeds",
    ),
    # --- explanations -----------------------------------------------------------------------------------------------------
    Fault(
        "what is too old is told as used", "R7", 'CODE_OF["expired"] if expired else USED', "USED", tests="explanations"
    ),
    Fault(
        "a window's rows begin one later",
        "R8",
        "else (events >= low) & (events <= high)",
        "else (events > low) & (events <= high)",
        tests="explanations",
    ),
    Fault(
        "nulls are told as used by windows",
        "R8",
        "return inside, inside & ~null, inside & null",
        "return inside, inside, inside & null",
        tests="explanations",
    ),
    Fault(
        "older nulls are told as passed over",
        "R6",
        "return inside, used, inside & null & (np.arange(len(current)) > newest)",
        "return inside, used, inside & null",
        tests="explanations",
    ),
    Fault(
        "what lies outside is told as older",
        "R6",
        "reasons[~inside] = CODE_OF",
        "reasons[~inside & used] = CODE_OF",
        tests="explanations",
    ),
    Fault(
        "what came after as_of takes a row's part",
        "R1",
        "layout = lay_out(self.observations, frame, counting, 1, self.limit, pool)",
        "layout = lay_out(self.observations, frame, counting, 1, self.t, pool)",
        tests="explanations",
    ),
    Fault(
        "what arrives after as_of is told as late",
        "R1",
        'uncounted[arrival > self.t] = CODE_OF["not_arrived"]',
        'uncounted[arrival > self.limit] = CODE_OF["not_arrived"]',
        tests="explanations",
    ),
    Fault(
        "the row at the position is told to lie beyond it",
        "R1",
        "beyond = frame[ORDER].to_numpy() > self.position",
        "beyond = frame[ORDER].to_numpy() >= self.position",
        tests="explanations",
    ),
    Fault(
        "rows beyond the position are not read",
        "R1",
        "for rows in (source.scan(columns=told, position=position), source.scan(columns=told, after=position)):",
        "for rows in (source.scan(columns=told, position=position),):",
        tests="explanations",
    ),
    Fault(
        "explanations ignore min_notice",
        "R10",
        "return feature.min_notice if isinstance(feature, Forecast) else None\n\n\ndef _keys",
        "return None\n\n\ndef _keys",
        tests="explanations",
    ),
    Fault(
        "a retracted row is told as superseded",
        "R3",
        '(~is_last & gone[last], "retracted", last)',
        '(~is_last & gone[last], "superseded", last)',
        tests="explanations",
    ),
    Fault(
        "what came after a withdrawal of all issues is told as retracted by it",
        "R3",
        '(withdrawn > order, "retracted", withdrawn)',
        '(withdrawn >= 0, "retracted", withdrawn)',
        tests="explanations",
    ),
    Fault(
        "an older run names nothing that took its part",
        "R2",
        '(order >= 0, "older_issue", shown)',
        '(order >= 0, "older_issue", None)',
        tests="explanations",
    ),
    Fault(
        "revisions count from 0", "R2", "np.arange(1, len(named) + 1)", "np.arange(len(named))", tests="explanations"
    ),
    Fault(
        "an older row names the used row before it",
        "R4",
        "current[taken[np.searchsorted(taken, older)]]",
        "current[taken[np.searchsorted(taken, older) - 1]]",
        tests="explanations",
    ),
    Fault(
        "a grid begins one early",
        "R11",
        "return int(points[-1]) + 1, int(points[0])",
        "return int(points[-1]), int(points[0])",
        tests="explanations",
    ),
    Fault(
        "naive ignores as_of in explanations",
        "R1",
        'told_us: int | None = latest if as_of is None else instant_us(as_of, "as_of")',
        "told_us: int | None = latest",
        tests="explanations",
    ),
    Fault(
        "naive names rows by their place up to the position",
        "R1",
        "shown[feature.name][places[kept[one]]]",
        "shown[feature.name][kept[one]]",
        tests="explanations",
    ),
    Fault(
        "what was set aside of others is told",
        "R21",
        "rows = rows.filter(pl.col(name).cast(pl.String) == str(spine[asked].cast(pl.String)[0]))",
        "pass",
        tests="explanations",
    ),
    Fault(
        "not the nearest rows are shown",
        "R6",
        "distance = np.maximum(events - until, 0)",
        "distance = np.maximum(until - events, 0)",
        tests="explanations",
    ),
    # --- when labels settle ---------------------------------------------------------------------------------------
    Fault(
        "events count that are too young to be known settled",
        "R12",
        'pl.when(pl.col("left_out").is_null() & (pl.col("age") < (watched_us or 0)))',
        'pl.when(pl.col("left_out").is_null() & (pl.col("age") < 0))',
        tests="maturity",
    ),
    Fault(
        "events are watched only as long as settling takes",
        "R12",
        'longer = 2 * (over_by(old["settled"], share) or 0)',
        'longer = over_by(old["settled"], share) or 0',
        tests="maturity",
    ),
    Fault(
        "a value is settled from the row on that is still far",
        "R12",
        'agg((pl.col(ROW).max() + 1).alias("settled"))',
        'agg(pl.col(ROW).max().alias("settled"))',
        tests="maturity",
    ),
    Fault(
        "events from before the log count",
        "R12",
        ".when(event < (as_of_us if begin is None else begin))",
        ".when(event < 0)",
        tests="maturity",
    ),
    Fault(
        "a recommended release is rounded down",
        "R12",
        "rounded = -(-count // step) * step",
        "rounded = count // step * step",
        tests="maturity",
    ),
    Fault(
        "a null is near a value that comes later",
        "R12",
        'pl.col("final").is_finite()).fill_null(value=False))',
        'pl.col("final").is_finite()).fill_null(value=True))',
        tests="maturity",
    ),
    # --- delay models ---------------------------------------------------------------------------------------------
    Fault(
        "what caught up together is late on its own",
        "R23",
        "np.where(together & (shared >= x), shared, alone)",
        "alone",
        tests="delays",
    ),
    Fault(
        "draws depend on the row's place",
        "R23",
        "row_hashes([frame[name] for name in self.keys],",
        "row_hashes([frame.with_row_index()['index']],",
        tests="delays",
    ),
    Fault(
        "all draws are one",
        "R23",
        'salt(self.seed, self.provider, self.draw, "block")',
        'salt(self.seed, self.provider, "block")',
        tests="delays",
    ),
    Fault(
        "a day borrows any day, whatever its weekday", "R23", 'if "weekday" in self.by:', "if False:", tests="delays"
    ),
    Fault(
        "what was there when measuring began counts as delay",
        "R13",
        "known = frame.filter(pl.col(ORIGIN) >= firsts[ARRIVAL].min())",
        "known = frame",
        tests="delays",
    ),
    Fault(
        "declared arrivals are fitted too",
        "R13",
        "if measured and ARRIVAL_KIND in names:",
        "if False:",
        tests="delays",
    ),
    Fault(
        "rows older than the lookback are counted",
        "R13",
        "[t - self.lookback.total_us, t], side",
        "[0, t], side",
        tests="delays",
    ),
    Fault(
        "an id whose event moved back arrives before what it replaced",
        "R23",
        'pl.col("arrival_time").cum_max().over(keys)',
        'pl.col("arrival_time")',
        package="ingestion",
        tests="delays",
    ),
]
