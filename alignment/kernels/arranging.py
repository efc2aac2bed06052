"""Rows in arrival order, and what each is a revision of."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.jit import inner, jit
from alignment.kernels.sorting import is_sorted, merge_sort


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
        if not is_sorted(key):
            merge_sort(key, tag, spare_key, spare_tag)
        if forecast:
            _number_issues(
                key,
                tag,
                r,
                a,
                issue,
                withdraws,
                order,
                low,
                subject,
                issue_key,
                key_start,
                subjects,
                entity,
                tied,
                ties,
            )
        else:
            _number_subjects(key, tag, r, a, order, low, subject, subjects, entity, tied, ties)
        if with_id:
            for i in range(n):
                tag[i] = i
                key[i] = e[i]
            if not is_sorted(key):
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


@inner
def _order_by_arrival(r: Any, e: Any, a: Any, order: Any, tag: Any, spare_key: Any, spare_tag: Any) -> None:
    n = len(r)
    if not is_sorted(a):
        for i in range(n):
            tag[i] = i
        merge_sort(a, tag, spare_key, spare_tag)
        for i in range(n):
            spare_key[i] = e[tag[i]]
            spare_tag[i] = r[tag[i]]
        for i in range(n):
            e[i] = spare_key[i]
            r[i] = spare_tag[i]
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
            for i in range(m):
                e[start + i] = keys[i]
                r[start + i] = tags[i]
        start = stop


@inner
def _same_instant(r: Any, a: Any, order: Any, i: int, j: int) -> bool:
    return a[i] == a[j] and (len(order) == 0 or order[r[i]] == order[r[j]])


@inner
def _number_subjects(
    key: Any,
    tag: Any,
    r: Any,
    a: Any,
    order: Any,
    low: int,
    subject: Any,
    subjects: Any,
    entity: int,
    tied: Any,
    ties: Any,
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


@inner
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
        if not is_sorted(by_issue[:named]):
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
