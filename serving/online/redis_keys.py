"""What things are called in Redis.

`<namespace>:{<view>/<what>}:head`, `...:lock`, `...:e:<entity>` and `...:h:<entity>`. `<what>` is a hash of the
view's definition, the types of its columns and the log it reads, so that an old and a new definition live side by side
and neither reads the other's rows. The braces keep a view in one hash slot.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl

from alignment.layout import Ints
from alignment.online.store import key_values


class ViewKeys:
    """The keys of one view.

    Args:
        namespace: What all keys begin with.
        view: The view's name.
        parts: What else tells one state from another.
    """

    def __init__(self, namespace: str, view: str, *parts: str) -> None:
        told = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
        self._prefix = f"{quote(namespace, safe='')}:{{{quote(view, safe='')}/{told}}}:"
        self.head = f"{self._prefix}head".encode()
        self.lock = f"{self._prefix}lock".encode()
        self._records = f"{self._prefix}e:".encode()
        self._heap = f"{self._prefix}h:".encode()

    def records(self, entity: bytes) -> bytes:
        """Where an entity's records are."""
        return self._records + entity

    def heap(self, entity: bytes) -> bytes:
        """Where their heap is."""
        return self._heap + entity

    def entity_of(self, records: bytes) -> bytes:
        """The entity whose records are there."""
        return records.removeprefix(self._records)

    @property
    def every_entity(self) -> bytes:
        """A pattern for the records of all entities."""
        return _escaped(self._records) + b"*"


def key_texts(keys: Iterable[Hashable], dtypes: Sequence[pl.DataType]) -> list[bytes | None]:
    """What each entity is called: different for different entities, whatever is in them.

    Args:
        keys: As `Backend.reading` takes them: the value of one column, a tuple of several, `()` for none; None is no entity.
        dtypes: The types of the entity columns in the log.

    Example:
        >>> key_texts([("a,b", 1), ("a", -2), None], [pl.String(), pl.Int64()])
        [b'a%2Cb,1', b'a,-2', None]
    """
    texts = [_coder(kind) for kind in dtypes]
    if len(texts) == 1:
        text = texts[0]
        return [None if key is None else text(key).encode() for key in keys]
    return [
        None if key is None else ",".join([text(value) for text, value in zip(texts, key, strict=True)]).encode()  # type: ignore[call-overload]
        for key in keys
    ]


def entities_of(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[Ints, list[bytes]]:
    """The number of each row's entity, and what each number is called.

    Args:
        frame: Rows without null keys.
        columns: The entity columns, in the types of the log.
    """
    if not columns or not frame.height:
        return np.zeros(frame.height, np.int64), [b""] if frame.height else []
    keys = frame.select(columns)
    once = keys.unique(maintain_order=True)
    names = [name or b"" for name in key_texts(key_values(once), once.dtypes)]
    numbered = once.with_row_index("@number")
    at = keys.join(numbered, on=keys.columns, how="left", maintain_order="left", nulls_equal=True)["@number"]
    return np.ascontiguousarray(at.to_numpy(), np.int64), names


def _coder(kind: pl.DataType) -> Callable[[Any], str]:
    if isinstance(kind, pl.Categorical | pl.Enum) or kind == pl.String:
        return lambda value: quote(value, safe="")
    if kind.is_integer() or kind == pl.Boolean:
        return lambda value: str(int(value))
    if kind.is_float():
        return _float_text
    if kind.is_temporal():
        return lambda value: str(pl.Series([value], dtype=kind).to_physical()[0])
    if kind == pl.Binary:
        return lambda value: str(value.hex())
    return lambda value: quote(_plain(value), safe="")


def _float_text(value: float) -> str:
    return "nan" if math.isnan(value) else repr(float(value) + 0.0)  # -0.0 and 0.0 are one key


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(name)}:{quote(_plain(item))}" for name, item in value.items()) + "}"
    if isinstance(value, list | pl.Series):
        return "[" + ",".join(quote(_plain(item)) for item in value) + "]"
    return repr(value) if isinstance(value, str) else str(value)


def _escaped(key: bytes) -> bytes:
    for special in (b"\\", b"*", b"?", b"[", b"]"):
        key = key.replace(special, b"\\" + special)
    return key
