"""Numbers that the kernel and its callers agree on."""

from __future__ import annotations

import numpy as np

PICK, WINDOW, LAST_N, GRID, EVERYTHING = 0, 1, 2, 3, 4
"""Kinds of question."""

COUNT, SUM, MEAN, STD, VAR, MIN, MAX, FIRST, LAST, QUANTILE, SLOPE = range(11)
"""Aggregates of a window."""

AGGREGATE_CODES = {
    "count": COUNT,
    "sum": SUM,
    "mean": MEAN,
    "std": STD,
    "var": VAR,
    "min": MIN,
    "max": MAX,
    "first": FIRST,
    "last": LAST,
    "slope": SLOPE,
}

MISSING, RETRACTED, EXPIRED, NULL, NAN = -1, -2, -3, -4, -5
"""What stands in place of a row number where no row was picked."""

NEVER, PRESENT, PRESENT_NULL, WITHDRAWN = 0, 1, 2, 3
"""What is known of an event (a slot), or of a window as a whole."""

NO_BOUND = int(np.iinfo(np.int64).min)
