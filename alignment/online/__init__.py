"""The same features for a few entities at one instant: what a server asks, in microseconds instead of frames.

A view is compiled once; a store holds its rows by entity; an evaluation puts one question to the kernel. No clock and no I/O here: rows
come as canonical frames, and who reads or changes a store takes turns.
"""

from alignment.online.compiled import CompiledView
from alignment.online.evaluate import Evaluation, Found
from alignment.online.store import NOBODY, Change, RowStore
from alignment.online.trimming import needed_rows

__all__ = ["NOBODY", "Change", "CompiledView", "Evaluation", "Found", "RowStore", "needed_rows"]
