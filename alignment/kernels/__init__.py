"""The kernel: which rows count, which are current, and what each feature makes of them.

One entity at a time, in arrival order: rows are applied to a state that holds, per event, the current row; between two rows
every question whose time has come is answered from that state. Everything here works on integers (microseconds, row
numbers) and one column of values; names, types and units stay outside. All functions release the interpreter lock and touch
only their own entities, so that threads may run them side by side and the answers do not depend on how many there are.

Import this module only where a join runs: it loads Numba. See docs/adr/0003-kernel.md.
"""

from alignment.kernels.arranging import arrange
from alignment.kernels.grouping import count_rows, fill_table, look_up, scatter_rows
from alignment.kernels.placing import arrange_each
from alignment.kernels.sorting import sort_queries
from alignment.kernels.sweeping import sweep

__all__ = ["arrange", "arrange_each", "count_rows", "fill_table", "look_up", "scatter_rows", "sort_queries", "sweep"]
