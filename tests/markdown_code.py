"""Runs the code blocks of a Markdown page in order, as a reader would, and compares what they print.

- a block `python` runs in the page's own namespace and folder; a following block `output` is what it prints;
- `python title="views.py"` is written to that file instead, as is any other titled block;
- in a block `console`, lines after `$ ` run in a shell in the page's folder; the lines below are their standard output;
- a block `sh` shows commands for the reader's own machine; only its `make` targets are checked to exist.

`...` in expected output stands for anything, a line of `...` for any number of lines. Directives are comments on a line of
their own: `<!-- test: needs data/x.parquet as wind.parquet -->` brings a file of the shared folder into the page's folder, or skips
the page; `<!-- test: run code -->` runs a line that the page leaves out; `<!-- test: skip, reason -->` leaves out the next block.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`]*)$")
DIRECTIVE = re.compile(r"^\s*<!-- test: (?P<text>.*?) -->\s*$")
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced code block, or a directive (language `directive`)."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The code blocks and directives of a page, in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if directive := DIRECTIVE.match(lines[number]):
            found.append(Block("directive", None, directive["text"], number + 1))
        elif (fence := FENCE.match(lines[number])) and fence["info"].strip():
            begin, indent = number, len(fence["indent"])
            number += 1
            while lines[number].strip() != "```":
                number += 1
            text = "\n".join(line[indent:] for line in lines[begin + 1 : number])
            language = fence["info"].split()[0]
            title = TITLE.search(fence["info"])
            found.append(Block(language, title[1] if title else None, text, begin + 1))
        elif fence:
            raise ValueError(f"{page}:{number + 1}: a code block without a language")
        number += 1
    return found


def matches(expected: str, printed: str) -> bool:
    """Whether what was printed is what the page shows; `...` stands for anything."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    parts = [re.escape(part) for part in re.split(r"\.\.\.", tidy(expected))]
    return re.fullmatch(".*?".join(parts), tidy(printed), flags=re.DOTALL) is not None


class Page:
    """Runs one page in a folder of its own."""

    def __init__(self, page: Path, folder: Path, *, shared: Callable[[str], Path], makefile: Path) -> None:
        self.page = page
        self.folder = folder
        self.shared = shared
        self.targets = set(re.findall(r"^([a-z]+):", makefile.read_text(encoding="utf-8"), flags=re.MULTILINE))
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(self) -> None:
        """Run all blocks; an AssertionError names the page and the line of the first that does not do what it shows."""
        todo = blocks(self.page)
        while todo:
            block = todo.pop(0)
            if block.language == "directive":
                self._obey(block, todo)
            elif block.title is not None:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text + "\n", encoding="utf-8")
            elif block.language == "python":
                printed = self._python(block)
                if todo and todo[0].language == "output":
                    self._compare(todo.pop(0), printed)
            elif block.language == "console":
                self._console(block)
            elif block.language == "sh":
                self._check_targets(block)
            elif block.language == "output":
                raise ValueError(f"{self._place(block)}: output without a python block before it")

    def _place(self, block: Block) -> str:
        return f"{self.page.name}:{block.line}"

    def _obey(self, block: Block, todo: list[Block]) -> None:
        verb, _, rest = block.text.partition(" ")
        if verb == "needs":
            source, _, name = rest.partition(" as ")
            (self.folder / (name or source.rpartition("/")[2])).symlink_to(self.shared(source))
        elif verb == "run":
            self._python(Block("python", None, rest, block.line))
        elif verb == "skip,":
            skipped = todo.pop(0)
            if skipped.language == "python" and todo and todo[0].language == "output":
                todo.pop(0)
        else:
            raise ValueError(f"{self._place(block)}: unknown directive {block.text!r}")

    def _python(self, block: Block) -> str:
        out = io.StringIO()
        # Blank lines in front make line numbers in a traceback those of the page.
        code = compile("\n" * block.line + block.text, str(self.page), "exec")
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
            exec(code, self.namespace)  # running the page's own code is what this is for
        return out.getvalue()

    def _console(self, block: Block) -> None:
        commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        for command_and_output in commands:
            # A command goes on over lines that end in a backslash.
            split = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", command_and_output, flags=re.DOTALL)
            assert split is not None
            command, expected = split.groups()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=self.folder,
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            where = f"{self._place(block)}: $ {command}"
            assert done.returncode == 0, f"{where}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
            assert matches(expected, done.stdout), (
                f"{where}\n--- the page shows\n{expected}\n--- it printed\n{done.stdout}"
            )

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**os.environ, "PATH": path, "NO_COLOR": "1", "TERM": "dumb"}

    def _compare(self, block: Block, printed: str) -> None:
        assert matches(block.text, printed), (
            f"{self._place(block)}\n--- the page shows\n{block.text}\n--- it printed\n{printed}"
        )

    def _check_targets(self, block: Block) -> None:
        for target in re.findall(r"^(?:\$ )?make ([a-z][a-z ]*)", block.text, flags=re.MULTILINE):
            assert set(target.split()) <= self.targets, f"{self._place(block)}: no such make target in {target!r}"
