"""A job put together: providers, where their logs are, and everything that runs beside the polls."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ingestion.errors import ProviderError
from ingestion.instants import Clock, system_clock
from ingestion.jobs.draining import OnceReport, drain
from ingestion.jobs.job import Job, Part
from ingestion.jobs.observability import logger
from ingestion.jobs.watch import Watch
from ingestion.jobs.webhook import Webhook
from ingestion.jobs.workplace import PollFunction, Workplace
from ingestion.sources.settings import variable_name
from ingestion.storage import Location

if TYPE_CHECKING:
    from ingestion.providers import Provider

PORT: Final = 8321
_FIELDS: Final = {"root": "root: FOLDER", "state": "settings: {state: FOLDER}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """How a job runs.

    Attributes:
        root: Where the logs are.
        state: A local folder for the spool and for open incidents; `None` puts it beside the logs.
        storage_options: Passed through to the store.
        host: Address of the endpoint; the machine's own only, unless said otherwise.
        port: Its port; 0 takes a free one, `None` has no endpoint.
        workers: Polls in flight at once, slow ones not counted.
        open_logs: Logs, and sources, that are kept open.
        compact_after: Commits after which a log is compacted; 0 never.
        grace_hours: How long files that a compaction replaced are kept.
        stop_within: Seconds that polls in flight have to finish when the job is stopped.
        webhook_env: The environment variable that has the address which alerts are sent to.
    """

    root: str
    state: Path | None = None
    storage_options: dict[str, str] | None = None
    host: str = "127.0.0.1"
    port: int | None = PORT
    workers: int = 32
    open_logs: int = 256
    compact_after: int = 100
    grace_hours: int = 1
    stop_within: float = 30.0
    webhook_env: str | None = None

    def __post_init__(self) -> None:
        """Refuse an address where the name of its variable belongs; the address may be a secret.

        Raises:
            ProviderError: If it is none's name.
        """
        if self.webhook_env is not None:
            try:
                variable_name(self.webhook_env)
            except ValueError as error:
                raise ProviderError("settings: webhook_env", str(error), "e.g. webhook_env: ALERTS_URL.") from None

    @property
    def state_folder(self) -> Path:
        """Where the job keeps what must outlive it: `root/_job`, or `asknown-job` here if the logs are in an object store."""
        if self.state is not None:
            return self.state
        return Path("asknown-job") if "://" in self.root else Path(self.root).expanduser() / "_job"


def run(
    providers: Sequence[Provider],
    settings: JobSettings,
    *,
    stop: threading.Event | None = None,
    poll: PollFunction | None = None,
    clock: Clock = system_clock,
    environment: Mapping[str, str] | None = None,
    started: Callable[[Job], None] | None = None,
) -> Job:
    """Run providers until a signal or `stop`: poll, receive, compact, watch.

    Args:
        providers: Which.
        settings: How.
        stop: Ends the job when it is set; signals do so too, in the main thread.
        poll: What polls once, instead of `poll_once`.
        clock: The wall clock.
        environment: Where credentials come from; that of the process if `None`.
        started: Called once the endpoint listens.

    Returns:
        The job, which has ended. Polls that it had to abandon are named there; they hang in threads, and the process must be
        ended with `os._exit`.

    Raises:
        OSError: If the endpoint cannot listen, or a folder cannot be used.
        SpoolLockedError: If another job uses the same folder for its state.
        ProviderError: If the variable that has the webhook's address is not set.
    """
    _try_folders(settings)
    workplace = Workplace(
        providers,
        root=settings.root,
        storage_options=settings.storage_options,
        open_logs=settings.open_logs,
        compact_after=settings.compact_after,
        poll=poll,
        clock=clock,
        environment=environment,
    )
    _warn(providers)
    parts: list[Part] = []
    receiving = None
    senders = [provider.name for provider in providers if sends(provider)]
    if senders:
        from ingestion.jobs.receiving import Receiving

        receiving = Receiving(workplace, settings.state_folder / "spool", senders)
        parts.append(receiving)
    names = [provider.name for provider in providers]
    webhook = None
    if settings.webhook_env is not None:
        webhook = Webhook.from_environment(settings.webhook_env, workplace.environment, root=settings.root)
    parts.append(Watch(workplace, names, folder=settings.state_folder, webhook=webhook))
    job = Job(
        workplace,
        names,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        grace_hours=settings.grace_hours,
        stop_within=settings.stop_within,
        push=receiving.push if receiving is not None else None,
        parts=tuple(parts),
    )
    try:
        job.run(stop=stop, started=None if started is None else lambda: started(job))
    finally:
        if receiving is not None:
            receiving.close()
    return job


def once(
    providers: Sequence[Provider],
    settings: JobSettings,
    *,
    stop: threading.Event | None = None,
    poll: PollFunction | None = None,
    clock: Clock = system_clock,
    environment: Mapping[str, str] | None = None,
) -> list[OnceReport]:
    """Poll each provider until it has nothing more, and put into the logs what waits in the spool.

    Args:
        providers: Which.
        settings: How; those of the endpoint do not matter.
        stop: Ends it after the polls in flight when it is set.
        poll: What polls once, instead of `poll_once`.
        clock: The wall clock.
        environment: Where credentials come from; that of the process if `None`.

    Returns:
        A report per provider, in their order.

    Raises:
        OSError: If a folder cannot be used.
        SpoolLockedError: If a running job has the spool.
    """
    _try_folders(settings, state=settings.state is not None)
    workplace = Workplace(
        providers,
        root=settings.root,
        storage_options=settings.storage_options,
        open_logs=settings.open_logs,
        poll=poll,
        clock=clock,
        environment=environment,
    )
    try:
        _empty_spool(workplace, settings.state_folder / "spool", [each.name for each in providers if sends(each)])
        return drain(workplace, [provider.name for provider in providers], workers=min(8, settings.workers), stop=stop)
    finally:
        workplace.close()


def sends(provider: Provider) -> bool:
    """Whether a provider sends by itself: pushes, or is behind a broker."""
    return provider.source is not None and not provider.polled


def _try_folders(settings: JobSettings, *, state: bool = True) -> None:
    """Make the folders of a job and write to them, so that one that cannot be used is an error at once.

    Raises:
        OSError: If one cannot be; it says what to change.
    """
    root = Location.of(settings.root, settings.storage_options).folder
    folders = [(root, "root", "--root")] if root is not None else []
    if state:
        folders.append((settings.state_folder, "state", "--state"))
    for folder, what, option in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".asknown-"):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"the {what} folder {os.fspath(folder)!r} cannot be written to: {reason}\n\n"
                f"hint: name a folder that this user may write to: {option} FOLDER, or `{_FIELDS[what]}` in the file.",
            ) from error


def _empty_spool(workplace: Workplace, folder: Path, names: Iterable[str]) -> None:
    wanted = list(names)
    if not wanted or not folder.is_dir():
        return
    from ingestion.jobs.receiving import Receiving

    Receiving(workplace, folder, wanted).close()


def _warn(providers: Sequence[Provider]) -> None:
    say = logger("job")
    for provider in providers:
        if provider.source is None:
            say.warning("has no source: its rows are appended by somebody else", provider=provider.name)
        elif provider.polled and provider.schedule is None:
            say.warning("has no schedule: only `asknown ingest once` polls it", provider=provider.name)
