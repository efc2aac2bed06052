"""The sweep: rows applied in arrival order, questions answered in between."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.codes import (
    COUNT,
    EVERYTHING,
    FIRST,
    GRID,
    LAST,
    LAST_N,
    MAX,
    MEAN,
    MIN,
    MISSING,
    NAN,
    NEVER,
    NO_BOUND,
    NULL,
    PICK,
    PRESENT,
    PRESENT_NULL,
    RETRACTED,
    SUM,
    WITHDRAWN,
)
from alignment.jit import inner, jit
from alignment.kernels.windows import aggregate_further, exact_sum_fits, has_nan, totals


@inner
def _load(rows: Any, retraction: Any, values: Any, valid: Any, has_values: bool, flags: Any, loaded: Any) -> None:
    """Fetch what the rows of one entity carry, in arrival order."""
    for i in range(len(flags)):
        row = rows[i]
        flag = WITHDRAWN if len(retraction) > 0 and retraction[row] != 0 else PRESENT
        if flag == PRESENT and len(valid) > 0 and valid[row] == 0:
            flag = PRESENT_NULL
        flags[i] = flag
    if has_values:
        for i in range(len(loaded)):
            loaded[i] = values[rows[i]]


@inner
def _none(n: int) -> Any:
    """No row, `n` times."""
    rows = np.empty(n, np.int32)
    for i in range(n):
        rows[i] = -1
    return rows


@jit
def sweep(
    tasks: Any,
    first_task: int,
    last_task: int,
    # the rows, as `arrange` left them
    offsets: Any,
    rows: Any,
    arrival: Any,
    event: Any,
    subject: Any,
    slot: Any,
    issue_key: Any,
    key_start: Any,
    subjects: Any,
    slots: Any,
    retraction: Any,
    # which rows count
    forecast: bool,
    with_id: bool,
    first_only: bool,
    # one column
    values: Any,
    valid: Any,
    has_values: bool,
    integers: bool,
    # the questions
    seen_until: Any,
    t: Any,
    kinds: Any,
    lows: Any,
    highs: Any,
    low_rows: Any,
    high_rows: Any,
    bounds: Any,
    parameter: Any,
    targets: Any,
    aggregate_start: Any,
    aggregate_kinds: Any,
    aggregate_shares: Any,
    aggregate_targets: Any,
    # the answers
    picks: Any,
    counts: Any,
    states: Any,
    exact: Any,
    real: Any,
    known: Any,
    overflow: Any,
) -> None:
    """Answer the questions of some tasks: apply rows in arrival order, and look at the state in between (R1-R11).

    Args:
        tasks: (entity, first question, one past the last) per task, int64.
        first_task: First task.
        last_task: One past the last.
        offsets: See `arrange`, as are rows, arrival, event (of slots), subject, slot, issue_key, key_start, subjects, slots.
        rows: Row numbers in arrival order.
        arrival: Arrival times.
        event: Event times of slots.
        subject: Subjects of rows.
        slot: Slots of rows.
        issue_key: Issue keys of rows.
        key_start: First issue key of each subject.
        subjects: Number of subjects.
        slots: Number of slots.
        retraction: By row number, 1 for a retraction; empty if there is none.
        forecast: Whether the newest present issue is current (R2).
        with_id: Whether events may move (R4).
        first_only: Only the first revision with values of a key counts, whatever came later (R12 `first`).
        values: By row number, the column as int64 or float64.
        valid: By row number, 0 for null; empty if nothing is null.
        has_values: Whether there are values to aggregate.
        integers: Whether sums must fit in 64 bits.
        seen_until: min(t, as_of) of each question, ascending within an entity.
        t: Prediction time of each question.
        kinds: Per question kind: PICK, WINDOW, LAST_N, GRID, or EVERYTHING (all current rows, one question per entity).
        lows: Microseconds from t to the lowest event time; `NO_BOUND` for none. For GRID the step.
        highs: Microseconds from t to the highest event time.
        low_rows: Row of `bounds` that replaces `lows`, or -1. For GRID the first of its grid points.
        high_rows: Row of `bounds` that replaces `highs`, or -1.
        bounds: Absolute instants, (bound, question).
        parameter: PICK: 1 to pass over nulls. LAST_N, GRID: how many.
        targets: First row of `picks` (PICK, LAST_N, GRID), or row of `counts` (WINDOW).
        aggregate_start: Per question kind where its aggregates begin, one more than kinds.
        aggregate_kinds: SUM, MEAN, ...
        aggregate_shares: Share of a QUANTILE.
        aggregate_targets: Row of `picks` (FIRST, LAST) or of `exact`, `real`, `known`.
        picks: Out, per question, as all that follow: row numbers, or MISSING, RETRACTED, NULL, NAN. Of EVERYTHING one per slot, at its place in the layout.
        counts: Out: non-null values in a window.
        states: Out: `PRESENT`, `PRESENT_NULL`, `WITHDRAWN` or `NEVER` of a window.
        exact: Out: aggregates of the column's own type.
        real: Out: float64 aggregates.
        known: Out: 1 where an aggregate is not null.
        overflow: Out: 1 + target of a sum that did not fit.
    """
    questions = len(kinds)
    hints = np.zeros(2 * questions, np.int64)
    plain = not (forecast or with_id or first_only)
    nothing = values.dtype.type(0)
    for task in range(first_task, last_task):
        entity, q_low, q_high = tasks[task, 0], tasks[task, 1], tasks[task, 2]
        low, n = offsets[entity], offsets[entity + 1] - offsets[entity]
        n_slots = slots[entity]
        events = event[low : low + n_slots]
        row, came = rows[low : low + n], arrival[low : low + n]
        about, place_of = subject[low : low + n], slot[low : low + n]
        for k in range(2 * questions):
            hints[k] = 0
        current = _none(n_slots)
        state = np.zeros(n_slots, np.uint8)
        arrived = count_up_to(came, n, seen_until[q_high - 1], 0)  # by the last question; later rows are not looked at
        flags = np.empty(arrived, np.uint8)
        loaded = np.empty(arrived if has_values else 0, values.dtype)
        _load(row, retraction, values, valid, has_values, flags, loaded)
        column = np.empty(n_slots if has_values else 0, values.dtype)
        by_subject = _none(subjects[entity] if with_id or first_only else 0)
        by_issue = _none(n if forecast else 0)
        best = _none(subjects[entity] if forecast else 0)
        lowest, top, highest = n_slots, -1, -1  # lowest and top slot ever filled, highest filled now
        at = 0
        for q in range(q_low, q_high):
            until = seen_until[q]
            while at < arrived and came[at] <= until:
                i = at
                at += 1
                flag = flags[i]
                place = place_of[i]
                now = i  # the row (by its number in arrival order) that is current from now on, or -1
                if plain:
                    if flag == WITHDRAWN:
                        now = -1
                        if state[place] != NEVER:
                            state[place] = WITHDRAWN
                            current[place] = -1
                elif first_only:
                    s = about[i]
                    if flag == WITHDRAWN or by_subject[s] >= 0:
                        continue
                    by_subject[s] = i
                else:
                    s = about[i]
                    if forecast:
                        issue = issue_key[low + i]
                        start = key_start[low + s]
                        b = best[s]
                        if flag == WITHDRAWN:
                            if issue < 0:
                                for k in range(start, b + 1):
                                    by_issue[k] = -1
                            else:
                                by_issue[issue] = -1
                            if b < 0:
                                continue
                            while b >= start and by_issue[b] < 0:
                                b -= 1
                            best[s] = b if b >= start else -1
                            now = by_issue[b] if b >= start else -1
                        else:
                            by_issue[issue] = i
                            if issue < b:
                                continue
                            best[s] = issue
                    elif flag == WITHDRAWN:
                        now = -1
                    if with_id:
                        before = by_subject[
                            s
                        ]  # >= 0 current, -1 never seen, else withdrawn when it was row -2 - before
                        if before < 0 and now < 0:
                            continue
                        by_subject[s] = now if now >= 0 else -2 - before
                        if before != -1:
                            place = place_of[before if before >= 0 else -2 - before]
                            state[place] = NEVER if now >= 0 else WITHDRAWN
                            current[place] = -1
                    elif now < 0 and state[place] != NEVER:
                        state[place] = WITHDRAWN
                        current[place] = -1
                if now >= 0:
                    place = place_of[now]
                    current[place] = row[now]
                    state[place] = flags[now]
                    if has_values:
                        column[place] = loaded[now]
                    lowest = min(lowest, place)
                    top = max(top, place)
                    highest = max(highest, place)
                while highest >= 0 and current[highest] < 0:
                    highest -= 1

            moment = t[q]
            for k in range(questions):
                kind = kinds[k]
                target = targets[k]
                if kind == GRID:
                    _fill_grid(
                        events,
                        n_slots,
                        current,
                        state,
                        lowest,
                        top,
                        highest,
                        moment,
                        lows[k],
                        low_rows[k],
                        bounds,
                        q,
                        parameter[k],
                        picks,
                        target,
                        hints,
                        2 * k,
                    )
                    continue
                if kind == EVERYTHING:
                    for p in range(n_slots):
                        picks[target, low + p] = current[p] if current[p] >= 0 else MISSING
                    continue
                if high_rows[k] >= 0:
                    upper = bounds[high_rows[k], q]
                else:
                    upper = moment + highs[k]
                end = n_slots
                if n_slots > 0 and events[n_slots - 1] > upper:
                    # Questions come in order of time: a bound is mostly where it was, or one event on. The calls below cost more
                    # than that, since every array that is handed over is counted.
                    end = hints[2 * k]
                    if events[end] <= upper and events[end + 1] > upper:
                        end += 1
                    elif events[end] <= upper or (end > 0 and events[end - 1] > upper):
                        end = count_up_to(events, n_slots, upper, end)
                    hints[2 * k] = end
                if low_rows[k] >= 0:
                    lower = bounds[low_rows[k], q]
                elif lows[k] == NO_BOUND:
                    lower = NO_BOUND
                else:
                    lower = moment + lows[k]
                if kind == PICK:
                    p = min(end - 1, highest)
                    if p >= lowest and events[p] >= lower and state[p] == PRESENT:
                        picks[target, q] = current[p]
                    else:
                        picks[target, q] = _pick(events, current, state, lowest, top, highest, lower, end, parameter[k])
                elif kind == LAST_N:
                    length = parameter[k]
                    filled = 0
                    p = min(end - 1, highest)
                    while p >= lowest and filled < length and events[p] >= lower:
                        if current[p] >= 0:
                            filled += 1
                            picks[target + length - filled, q] = current[p]
                        p -= 1
                    if filled == 0 and _any_withdrawn(events, state, lowest, min(end - 1, top), lower):
                        picks[target + length - 1, q] = RETRACTED
                else:
                    begin = 0
                    if lower != NO_BOUND:
                        begin = hints[2 * k + 1]
                        if (
                            begin < end
                            and events[begin] < lower
                            and (begin + 1 == n_slots or events[begin + 1] >= lower)
                        ):
                            begin += 1
                        elif begin >= n_slots or events[begin] < lower or (begin > 0 and events[begin - 1] >= lower):
                            begin = count_up_to(events, n_slots, lower - 1, begin)
                        hints[2 * k + 1] = begin
                    a, b = max(begin, lowest), min(end, highest + 1)
                    low_k, high_k = aggregate_start[k], aggregate_start[k + 1]
                    filled, there, nan = 0, False, False
                    total, whole = 0.0, nothing
                    least = greatest = nothing
                    if b <= a:
                        pass
                    elif has_values:
                        filled, total, whole, least, greatest = totals(column, state, a, b)
                        nan = total != total and has_nan(column, state, a, b)
                    else:
                        for p in range(a, b):
                            filled += state[p] == PRESENT
                    counts[target, q] = filled
                    if filled > 0:
                        states[target, q] = PRESENT
                        further = False
                        for m in range(low_k, high_k):
                            aggregate, to = aggregate_kinds[m], aggregate_targets[m]
                            if aggregate == COUNT:
                                continue
                            if aggregate == FIRST or aggregate == LAST:
                                up = aggregate == FIRST
                                p = a if up else b - 1
                                while state[p] != PRESENT:
                                    p += 1 if up else -1
                                picks[to, q] = NAN if nan else current[p]
                                continue
                            known[to, q] = 1
                            if aggregate == MEAN:
                                real[to, q] = total / filled
                            elif aggregate == SUM:
                                exact[to, q] = whole
                                if integers and abs(total) > 4e18 and not exact_sum_fits(column, state, a, b):
                                    overflow[0] = to + 1
                            elif aggregate == MIN or aggregate == MAX:
                                exact[to, q] = whole if nan else least if aggregate == MIN else greatest
                            else:
                                further = True
                        if further:
                            aggregate_further(
                                events[a:b],
                                column[a:b],
                                state[a:b],
                                filled,
                                total,
                                nan,
                                aggregate_kinds,
                                aggregate_shares,
                                aggregate_targets,
                                low_k,
                                high_k,
                                q,
                                real,
                                known,
                            )
                    else:
                        for p in range(a, b):
                            there = there or state[p] == PRESENT_NULL
                        if there:
                            states[target, q] = PRESENT_NULL
                        elif _any_withdrawn(events, state, lowest, min(end - 1, top), lower):
                            states[target, q] = WITHDRAWN


@inner
def count_up_to(events: Any, n: int, instant: int, hint: int) -> int:
    """How many of the first `n` events are at or before `instant`, looked for near `hint`."""
    low, high = 0, n
    step = 1
    if hint < n and events[hint] <= instant:
        low = hint + 1
        while low + step < n and events[low + step - 1] <= instant:
            low += step
            step *= 2
        high = min(n, low + step)
    else:
        high = min(hint, n)
        while high - step > 0 and events[high - step] > instant:
            high -= step
            step *= 2
        low = max(0, high - step)
    while low < high:
        middle = (low + high) >> 1
        if events[middle] <= instant:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _pick(
    events: Any, current: Any, state: Any, lowest: int, top: int, highest: int, lower: int, end: int, pass_nulls: int
) -> Any:
    """The row of the greatest current event below slot `end` and not before `lower`, or why there is none."""
    found_null = False
    p = min(end - 1, highest)
    while p >= lowest and events[p] >= lower:
        if current[p] >= 0:
            if pass_nulls == 0 or state[p] == PRESENT:
                return current[p]
            found_null = True
        p -= 1
    if found_null:
        return NULL
    if _any_withdrawn(events, state, lowest, min(end - 1, top), lower):
        return RETRACTED
    return MISSING


@inner
def _any_withdrawn(events: Any, state: Any, lowest: int, p: int, lower: int) -> bool:
    while p >= lowest and events[p] >= lower:
        if state[p] == WITHDRAWN:
            return True
        p -= 1
    return False


@inner
def _fill_grid(
    events: Any,
    n_slots: int,
    current: Any,
    state: Any,
    lowest: int,
    top: int,
    highest: int,
    moment: int,
    step: int,
    first_point: int,
    bounds: Any,
    q: int,
    length: int,
    picks: Any,
    target: int,
    hints: Any,
    hint: int,
) -> None:
    """Fill a sequence's slots from the newest back (R11)."""
    upper = bounds[first_point, q] if first_point >= 0 else moment // step * step
    end = count_up_to(events, n_slots, upper, hints[hint])
    hints[hint] = end
    newest = end - 1
    p = min(newest, highest)
    filled = False
    lower = upper
    for g in range(length):
        lower = bounds[first_point + g + 1, q] if first_point >= 0 else upper - step
        while p >= lowest and events[p] > lower and current[p] < 0:
            p -= 1
        if p >= lowest and events[p] > lower:
            picks[target + length - 1 - g, q] = current[p]
            filled = True
        while p >= lowest and events[p] > lower:
            p -= 1
        upper = lower
    if not filled and _any_withdrawn(events, state, lowest, min(newest, top), lower + 1):
        picks[target + length - 1, q] = RETRACTED
