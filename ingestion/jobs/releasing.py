"""What a provider's declaration says of quarantined rows: whether they keep its contract now, how payloads are parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion.checks import check_rows
from ingestion.sources.parsing import parse_payload

if TYPE_CHECKING:
    import polars as pl

    from ingestion.providers import Provider
    from ingestion.quarantine import Check, Parse


def contract_check(provider: Provider) -> Check:
    """Rows against a provider's contract, as `release_quarantined` takes it.

    Args:
        provider: Its declaration.

    Returns:
        A function of a frame: the rows in the contract's types, and per row why it breaks the contract, or null.
    """
    definition = provider.definition()

    def check(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        checked = check_rows(frame, provider.contract, definition)
        return checked.frame, checked.reasons

    return check


def payload_parser(provider: Provider) -> Parse:
    """How payloads that gave no rows when they came are parsed now.

    Args:
        provider: Its declaration, whose source says how bytes are laid out.

    Returns:
        A function of bytes that gives their rows, and raises `PayloadError` if there are none to be had.
    """

    def parse(content: bytes) -> pl.DataFrame:
        return parse_payload(content, provider.layout, provider=provider.name, label="quarantined payload")

    return parse
