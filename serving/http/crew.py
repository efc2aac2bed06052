"""The workers of a server, and what concerns all of them: which definitions they hold, and which they serve.

They share a folder. What is wanted is in `wanted.json`, what each has made of it in `worker-N.json`; each looks a few times a second.
So a request to reload or to switch may go to any worker, and is answered when all have followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from alignment.errors import AlignmentError
from ingestion import IngestionError
from ingestion.jobs import logger
from serving.errors import ServingError
from serving.http.definitions import Definitions
from serving.http.refusals import RefusalError

LOOK_SECONDS: Final = 0.2
RELOAD_SECONDS: Final = 300.0


class Crew:
    """One worker among others.

    Args:
        definitions: What this one holds.
        path: The views file.
        folder: What they share.
        worker: Which this is.
        workers: How many there are.
    """

    def __init__(
        self, definitions: Definitions, path: Path, folder: Path, *, worker: int = 0, workers: int = 1
    ) -> None:
        self._definitions, self._path, self._folder = definitions, path, folder
        self._worker, self._workers = worker, workers
        self._reloads = int(self._wanted().get("reloads", 0))
        self._loaded = ""
        self._error = ""
        self._say = logger("serve")

    async def follow(self) -> None:
        """Do what is wanted of all, until cancelled."""
        while True:
            wanted = self._wanted()
            if wanted.get("reloads", 0) > self._reloads:
                await asyncio.to_thread(self._load)
                self._reloads = wanted["reloads"]
            current = wanted.get("current")
            if current and current != self._definitions.current.definition:
                self._switch(current)
            self.tell()
            await asyncio.sleep(LOOK_SECONDS)

    def tell(self) -> None:
        """Say what this worker holds."""
        held = self._definitions.describe()
        _write(
            self._folder / f"worker-{self._worker}.json",
            {
                "worker": self._worker,
                "process": os.getpid(),
                "reloads": self._reloads,
                "loaded": self._loaded,
                "error": self._error,
                "held": [each["definition"] for each in held],
                "serves": next((each["definition"] for each in held if each["served"]), None),
                "ready": any(each["served"] and each["ready"] for each in held),
            },
        )

    def members(self) -> list[dict[str, Any]]:
        """What each worker last said."""
        found = (_read(self._folder / f"worker-{number}.json") for number in range(self._workers))
        return [member for member in found if member]

    async def reload(self) -> dict[str, Any]:
        """Let every worker read the views file again and hold what it declares beside what it serves.

        Returns:
            The hash of what was loaded, and of what is served.

        Raises:
            RefusalError: If the file is refused, or a worker does not follow.
        """
        with self._lock():
            wanted = self._wanted()
            wanted["reloads"] = number = int(wanted.get("reloads", 0)) + 1
            wanted.setdefault("current", self._definitions.current.definition)
            _write(self._folder / "wanted.json", wanted)
        members = await self._until(lambda member: member["reloads"] >= number, "did not read the file in time")
        failed = next((member["error"] for member in members if member["error"]), "")
        if failed:
            problem, _, hint = failed.partition("\n\nhint: ")
            raise RefusalError(409, problem, hint)
        loaded = {member["loaded"] for member in members}
        if len(loaded) > 1:
            raise RefusalError(409, "the file changed while it was being read", "reload again.")
        return {"definition": loaded.pop(), "serves": self._definitions.current.definition}

    async def switch(self, definition: str) -> dict[str, Any]:
        """Let every worker serve definitions that all of them hold.

        Raises:
            RefusalError: If one does not hold them, or they are not ready.
        """
        lacking = [member["worker"] for member in self.members() if definition not in member["held"]]
        if lacking:
            raise RefusalError(409, f"worker {lacking[0]} does not hold {definition[:12]}", "POST /admin/reload first.")
        before = self._definitions.current.definition
        self._definitions.switch(definition)
        with self._lock():
            _write(self._folder / "wanted.json", {**self._wanted(), "current": definition})
        await self._until(lambda member: member["serves"] == definition, "did not switch in time")
        return {"serves": definition, "served": before}

    async def _until(self, done: Callable[[dict[str, Any]], bool], problem: str) -> list[dict[str, Any]]:
        end = asyncio.get_running_loop().time() + RELOAD_SECONDS
        while True:
            members = self.members()
            if len(members) == self._workers and all(map(done, members)):
                return members
            if asyncio.get_running_loop().time() > end:
                raise RefusalError(503, f"a worker {problem}", "look at GET /admin/definitions.")
            await asyncio.sleep(LOOK_SECONDS / 2)

    def _load(self) -> None:
        try:
            self._loaded = self._definitions.load(self._path).definition
            self._error = ""
        except (ServingError, AlignmentError, IngestionError, OSError) as error:
            self._error = str(error)
            self._say.warning("definitions refused", error=str(error).splitlines()[0])
            return
        self._say.info("definitions loaded", definition=self._loaded[:12])

    def _switch(self, definition: str) -> None:
        try:
            self._definitions.switch(definition)
        except RefusalError as refusal:
            self._say.warning("not switched", error=refusal.problem)
            return
        self._say.info("definitions switched", definition=definition[:12])

    def _wanted(self) -> dict[str, Any]:
        return _read(self._folder / "wanted.json")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def forget(folder: Path, worker: int) -> None:
    """Drop what a worker last said, since it is no more.

    Args:
        folder: What the workers share.
        worker: Which it was.
    """
    (folder / f"worker-{worker}.json").unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(msgspec.json.decode(path.read_bytes()))
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _write(path: Path, value: dict[str, Any]) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.json.encode(value))
    part.replace(path)
