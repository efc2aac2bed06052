"""The page about the command line names every command and every option, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from serving.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "command-line.md"
EVERYWHERE = {"--json", "--storage-option", "--help"}


def commands() -> dict[str, set[str]]:
    """Full name of each command, to the names of its long options."""
    found: dict[str, set[str]] = {}

    def walk(command, words: list[str]) -> None:
        children = getattr(command, "commands", None)
        if children is not None:
            for name, child in children.items():
                walk(child, [*words, name])
            return
        options = {name for param in command.params for name in getattr(param, "opts", []) if name.startswith("--")}
        found[" ".join(words)] = options

    walk(typer.main.get_command(app), ["asknown"])
    return found


def sections() -> dict[str, str]:
    """Full name of each command that has a section, to the section's text."""
    parts = re.split(r"^## `([^`]*)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {re.split(r" [A-Z\[]", head)[0]: text for head, text in zip(parts[::2], parts[1::2], strict=True)}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert set(sections()) == set(commands())


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_section_names_the_options_of_its_command(command: str) -> None:
    options = commands()[command]
    found = set(re.findall(r"--[a-z][a-z-]*", sections()[command]))
    named = {
        name for name in found if name in options or name.replace("--no-", "--") not in options
    }  # one switch, two words
    assert options - EVERYWHERE == named - EVERYWHERE
