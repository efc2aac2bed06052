"""Whether a text, or JSON, names an entity: for what is kept as it came, without columns to look in."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import polars as pl

REDACTED = "[erased]"
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_HEX = re.compile(r"(?:[0-9a-f]{2}){32,}")
GZIP, PARQUET, ARROW_FILE, ARROW_STREAM = b"\x1f\x8b", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"


class Names:
    """The values that an entity goes by.

    A text names it if each value stands in it as a whole word; numbers as numbers, so that 17 is not in `2026-01-17`.

    Args:
        entity: Entity columns and their values.

    Example:
        >>> names = Names({"person": "p-17"})
        >>> names.text("cannot read p-17.csv"), names.text("p-170"), names.redacted("p-17: late")
        (True, False, '[erased]: late')
    """

    def __init__(self, entity: Mapping[str, Any]) -> None:
        self._texts = {name: str(value) for name, value in entity.items()}
        self._patterns = [_pattern(text) for text in self._texts.values() if text]

    def text(self, text: str) -> bool:
        """Whether a text has all values, read as it is or with JSON's escapes undone."""
        return all(_finds(pattern, text) for pattern in self._patterns) and self._known

    def content(self, content: bytes) -> bool:
        """Whether bytes have all values; gzip, Arrow and Parquet are seen through."""
        return self.text(text_of(content))

    def json(self, value: Any) -> bool:
        """Whether all values are in something that JSON knows, be it inside a text or as base64."""
        return self.text("\n".join(_texts_in(value)))

    def partly_in(self, value: Any) -> bool:
        """Whether at least one value is in something that JSON knows."""
        return any(_finds(pattern, text) for text in _texts_in(value) for pattern in self._patterns)

    def row(self, row: Any) -> bool:
        """Whether a row is of the entity: by its columns if it has them all, else by anything in it."""
        if not isinstance(row, Mapping):
            return self.json(row)
        own = [row.get(name) for name in self._texts]
        if any(value is None for value in own):
            return self.json(row)
        return all(_same(value, text) for value, text in zip(own, self._texts.values(), strict=True))

    def redacted(self, text: str) -> str:
        """A text without the values."""
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return REDACTED if any(_finds(pattern, text) for pattern in self._patterns) else text

    @property
    def _known(self) -> bool:
        return len(self._patterns) == len(self._texts)


def _pattern(text: str) -> re.Pattern[str]:
    if _PLAIN_NUMBER.fullmatch(text):
        return re.compile(rf"(?<![\w.+-])(?<!\d:){re.escape(text)}(?:\.0+)?(?![\w:-])(?!\.\d)")
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def _finds(pattern: re.Pattern[str], text: str) -> bool:
    return bool(pattern.search(text) or ("\\" in text and pattern.search(_ESCAPE.sub(_meant, text))))


def _same(value: Any, text: str) -> bool:
    own = str(value).strip()
    if own == text:
        return True
    numbers = _PLAIN_NUMBER.fullmatch(own) and _PLAIN_NUMBER.fullmatch(text)
    return bool(numbers) and _short(own) == _short(text)


def _short(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number


def _texts_in(value: Any) -> list[str]:
    """All texts in something that JSON knows: names, values, numbers as written, and what base64 holds."""
    if isinstance(value, Mapping):
        if value.get("encoding") == "base64" and isinstance(value.get("content"), str):
            return [_from_base64(value["content"])]
        return [text for name, inner in value.items() for text in (str(name), *_texts_in(inner))]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts_in(inner)]
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, str) and _HEX.fullmatch(value):
        return [value, text_of(bytes.fromhex(value))]
    return [value if isinstance(value, str) else json.dumps(value, default=str)]


def _from_base64(text: str) -> str:
    try:
        return text_of(base64.b64decode(text))
    except binascii.Error:
        return text


def text_of(content: bytes) -> str:
    """What can be read in some bytes; tables as lines of JSON."""
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return ""
    table = read_table(content)
    return content.decode("utf-8", "replace") if table is None else table.write_ndjson()


def read_table(content: bytes) -> pl.DataFrame | None:
    """The rows of an Arrow stream, an Arrow file or a Parquet file; `None` if the bytes are none of them."""
    readers = {ARROW_STREAM: pl.read_ipc_stream, ARROW_FILE: pl.read_ipc, PARQUET: pl.read_parquet}
    for start, read in readers.items():
        if content.startswith(start):
            try:
                return read(io.BytesIO(content))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
                return None
    return None


def _meant(escape: re.Match[str]) -> str:
    found = escape.group(1)
    return chr(int(found[1:], 16)) if len(found) == 5 else {"n": "\n", "t": "\t", "r": "\r"}.get(found, found)
