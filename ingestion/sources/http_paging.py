"""How a provider cuts a long answer into pages, and which page comes next.

A position is what tells one page from another: nothing for the first, then a number, a token or an address. It is plain JSON,
so that a long reading can go on from it another time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urljoin

from pydantic import Field

from ingestion.sources.layout import Layout
from ingestion.sources.parsing import count_records, find_in_json
from ingestion.sources.settings import SourceSettings

if TYPE_CHECKING:
    import httpx

Position = str | int | None
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*!#$&+^`|~.-]+\s*=\s*(?:"[^"]*"|[^\s;,"]+))*)')
_ATTRIBUTE = re.compile(r';\s*([\w*!#$&+^`|~.-]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]+))')


class _Paging(SourceSettings):
    """What all ways of paging have in common.

    Attributes:
        pages_per_fetch: After so many pages the rows so far are stored, and the next fetch goes on from there.
    """

    pages_per_fetch: int = Field(default=1_000, ge=1)


class LinkHeaderPaging(_Paging):
    """The next page's address is in the header `Link: <...>; rel="next"`."""

    kind: Literal["link_header"] = "link_header"


class NextLinkPaging(_Paging):
    """The next page's address is in the JSON document.

    Attributes:
        path: Dot path to it, e.g. `links.next`; null, empty or absent ends.
    """

    kind: Literal["next_link"] = "next_link"
    path: str


class TokenPaging(_Paging):
    """A token in the JSON document asks for the next page.

    Attributes:
        path: Dot path to it; null, empty or absent ends.
        parameter: The query parameter that takes it.
    """

    kind: Literal["token"] = "token"
    path: str
    parameter: str


class _Numbered(_Paging):
    """Pages that are counted.

    Attributes:
        size: Rows of a page.
        size_parameter: The query parameter that asks for them, if there is one.
        stop: What ends the pages: one that is `empty`, one that is `short` (fewer rows than `size`), or one that is the
            `same` as the one before it. Elsewhere a page that repeats another is asked for again, and then an error.
        total_path: Dot path to how many rows there are in all, if the provider says so; they end there too.
    """

    size: int | None = Field(default=None, ge=1)
    size_parameter: str | None = None
    stop: Literal["empty", "short", "same"] = "empty"
    total_path: str | None = None


class PageNumberPaging(_Numbered):
    """Pages with numbers.

    Attributes:
        parameter: The query parameter that takes the number.
        first: Number of the first page.
    """

    kind: Literal["page_number"] = "page_number"
    parameter: str = "page"
    first: int = 1


class OffsetPaging(_Numbered):
    """Pages that begin at a row.

    Attributes:
        parameter: The query parameter that takes the number of rows before the page.
    """

    kind: Literal["offset"] = "offset"
    parameter: str = "offset"


Paging = Annotated[
    LinkHeaderPaging | NextLinkPaging | TokenPaging | PageNumberPaging | OffsetPaging, Field(discriminator="kind")
]


def first_position(paging: Paging) -> Position:
    """The position of the first page."""
    if isinstance(paging, PageNumberPaging):
        return paging.first
    return 0 if isinstance(paging, OffsetPaging) else None


def page_url(paging: Paging, base: httpx.URL, position: Position) -> httpx.URL:
    """The address of the page at a position."""
    if isinstance(paging, LinkHeaderPaging | NextLinkPaging):
        return base if position is None else type(base)(str(position))
    added: dict[str, str | int] = {}
    if isinstance(paging, _Numbered) and paging.size_parameter and paging.size:
        added[paging.size_parameter] = paging.size
    if position is not None:
        added[paging.parameter] = position
    return base.copy_merge_params(added)


def next_position(
    paging: Paging,
    position: Position,
    content: bytes,
    headers: httpx.Headers,
    *,
    url: str,
    layout: Layout,
    provider: str,
) -> Position:
    """The position after a page; `None` if it is the last.

    Raises:
        PayloadError: If the page cannot be read, so that nobody can know.
    """
    if isinstance(paging, LinkHeaderPaging):
        found: object = link_to_next(headers.get_list("link"))
        return urljoin(url, str(found)) if found else None
    if isinstance(paging, NextLinkPaging):
        found = find_in_json(content, paging.path, provider=provider, label=url)
        return urljoin(url, str(found)) if found else None
    if isinstance(paging, TokenPaging):
        found = find_in_json(content, paging.path, provider=provider, label=url)
        return found if isinstance(found, int) and not isinstance(found, bool) else str(found) if found else None
    rows = count_records(content, layout, provider=provider, label=url, media_type=headers.get("content-type", ""))
    at = int(position or 0)
    if rows == 0 or (paging.stop == "short" and paging.size is not None and rows < paging.size):
        return None
    if paging.total_path is not None:
        total = find_in_json(content, paging.total_path, provider=provider, label=url)
        pages = at - paging.first if isinstance(paging, PageNumberPaging) else 0
        before = pages * (paging.size or rows) if isinstance(paging, PageNumberPaging) else at
        if isinstance(total, int) and before + rows >= total:
            return None
    return at + 1 if isinstance(paging, PageNumberPaging) else at + rows


def link_to_next(headers: list[str]) -> str | None:
    """The target of `rel="next"` among Link headers (RFC 8288).

    Example:
        >>> link_to_next(['<https://x.example/?page=1>; rel="prev", <?page=3>; rel="next last"'])
        '?page=3'
    """
    for header in headers:
        for target, attributes in _LINK.findall(header):
            named = {name.lower(): quoted or plain for name, quoted, plain in _ATTRIBUTE.findall(attributes)}
            if "next" in named.get("rel", "").lower().split():
                return str(target)
    return None
