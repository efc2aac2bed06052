"""Logs and sources that a job keeps open: opened when first needed, a bounded number of them, each used by one thread at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Shelf(Generic[Thing]):
    """Opened things by name; who borrows one has it alone.

    A thing whose use failed is closed and not used again. Two who want the same one at once get one each.

    Args:
        open_one: Opens the thing of that name.
        close_one: Gives back what a thing holds.
        limit: How many may lie here unused.
    """

    def __init__(
        self, open_one: Callable[[str], Thing], close_one: Callable[[Thing], None] = lambda _: None, *, limit: int
    ) -> None:
        self._open, self._close = open_one, close_one
        self._limit = limit
        self._idle: OrderedDict[str, Thing] = OrderedDict()
        self._mutex = threading.Lock()

    def __len__(self) -> int:
        return len(self._idle)

    @contextlib.contextmanager
    def borrow(self, name: str) -> Iterator[Thing]:
        """The thing of that name, opened if none lies here."""
        with self._mutex:
            thing = self._idle.pop(name, None)
        if thing is None:
            thing = self._open(name)
        try:
            yield thing
        except BaseException:
            self._close(thing)
            raise
        self._put_back(name, thing)

    def _put_back(self, name: str, thing: Thing) -> None:
        with self._mutex:
            extra = [self._idle.pop(name)] if name in self._idle else []
            self._idle[name] = thing
            while len(self._idle) > self._limit:
                extra.append(self._idle.popitem(last=False)[1])
        for each in extra:
            self._close(each)

    def close(self) -> None:
        """Close everything that nobody uses."""
        with self._mutex:
            things, self._idle = list(self._idle.values()), OrderedDict()
        for thing in things:
            with contextlib.suppress(Exception):
                self._close(thing)
