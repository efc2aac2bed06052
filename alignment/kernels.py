"""The kernel: which rows count, which are current, and what each feature makes of them.

One entity at a time, in arrival order: rows are applied to a state that holds, per event, the current row; between two rows
every question whose time has come is answered from that state. Everything here works on integers (microseconds, row
numbers) and one column of values; names, types and units stay outside. All functions release the interpreter lock and touch
only their own entities, so that threads may run them side by side and the answers do not depend on how many there are.

Import this module only where a join runs: it loads Numba. See docs/adr/0003-kernel.md.
"""

from __future__ import annotations

import math
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
    QUANTILE,
    RETRACTED,
    SLOPE,
    STD,
    SUM,
    VAR,
    WITHDRAWN,
)
from alignment.jit import jit

HOUR_US = 3_600_000_000.0
_BLOCK = 16


@jit
def count_rows(codes: Any, arrival: Any, limit: int, start: int, stop: int, counts: Any) -> None:
    """Count the rows of each entity in `[start, stop)` that had arrived by `limit`."""
    for row in range(start, stop):
        code = codes[row]
        if code >= 0 and arrival[row] <= limit:
            counts[code] += 1


@jit
def scatter_rows(
    codes: Any, event: Any, arrival: Any, limit: int, start: int, stop: int, cursor: Any, rows: Any, events: Any, arrivals: Any
) -> None:
    """Put the rows counted by `count_rows` into their entity's place, in the order given."""
    for row in range(start, stop):
        code = codes[row]
        if code >= 0 and arrival[row] <= limit:
            place = cursor[code]
            cursor[code] = place + 1
            rows[place] = row
            events[place] = event[row]
            arrivals[place] = arrival[row]


@jit
def _table_place(keys: Any, row: int, shift: int) -> int:
    mixed = np.uint64(0)
    for part in range(keys.shape[1]):
        mixed = (mixed ^ np.uint64(keys[row, part])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.int64((mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))


@jit
def _same_key(keys: Any, row: int, other: Any, code: int) -> bool:
    for part in range(keys.shape[1]):
        if keys[row, part] != other[code, part]:
            return False
    return True


@jit
def fill_table(keys: Any, shift: int, table: Any) -> None:
    """Enter the number of each of `keys` (words of 64 bits, one row per key) into an empty table for `look_up`."""
    mask = len(table) - 1
    for code in range(len(keys)):
        place = _table_place(keys, code, shift)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = code


@jit
def look_up(wanted: Any, keys: Any, shift: int, table: Any, start: int, stop: int, codes: Any) -> None:
    """The number of each of `wanted` among `keys` by open addressing; -1 for one that is not there."""
    mask = len(table) - 1
    for row in range(start, stop):
        place = _table_place(wanted, row, shift)
        while table[place] >= 0 and not _same_key(wanted, row, keys, table[place]):
            place = (place + 1) & mask
        codes[row] = table[place]


@jit
def merge_sort(key: Any, tag: Any, spare_key: Any, spare_tag: Any) -> None:
    """Sort `key` ascending and carry `tag` along; equal keys keep their order.

    Blocks are sorted by insertion, then merged; what is already in place on either side of a merge is left alone, so that
    nearly sorted input costs little more than one look at it.
    """
    n = len(key)
    for low in range(0, n, _BLOCK):
        for i in range(low + 1, min(low + _BLOCK, n)):
            k = key[i]
            g = tag[i]
            j = i
            while j > low and key[j - 1] > k:
                key[j] = key[j - 1]
                tag[j] = tag[j - 1]
                j -= 1
            key[j] = k
            tag[j] = g
    width = _BLOCK
    while width < n:
        for low in range(0, n - width, 2 * width):
            _merge(key, tag, spare_key, spare_tag, low, low + width, min(low + 2 * width, n))
        width *= 2


@jit
def _merge(key: Any, tag: Any, spare_key: Any, spare_tag: Any, low: int, middle: int, high: int) -> None:
    if key[middle - 1] <= key[middle]:
        return
    bound = key[middle]
    a, b = low, middle
    while a < b:
        c = (a + b) >> 1
        if key[c] <= bound:
            a = c + 1
        else:
            b = c
    low = a
    bound = key[middle - 1]
    a, b = middle, high
    while a < b:
        c = (a + b) >> 1
        if key[c] < bound:
            a = c + 1
        else:
            b = c
    high = a
    left = middle - low
    for i in range(left):
        spare_key[i] = key[low + i]
        spare_tag[i] = tag[low + i]
    i, j, k = 0, middle, low
    while i < left and j < high:
        if spare_key[i] <= key[j]:
            key[k] = spare_key[i]
            tag[k] = spare_tag[i]
            i += 1
        else:
            key[k] = key[j]
            tag[k] = tag[j]
            j += 1
        k += 1
    while i < left:
        key[k] = spare_key[i]
        tag[k] = spare_tag[i]
        i += 1
        k += 1


@jit
def sort_queries(first: int, last: int, offsets: Any, t: Any, rows: Any) -> None:
    """Bring each entity's questions into the order of their prediction times."""
    for entity in range(first, last):
        low, high = offsets[entity], offsets[entity + 1]
        if not _is_sorted(t[low:high]):
            n = high - low
            merge_sort(t[low:high], rows[low:high], np.empty(n, np.int64), np.empty(n, np.int32))


@jit
def _is_sorted(values: Any) -> bool:
    for i in range(1, len(values)):
        if values[i - 1] > values[i]:
            return False
    return True


@jit
def arrange(
    first: int,
    last: int,
    offsets: Any,
    rows: Any,
    event: Any,
    arrival: Any,
    order: Any,
    identity: Any,
    issue: Any,
    withdraws: Any,
    forecast: bool,
    subject: Any,
    slot: Any,
    issue_key: Any,
    key_start: Any,
    subjects: Any,
    slots: Any,
    tied: Any,
    ties: Any,
) -> None:
    """Bring each entity's rows into arrival order and number what they are about.

    Args:
        first: First entity.
        last: One past the last entity.
        offsets: Where each entity's rows begin, int64, one more than entities.
        rows: Row numbers of the frame, grouped by entity, int32; reordered here.
        event: Event times grouped likewise, int64; on return the event time of each slot, ascending.
        arrival: Arrival times grouped likewise; reordered here.
        order: By row number, what orders rows of one arrival (R2); empty if nothing does.
        identity: By row number, the rank of the declared id (R4); empty if the key is the event.
        issue: By row number, the issue time of forecasts; empty for measurements.
        withdraws: By row number, 1 where a retraction names no issue; empty for measurements.
        forecast: Whether issues are part of the key.
        subject: Out: what each row is a revision of, numbered per entity.
        slot: Out: place of the row's event in event order; the same array as `subject` where there is no id.
        issue_key: Out: number of (subject, issue), ascending by issue within a subject; -1 for all issues.
        key_start: Out, per subject: its first issue key; forecasts only.
        subjects: Out: how many subjects each entity has.
        slots: Out: how many slots.
        tied: Out, per grouped row: 1 + row number of another row of the same key and arrival that nothing orders.
        ties: Out, per entity: how many such rows.
    """
    for entity in range(first, last):
        low, high = offsets[entity], offsets[entity + 1]
        n = high - low
        if n == 0:
            continue
        r, e, a = rows[low:high], event[low:high], arrival[low:high]
        spare_key, spare_tag = np.empty(n, np.int64), np.empty(n, np.int32)
        tag = np.empty(n, np.int32)
        _order_by_arrival(r, e, a, order, tag, spare_key, spare_tag)
        key = np.empty(n, np.int64)
        with_id = len(identity) > 0
        for i in range(n):
            tag[i] = i
            key[i] = identity[r[i]] if with_id else e[i]
        if not _is_sorted(key):
            merge_sort(key, tag, spare_key, spare_tag)
        if forecast:
            _number_issues(key, tag, r, a, issue, withdraws, order, low, subject, issue_key, key_start, subjects, entity, tied, ties)
        else:
            _number_subjects(key, tag, r, a, order, low, subject, subjects, entity, tied, ties)
        if with_id:
            for i in range(n):
                tag[i] = i
                key[i] = e[i]
            if not _is_sorted(key):
                merge_sort(key, tag, spare_key, spare_tag)
            for i in range(n):
                slot[low + tag[i]] = i
                e[i] = key[i]
            slots[entity] = n
        else:
            count = 0
            for i in range(n):
                if i == 0 or key[i] != key[i - 1]:
                    e[count] = key[i]
                    count += 1
            slots[entity] = count


@jit
def _order_by_arrival(r: Any, e: Any, a: Any, order: Any, tag: Any, spare_key: Any, spare_tag: Any) -> None:
    n = len(r)
    if not _is_sorted(a):
        for i in range(n):
            tag[i] = i
        merge_sort(a, tag, spare_key, spare_tag)
        for i in range(n):
            spare_key[i] = e[tag[i]]
            spare_tag[i] = r[tag[i]]
        e[:] = spare_key
        r[:] = spare_tag
    if len(order) == 0:
        return
    start = 0
    while start < n:
        stop = start + 1
        in_order = True
        while stop < n and a[stop] == a[start]:
            in_order = in_order and order[r[stop - 1]] <= order[r[stop]]
            stop += 1
        if not in_order:
            m = stop - start
            keys, tags = np.empty(m, np.int64), np.empty(m, np.int32)
            for i in range(m):
                keys[i] = order[r[start + i]]
                tags[i] = start + i
            merge_sort(keys, tags, spare_key, spare_tag)
            for i in range(m):
                keys[i] = e[tags[i]]
                tags[i] = r[tags[i]]
            e[start:stop] = keys
            r[start:stop] = tags
        start = stop


@jit
def _same_instant(r: Any, a: Any, order: Any, i: int, j: int) -> bool:
    return a[i] == a[j] and (len(order) == 0 or order[r[i]] == order[r[j]])


@jit
def _number_subjects(
    key: Any, tag: Any, r: Any, a: Any, order: Any, low: int, subject: Any, subjects: Any, entity: int, tied: Any, ties: Any
) -> None:
    number = -1
    for i in range(len(key)):
        at = tag[i]
        if i == 0 or key[i] != key[i - 1]:
            number += 1
        elif _same_instant(r, a, order, tag[i - 1], at):
            tied[low + at] = r[tag[i - 1]] + 1
            ties[entity] += 1
        subject[low + at] = number
    subjects[entity] = number + 1


@jit
def _number_issues(
    key: Any,
    tag: Any,
    r: Any,
    a: Any,
    issue: Any,
    withdraws: Any,
    order: Any,
    low: int,
    subject: Any,
    issue_key: Any,
    key_start: Any,
    subjects: Any,
    entity: int,
    tied: Any,
    ties: Any,
) -> None:
    n = len(key)
    number, issues, start = -1, 0, 0
    while start < n:
        stop = start + 1
        while stop < n and key[stop] == key[start]:
            stop += 1
        number += 1
        key_start[low + number] = issues
        m = stop - start
        by_issue, at = np.empty(m, np.int64), np.empty(m, np.int32)
        named = 0
        for i in range(start, stop):
            here = tag[i]
            subject[low + here] = number
            if i > start and _same_instant(r, a, order, tag[i - 1], here):
                if withdraws[r[here]] != withdraws[r[tag[i - 1]]]:
                    tied[low + here] = r[tag[i - 1]] + 1
                    ties[entity] += 1
            if withdraws[r[here]]:
                issue_key[low + here] = -1
            else:
                by_issue[named] = issue[r[here]]
                at[named] = here
                named += 1
        if not _is_sorted(by_issue[:named]):
            merge_sort(by_issue[:named], at[:named], np.empty(named, np.int64), np.empty(named, np.int32))
        for i in range(named):
            if i > 0 and by_issue[i] == by_issue[i - 1]:
                if _same_instant(r, a, order, at[i - 1], at[i]):
                    tied[low + at[i]] = r[at[i - 1]] + 1
                    ties[entity] += 1
            else:
                issues += 1
            issue_key[low + at[i]] = issues - 1
        start = stop
    subjects[entity] = number + 1


@jit
def _count_up_to(events: Any, n: int, instant: int, hint: int) -> int:
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


@jit
def _exact_sum_fits(buffer: Any, n: int) -> bool:
    """Whether the integers sum to something that fits in 64 bits."""
    high, low = np.int64(0), np.int64(0)
    for i in range(n):
        x = np.int64(buffer[i])
        high += x >> 32
        low += x & 0xFFFFFFFF
    high += low >> 32
    return -(1 << 31) <= high < (1 << 31)


@jit
def _quantile(values: Any, n: int, share: float) -> float:
    place = (n - 1) * share
    floor = math.floor(place)
    part = place - floor
    i = int(floor)
    x = float(values[i])
    if part == 0.0:
        return x
    return x + (float(values[i + 1]) - x) * part


@jit
def _slope(buffer: Any, moments: Any, n: int) -> float:
    """Least squares slope per hour; NaN where it has none (told apart from a NaN among the values by the caller)."""
    x_sum, y_sum = 0.0, 0.0
    for i in range(n):
        x_sum += (moments[i] - moments[0]) / HOUR_US
        y_sum += float(buffer[i])
    x_mean, y_mean = x_sum / n, y_sum / n
    xy, xx = 0.0, 0.0
    for i in range(n):
        x = (moments[i] - moments[0]) / HOUR_US - x_mean
        xy += x * (float(buffer[i]) - y_mean)
        xx += x * x
    return xy / xx


@jit
def _has_nan(buffer: Any, n: int) -> bool:
    for i in range(n):
        if buffer[i] != buffer[i]:
            return True
    return False


@jit
def _squares(buffer: Any, n: int, mean: float) -> float:
    squares = 0.0
    for x in buffer[:n]:
        d = float(x) - mean
        squares += d * d
    return squares


@jit
def _moments(events: Any, state: Any, moments: Any) -> None:
    """The event times of a window's values."""
    filled = 0
    for i in range(len(events)):
        if state[i] == PRESENT:
            moments[filled] = events[i]
            filled += 1


@jit
def _aggregate_window(
    events: Any,
    column: Any,
    state: Any,
    buffer: Any,
    integers: bool,
    kinds: Any,
    shares: Any,
    targets: Any,
    low: int,
    high: int,
    out: int,
    exact: Any,
    real: Any,
    known: Any,
    overflow: Any,
) -> tuple[int, bool]:
    """Write the aggregates numbered `low` to `high` of the slots given; how many values there are, and whether one is NaN.

    Every aggregate is computed from the values in order, left to right (R8).
    """
    n = 0
    for i in range(len(state)):
        n += state[i] == PRESENT
    if n == 0:
        return 0, False
    if n == len(column):
        buffer = column
    else:
        filled = 0
        for i in range(len(column)):
            buffer[filled] = column[i]
            filled += state[i] == PRESENT
    total = 0.0
    whole = column.dtype.type(0)
    least = greatest = buffer[0]
    for i in range(n):
        x = buffer[i]
        total += float(x)
        if integers:
            whole += x
        least = x if x < least else least
        greatest = x if x > greatest else greatest
    nan = total != total and _has_nan(buffer, n)
    if not integers:
        whole = column.dtype.type(total)
    squares = -1.0
    sorted_yet = False
    ordered = buffer[:0]
    for k in range(low, high):
        kind = kinds[k]
        if kind == COUNT or kind == FIRST or kind == LAST:
            continue
        target = targets[k]
        known[target, out] = 1
        if kind == SUM:
            exact[target, out] = whole
            if integers and abs(total) > 4e18 and not _exact_sum_fits(buffer, n):
                overflow[0] = target + 1
        elif kind == MEAN:
            real[target, out] = total / n
        elif kind == STD or kind == VAR:
            if n < 2:
                known[target, out] = 0
                continue
            if squares == -1.0:
                squares = _squares(buffer, n, total / n)
            variance = squares / (n - 1)
            real[target, out] = math.sqrt(variance) if kind == STD else variance
        elif kind == MIN:
            exact[target, out] = whole if nan else least
        elif kind == MAX:
            exact[target, out] = whole if nan else greatest
        elif kind == QUANTILE:
            if nan:
                real[target, out] = np.nan
                continue
            if not sorted_yet:
                ordered = buffer[:n].copy()
                sorted_yet = True
                merge_sort(ordered, np.empty(n, np.int32), np.empty(n, ordered.dtype), np.empty(n, np.int32))
            real[target, out] = _quantile(ordered, n, shares[k])
        elif kind == SLOPE:
            moments = np.empty(n, np.int64)
            _moments(events, state, moments)
            if n < 2 or moments[0] == moments[n - 1]:
                known[target, out] = 0
                continue
            real[target, out] = _slope(buffer, moments, n)
    return n, nan


@jit
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
    notice: int,
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
        notice: A row counts only if `arrival <= event - notice` (R10 `min_notice`, R12 a duration); `NO_BOUND` for all.
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
    for task in range(first_task, last_task):
        entity, q_low, q_high = tasks[task, 0], tasks[task, 1], tasks[task, 2]
        low, n = offsets[entity], offsets[entity + 1] - offsets[entity]
        n_slots = slots[entity]
        events = event[low : low + n_slots]
        row, came = rows[low : low + n], arrival[low : low + n]
        about, place_of = subject[low : low + n], slot[low : low + n]
        hints[:] = 0
        current = np.full(n_slots, -1, np.int32)
        state = np.zeros(n_slots, np.uint8)
        flags = np.empty(n, np.uint8)
        loaded = np.empty(n if has_values else 0, values.dtype)
        _load(row, retraction, values, valid, has_values, flags, loaded)
        column = np.empty(n_slots if has_values else 0, values.dtype)
        buffer = np.empty(n_slots if has_values else 0, values.dtype)
        by_subject = np.full(subjects[entity] if with_id or first_only else 0, -1, np.int32)
        by_issue = np.full(n if forecast else 0, -1, np.int32)
        best = np.full(subjects[entity] if forecast else 0, -1, np.int32)
        lowest, top, highest = n_slots, -1, -1  # lowest and top slot ever filled, highest filled now
        at = 0
        for q in range(q_low, q_high):
            until = seen_until[q]
            while at < n and came[at] <= until:
                i = at
                at += 1
                flag = flags[i]
                place = place_of[i]
                if notice != NO_BOUND and came[i] > events[place] - notice:
                    continue
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
                                by_issue[start : b + 1] = -1
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
                        before = by_subject[s]  # >= 0 current, -1 never seen, else withdrawn when it was row -2 - before
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
                        events, n_slots, current, state, lowest, top, highest, moment, lows[k], low_rows[k], bounds, q,
                        parameter[k], picks, target, hints, 2 * k,
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
                    end = _count_up_to(events, n_slots, upper, hints[2 * k])
                    hints[2 * k] = end
                if low_rows[k] >= 0:
                    lower = bounds[low_rows[k], q]
                elif lows[k] == NO_BOUND:
                    lower = NO_BOUND
                else:
                    lower = moment + lows[k]
                if kind == PICK:
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
                        begin = _count_up_to(events, n_slots, lower - 1, hints[2 * k + 1])
                        hints[2 * k + 1] = begin
                    a, b = max(begin, lowest), min(end, highest + 1)
                    low_k, high_k = aggregate_start[k], aggregate_start[k + 1]
                    filled, there, nan = 0, False, False
                    if b <= a:
                        pass
                    elif has_values:
                        filled, nan = _aggregate_window(
                            events[a:b], column[a:b], state[a:b], buffer, integers, aggregate_kinds, aggregate_shares,
                            aggregate_targets, low_k, high_k, q, exact, real, known, overflow,
                        )
                    else:
                        for p in range(a, b):
                            filled += state[p] == PRESENT
                    counts[target, q] = filled
                    if filled > 0:
                        states[target, q] = PRESENT
                        for m in range(low_k, high_k):
                            if aggregate_kinds[m] == FIRST or aggregate_kinds[m] == LAST:
                                up = aggregate_kinds[m] == FIRST
                                p = a if up else b - 1
                                while state[p] != PRESENT:
                                    p += 1 if up else -1
                                picks[aggregate_targets[m], q] = NAN if nan else current[p]
                    else:
                        for p in range(a, b):
                            there = there or state[p] == PRESENT_NULL
                        if there:
                            states[target, q] = PRESENT_NULL
                        elif _any_withdrawn(events, state, lowest, min(end - 1, top), lower):
                            states[target, q] = WITHDRAWN


@jit
def _pick(
    events: Any, current: Any, state: Any, lowest: int, top: int, highest: int, lower: int, end: int, pass_nulls: int
) -> int:
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


@jit
def _any_withdrawn(events: Any, state: Any, lowest: int, p: int, lower: int) -> bool:
    while p >= lowest and events[p] >= lower:
        if state[p] == WITHDRAWN:
            return True
        p -= 1
    return False


@jit
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
    end = _count_up_to(events, n_slots, upper, hints[hint])
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
