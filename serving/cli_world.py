"""`asknown world`: the simulated world of the worked example, served as real feeds, to be watched live."""

from __future__ import annotations

import json
import signal
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import polars as pl
import typer

from ingestion import create_log
from ingestion.sources.simulated import FEEDS, SimulatedWorld
from ingestion.sources.world_declarations import declarations
from ingestion.sources.world_feeds import (
    PORT,
    PROVIDERS,
    SPEED,
    TOPIC,
    LiveWorld,
    WorldServer,
    WorldTime,
    publisher,
)
from ingestion.sources.world_outages import FeedOutage
from serving import render
from serving.cli_log import Json, instant
from serving.errors import MissingExtraError, OptionError
from serving.outage_options import FORM, parse_outage

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(
    help="The simulated world, served as live feeds or written to logs: serve, providers, outage, write.",
    no_args_is_help=True,
)
FASTEST = 3_600.0

Port = Annotated[int, typer.Option(help="Port on the loopback; 0 takes a free one.", min=0, max=65_535)]
Speed = Annotated[
    float,
    typer.Option(
        help="Simulated seconds in a real one; at 60 a reading comes every ten seconds.", min=0.1, max=FASTEST
    ),
]
Mqtt = Annotated[
    str | None, typer.Option(help="HOST:PORT of an MQTT server that the sky camera publishes to.", metavar="HOST:PORT")
]


@app.command()
def serve(
    port: Port = PORT,
    speed: Speed = SPEED,
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 5,
    anchor: Annotated[
        str | None, typer.Option(help="When simulated and real time were the same; now by default. Continues a world.")
    ] = None,
    mqtt: Mqtt = None,
    outage: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{FORM}; FROM may be counted from now: meter,2m,90s. Repeatable.", metavar="PROVIDER,FROM,TO"
        ),
    ] = None,
) -> None:
    """Serve five simulated providers on the loopback until it is stopped.

    Then, in other terminals: `asknown world providers > providers.yaml` and
    `asknown ingest run providers.yaml`. Prints the address on standard output.
    """
    begin = datetime.now(UTC) if anchor is None else instant(anchor, "--anchor")
    time = WorldTime(anchor=begin, speed=speed)
    world = LiveWorld(time=time, seed=seed)
    stop = threading.Event()
    with ExitStack() as stack:
        server = stack.enter_context(WorldServer(world, port=port, outages=planned(outage or [])))
        if mqtt is not None:
            stack.enter_context(publisher(server, mqtt))
        typer.echo(server.address)
        for name, told in server.status()["providers"].items():
            place = f"mqtt://{mqtt} {TOPIC}/#" if name == "sky_camera" and mqtt else told["url"]
            render.say(f"{name:<13} {place}")
        render.say(f"seed {seed}, speed {speed:g}; to go on with this world later: --anchor {begin.isoformat()}")
        _wait(stop)


def _wait(stop: threading.Event) -> None:
    """Until somebody stops the process."""

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def planned(given: list[str]) -> dict[str, list[FeedOutage]]:
    """Outages by provider.

    Args:
        given: As `parse_outage` reads them; those that begin after a duration begin so long after now.

    Raises:
        OptionError: If one names no provider or no site.
    """
    now = datetime.now(UTC)
    found: dict[str, list[FeedOutage]] = {}
    for text in given:
        outage = parse_outage(text, now=now)
        if outage.provider not in PROVIDERS:
            raise OptionError(f"--outage {text!r} names no provider", f"there are {', '.join(PROVIDERS)}: meter,2m,90s")
        try:
            found.setdefault(outage.provider, []).append(FeedOutage.of(outage))
        except ValueError as error:
            raise OptionError(f"--outage {text!r}: {error}", "e.g. --outage meter,2m,90s,entity=dune") from error
    return found


@app.command()
def providers(
    port: Port = PORT,
    speed: Speed = SPEED,
    mqtt: Mqtt = None,
    root: Annotated[str, typer.Option(help="Where the logs are to be, seen from the declaration.")] = "logs",
    as_json: Json = False,
) -> None:
    """Print the declaration of the served providers, for `asknown ingest`; take the options that they are served with."""
    declared = declarations(f"http://127.0.0.1:{port}", speed, mqtt=mqtt, root=root)
    if as_json:
        render.as_json(declared)
        return
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "ingest", "the declaration") from error
    typer.echo(yaml.safe_dump(declared, sort_keys=False, allow_unicode=True, width=120), nl=False)


@app.command()
def write(
    root: Annotated[str, typer.Argument(help="Folder of the logs.")],
    days: Annotated[int, typer.Option(help="How many days back the world begins.", min=1, max=400)] = 7,
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 5,
    as_json: Json = False,
) -> None:
    """Write what has arrived of a simulated world by now into logs, without serving it; again later, what has come since."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    world = SimulatedWorld(seed=seed, start=midnight - timedelta(days=days), days=days + 1)
    rows = []
    for feed in FEEDS:
        log = create_log(root, feed.provider, entities=["site"], exist_ok=True)
        known = log.observed_through() or world.start
        arrived = world.observations(feed.provider).filter(
            pl.col("arrival_time").is_between(known, now, closed="right")
        )
        report = log.append(arrived)
        rows.append({"provider": feed.provider, "rows": report.rows, "position": report.position})
    if as_json:
        render.as_json(rows)
        return
    render.table(rows)


@app.command()
def outage(
    provider: Annotated[str, typer.Argument(help="One of the served providers.")],
    seconds: Annotated[float | None, typer.Option(help="For how long; until --end by default.", min=0.0)] = None,
    lost: Annotated[bool, typer.Option("--lost", help="What would be published in it never is.")] = False,
    slow: Annotated[
        float | None, typer.Option(help="It answers, and everything takes so many times as long.", min=1.0)
    ] = None,
    entity: Annotated[
        list[str] | None, typer.Option(help="It answers, and this site's rows are held up. Repeatable.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End its outages.")] = False,
    port: Port = PORT,
    as_json: Json = False,
) -> None:
    """Let a served provider fail, or answer again."""
    asked = {"seconds": seconds, "lost": int(lost) or None, "slow": slow, "site": ",".join(entity or ()) or None}
    if end and any(value is not None for value in asked.values()):
        raise OptionError("--end goes alone", f"asknown world outage {provider} --end")
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    status = _ask("DELETE" if end else "POST", f"http://127.0.0.1:{port}/outage/{provider}?{query}")
    if as_json:
        render.as_json(status)
        return
    render.table(
        [
            {"provider": name, "down": told["down"], "outages": "; ".join(map(_said, told["outages"])) or None}
            for name, told in status["providers"].items()
        ]
    )


def _said(outage: dict[str, Any]) -> str:
    """An outage of a served provider in a few words."""
    words = [f"until {outage['end'] or 'it is ended'}", *(["lost"] if outage.get("lost") else [])]
    words += [f"{outage['slow']:g} times as slow"] if "slow" in outage else []
    return ", ".join([*words, *([" and ".join(outage["sites"])] if "sites" in outage else [])])


def _ask(method: str, url: str) -> Any:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise OptionError(json.loads(error.read())["error"], "asknown world outage meter --seconds 90") from error
