"""Rows that a provider serves over HTTP, asked for again and again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import Field, field_validator, model_validator

from ingestion.errors import MissingLibraryError, PayloadError, SourceError
from ingestion.instants import Clock, system_clock
from ingestion.sources.base import Fetched, Payload, Progress
from ingestion.sources.http_clock import go_on_from, read_until, steps_to
from ingestion.sources.http_paging import Paging, Position, first_position, next_position, page_url
from ingestion.sources.http_retry import CircuitBreaker, RateLimit, Refused
from ingestion.sources.layout import Layout
from ingestion.sources.parsing import count_records, parse_payload, state_time_of
from ingestion.sources.redaction import Redactor, sounds_secret
from ingestion.sources.settings import Duration, SourceSettings, Zone, from_environment, length_of, seconds_of

if TYPE_CHECKING:
    import httpx

    from ingestion.sources.http_client import Answer, Credentials, HttpClient

_SINCE, _UNTIL = "{since}", "{until}"
_REPEATS = 2
"""How often a page that repeats another is asked for again before it is an error."""


class HttpAuth(SourceSettings):
    """Who is asking. All values are names of environment variables; the credentials themselves stand nowhere else.

    Attributes:
        bearer_env: Holds a token for `Authorization: Bearer`.
        basic_env: Two names: of the user and of the password.
        header_env: Header to the variable that holds its value.
        query_env: Query parameter to the variable that holds its value.
    """

    bearer_env: str | None = None
    basic_env: tuple[str, str] | None = None
    header_env: dict[str, str] = Field(default_factory=dict)
    query_env: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_authorization(self) -> Self:
        if self.bearer_env and self.basic_env:
            raise ValueError("bearer_env and basic_env both set Authorization")
        return self


class InstantStyle(SourceSettings):
    """How `{since}` and `{until}` are written.

    Attributes:
        format: `iso` (`2025-06-01T12:00:00Z`), `epoch_s`, `epoch_ms`, `date` (`2025-06-01`) or `strftime`.
        pattern: Of `strftime`.
        zone: IANA name of the zone that dates and patterns are in.
    """

    format: Literal["iso", "epoch_s", "epoch_ms", "date", "strftime"] = "iso"
    pattern: str | None = None
    zone: Zone = "UTC"

    @model_validator(mode="after")
    def _pattern_fits(self) -> Self:
        if (self.format == "strftime") != (self.pattern is not None):
            raise ValueError("pattern belongs to format: strftime, which needs one")
        return self

    def write(self, instant: datetime) -> str:
        """An instant as the provider wants it; finer parts than it can say are cut off."""
        if self.format == "epoch_s":
            return str(int(instant.timestamp() // 1))
        if self.format == "epoch_ms":
            return str((instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
        local = instant.astimezone(ZoneInfo(self.zone))
        if self.format == "date":
            return local.date().isoformat()
        if self.pattern is not None:
            return local.strftime(self.pattern)
        return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Rate(SourceSettings):
    """How often a provider may be asked.

    Attributes:
        requests: How many times.
        per: Within how long.
    """

    requests: int = Field(ge=1)
    per: Duration


class HttpSource(SourceSettings):
    """An address that is polled.

    Attributes:
        kind: `http`.
        url: The address; `{since}` and `{until}` in it or in `params` are replaced.
        layout: How its bytes become rows.
        params: Query parameters.
        headers: Headers without secrets.
        auth: Who is asking.
        paging: How long answers are cut into pages; `None`: they are not.
        resume: Whether so many pages that one fetch does not take them may be stored in parts. Of a whole state they may not:
            what has not come yet would look as if it no longer existed.
        conditional: Without paging: send the last ETag or Last-Modified, and take the same bytes as nothing new.
        start: What `{since}` is before the first success: an instant in ISO 8601, or how far back.
        look_back: How far `{since}` goes back behind the last success, to catch corrections.
        window: The longest span from `{since}` to `{until}`; what is longer takes several fetches. Longer than `look_back`.
        instants: How `{since}` and `{until}` are written.
        connect_timeout: Until a connection stands.
        timeout: Without a byte.
        deadline: For a whole fetch: all pages, all attempts.
        attempts: How often a request is sent at most; again only after broken connections, 408, 425, 429 and 5xx.
        wait: Before the second attempt; doubled each time, plus jitter of the same size.
        longest_wait: What is waited at most before another attempt. A `Retry-After` beyond it ends the fetch, and the
            provider is left alone for so long.
        rate: How often the provider may be asked.
        failures: How many failed fetches in a row make it be left alone.
        pause: For how long.
        max_bytes: Of all pages of a fetch together.
        hosts: Other hosts that redirects and links may lead to. They get no credentials.
    """

    kind: Literal["http"] = "http"
    url: str
    layout: Layout = Layout()
    params: dict[str, str | int | float] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    auth: HttpAuth | None = None
    paging: Paging | None = None
    resume: bool = True
    conditional: bool = True
    start: str | None = None
    look_back: Duration = "0s"
    window: Duration | None = None
    instants: InstantStyle = InstantStyle()
    connect_timeout: Duration = "10s"
    timeout: Duration = "30s"
    deadline: Duration = "5m"
    attempts: int = Field(default=4, ge=1)
    wait: Duration = "1s"
    longest_wait: Duration = "60s"
    rate: Rate | None = None
    failures: int = Field(default=5, ge=1)
    pause: Duration = "5m"
    max_bytes: int = Field(default=256_000_000, ge=1)
    hosts: tuple[str, ...] = ()

    @field_validator("url")
    @classmethod
    def _is_an_address_without_secrets(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url must begin with http:// or https:// and name a host")
        if "@" in parts.netloc:
            raise ValueError(
                "url holds a user or password; take them from the environment: auth: {basic_env: [USER, PASSWORD]}"
            )
        _refuse_secrets([name for name, _ in parse_qsl(parts.query, keep_blank_values=True)])
        return url

    @field_validator("params")
    @classmethod
    def _params_hold_no_secrets(cls, params: dict[str, str | int | float]) -> dict[str, str | int | float]:
        _refuse_secrets(params)
        return params

    @field_validator("headers")
    @classmethod
    def _headers_hold_no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in {"authorization", "proxy-authorization", "cookie"} or sounds_secret(name):
                raise ValueError(
                    f"header {name!r} is a credential; take it from the environment: auth: {{header_env: {{{name}: VARIABLE}}}}"
                )
        return headers

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        texts = [self.url, *map(str, self.params.values())]
        if any(_SINCE in text for text in texts) and self.start is None:
            raise ValueError(
                "{since} needs start: an instant such as 2025-01-01T00:00:00Z, or how far back, such as 30d"
            )
        if self.start is not None:
            _start_of(self.start, datetime(2000, 1, 1, tzinfo=UTC))
        if self.window is not None and length_of(self.window) <= length_of(self.look_back):
            raise ValueError("window must be longer than look_back, or reading never gets on")
        return self

    @property
    def whole_state_problem(self) -> str | None:
        """Why this cannot be the source of a whole state; `None` if it can."""
        if any(_SINCE in text for text in [self.url, *map(str, self.params.values())]):
            return "asks only for what came since; leave {since} out of its address."
        if self.paging is not None and self.resume:
            return "may store some pages of a state before the others; say resume: false."
        return None

    def open(
        self,
        provider_name: str,
        environment: Mapping[str, str],
        *,
        clock: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> HttpPull:
        """The source at work.

        Args:
            provider_name: For messages.
            environment: Where credentials and proxies are named.
            clock: Tells when bytes were in hand.
            monotonic: Seconds that never go back.
            sleep: Waits some seconds.

        Raises:
            SourceError: If a credential is not in the environment.
            MissingLibraryError: If httpx or stamina is not installed.
        """
        try:
            import httpx

            from ingestion.sources.http_client import HttpClient, Limits, proxy_for
        except ImportError as error:  # pragma: no cover - both are in the extra
            raise MissingLibraryError(error.name or "httpx", "ingest", "polling over HTTP") from error
        credentials = _credentials(self, provider_name, environment)
        origin = httpx.URL(self.url.replace(_SINCE, "").replace(_UNTIL, "")).copy_with(
            path="/", query=None, fragment=None
        )
        proxy = proxy_for(origin, environment)
        secrets = [*credentials.secrets, *filter(None, [urlsplit(proxy).password if proxy else None])]
        redactor = Redactor(secrets, parameters=self.auth.query_env if self.auth else ())
        client = HttpClient(
            origin,
            credentials,
            limits=Limits(
                connect=seconds_of(self.connect_timeout),
                read=seconds_of(self.timeout),
                attempts=self.attempts,
                wait=seconds_of(self.wait),
                longest_wait=seconds_of(self.longest_wait),
                max_bytes=self.max_bytes,
                hosts=frozenset(self.hosts),
            ),
            redactor=redactor,
            clock=clock,
            rate=RateLimit(self.rate.requests, seconds_of(self.rate.per), monotonic=monotonic) if self.rate else None,
            monotonic=monotonic,
            sleep=sleep,
            proxy=proxy,
        )
        return HttpPull(provider_name, self, client, redactor=redactor, monotonic=monotonic)


def _refuse_secrets(names: Mapping[str, object] | list[str]) -> None:
    """Credentials belong in the environment.

    Raises:
        ValueError: If a query parameter sounds like one.
    """
    for name in names:
        if sounds_secret(name):
            raise ValueError(
                f"parameter {name!r} looks like a credential; take it from the environment: auth: {{query_env: {{{name}: VARIABLE}}}}"
            )


def _credentials(declared: HttpSource, provider: str, environment: Mapping[str, str]) -> Credentials:
    from ingestion.sources.http_client import Credentials, basic

    auth = declared.auth
    if auth is None:
        return Credentials()
    place = Redactor(parameters=auth.query_env).url(declared.url)

    def value(name: str) -> str:
        return from_environment(name, environment, provider=provider, place=place)

    headers = {header: value(name) for header, name in auth.header_env.items()}
    parameters = {parameter: value(name) for parameter, name in auth.query_env.items()}
    secrets = [*headers.values(), *parameters.values()]
    variables = [*auth.header_env.values(), *auth.query_env.values()]
    if auth.bearer_env is not None:
        secrets.append(value(auth.bearer_env))
        variables.append(auth.bearer_env)
        headers["Authorization"] = f"Bearer {secrets[-1]}"
    if auth.basic_env is not None:
        user, password = map(value, auth.basic_env)
        headers["Authorization"] = basic(user, password)
        secrets += [password, headers["Authorization"].removeprefix("Basic ")]
        variables += auth.basic_env
    return Credentials(headers=headers, parameters=parameters, secrets=tuple(secrets), variables=tuple(variables))


def _start_of(start: str, now: datetime) -> datetime:
    """The first `{since}`.

    Raises:
        ValueError: If it is neither an instant with a zone nor a duration.
    """
    try:
        instant = datetime.fromisoformat(start)
    except ValueError:
        try:
            return now - length_of(start)
        except Exception:  # noqa: BLE001 - neither the one nor the other
            raise ValueError(f"start: {start!r} is neither an instant nor a duration") from None
    if instant.tzinfo is None:
        raise ValueError(f"start: {start!r} has no time zone")
    return instant.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class _Span:
    """What is asked for: from when to when, and how far earlier fetches read of it.

    Attributes:
        since: From when; `None`: from the beginning.
        until: Until when.
        position: The next page.
        begun: Where pages were read before, until when their provider had what it told.
    """

    since: datetime | None
    until: datetime
    position: Position = None
    begun: datetime | None = None


class HttpPull:
    """An `HttpSource` at work. Its cursor holds the ETag, until when was read, and where a long reading goes on.

    Args:
        provider: For messages.
        declared: What to poll.
        client: Asks the provider.
        redactor: Takes secrets out of what is shown.
        monotonic: Seconds that never go back.
    """

    kind = "http"

    def __init__(
        self,
        provider: str,
        declared: HttpSource,
        client: HttpClient,
        *,
        redactor: Redactor,
        monotonic: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._declared = declared
        self._client = client
        self._redactor = redactor
        self._monotonic = monotonic
        self._place = redactor.url(declared.url)
        self._breaker = CircuitBreaker(declared.failures, length_of(declared.pause))
        said = [declared.url, declared.params, declared.headers, declared.layout.model_dump(mode="json")]
        self._fingerprint = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"HttpPull({self._provider!r}, {self._place!r})"

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        """The pages that there are now.

        Raises:
            SourceError: If the provider cannot be reached, fails, or is left alone because it failed too often
                (`CircuitOpenError`). Nothing of what came so far is handed on, and the cursor stays.
        """
        import httpx

        self._breaker.check(now, provider=self._provider, place=self._place)
        try:
            fetched = self._pages(self._span(progress.cursor or {}, now), progress.cursor or {})
        except httpx.InvalidURL as error:
            self._breaker.failed(now)
            raise SourceError(
                self._provider, self._place, f"led to no usable address: {self._redactor.text(str(error))}"
            ) from None
        except Refused as error:
            self._breaker.failed(now, wait=error.wait)
            problem, hint = self._redactor.text(error.problem), self._redactor.text(error.hint)
            raise SourceError(self._provider, self._place, problem, hint) from None
        self._breaker.succeeded()
        return fetched

    def parse(self, payload: Payload) -> pl.DataFrame:
        """The rows of a page.

        Raises:
            PayloadError: If it is not laid out as declared.
        """
        return parse_payload(
            payload.content,
            self._declared.layout,
            provider=self._provider,
            label=payload.label,
            media_type=payload.media_type,
            max_bytes=max(self._declared.max_bytes, 1 << 28),
        )

    def close(self) -> None:
        """Give back connections."""
        self._client.close()

    # ---- what to ask for ----------------------------------------------------------------------------------------------

    def _span(self, cursor: Mapping[str, Any], now: datetime) -> _Span:
        declared = self._declared
        resume = cursor.get("resume")
        if resume is not None and cursor.get("of") == self._fingerprint:
            since = resume["since"] and datetime.fromisoformat(resume["since"])
            begun = datetime.fromisoformat(resume.get("begun", resume["until"]))
            return _Span(since, datetime.fromisoformat(resume["until"]), resume["position"], begun)
        if cursor.get("since") is not None:
            since = go_on_from(cursor, now) - length_of(declared.look_back)
        else:
            since = _start_of(declared.start, now) if declared.start is not None else None
        until = now
        if declared.window is not None and since is not None:
            until = min(now, since + length_of(declared.window))
        first = first_position(declared.paging) if declared.paging is not None else None
        return _Span(since, until, first)

    def _base(self, span: _Span) -> httpx.URL:
        import httpx

        written = {_UNTIL: self._declared.instants.write(span.until)}
        if span.since is not None:
            written[_SINCE] = self._declared.instants.write(span.since)

        def fill(text: str) -> str:
            for placeholder, instant in written.items():
                text = text.replace(placeholder, instant)
            return text

        return httpx.URL(fill(self._declared.url)).copy_merge_params(
            {name: fill(str(value)) for name, value in self._declared.params.items()}
        )

    # ---- asking -------------------------------------------------------------------------------------------------------

    def _pages(self, span: _Span, cursor: Mapping[str, Any]) -> Fetched:
        """All pages of a span, or as many as one fetch takes.

        Raises:
            Refused: If one of them cannot be had, or they go round in circles.
        """
        deadline = self._monotonic() + seconds_of(self._declared.deadline)
        base, paging = self._base(span), self._declared.paging
        if paging is None:
            return self._only_page(base, span, cursor, deadline)
        position = span.position
        answers: list[Answer] = []
        digests: set[str] = set()
        asked: set[Position] = set()
        while True:
            asked.add(position)
            answer = self._new_page(page_url(paging, base, position), digests, answers, deadline)
            if answer is None:
                return self._whole(span, answers, cursor)
            answers.append(answer)
            try:
                following = next_position(
                    paging,
                    position,
                    answer.content,
                    answer.headers,
                    url=str(page_url(paging, base, position)),
                    layout=self._declared.layout,
                    provider=self._provider,
                )
            except PayloadError:  # parsing will say what is wrong with it; nobody knows what comes after
                return Fetched(payloads=self._payloads(answers), version=f"{len(answers)} pages, the last unreadable")
            if following is None:
                return self._whole(span, answers, cursor)
            position = self._redactor.without_parameters(str(following)) if "://" in str(following) else following
            if position in asked:
                raise Refused(f"page {len(answers)} leads back to an earlier one", again=False)
            enough = sum(len(a.content) for a in answers) >= self._declared.max_bytes
            if enough or len(answers) >= paging.pages_per_fetch:
                return self._part(span, answers, position, cursor)

    def _new_page(self, url: httpx.URL, digests: set[str], before: list[Answer], deadline: float) -> Answer | None:
        """A page that is none of those before; `None` if the provider ends its pages by repeating one.

        Raises:
            Refused: If it repeats another however often it is asked for.
        """
        for _ in range(_REPEATS + 1):
            answer = self._client.get(url, self._declared.headers, until=deadline)
            digest = hashlib.sha256(answer.content).hexdigest()
            if digest not in digests or not self._has_rows(answer):
                digests.add(digest)
                return answer
            if getattr(self._declared.paging, "stop", None) == "same":
                return None
        raise Refused(
            f"page {len(before) + 1} repeats an earlier one",
            again=False,
            hint="does the provider know the paging parameter? If it ends that way, say stop: same.",
        )

    def _has_rows(self, answer: Answer) -> bool:
        media_type = answer.headers.get("content-type", "")
        try:
            told = {"provider": self._provider, "label": answer.url, "media_type": media_type}
            return count_records(answer.content, self._declared.layout, **told) > 0
        except PayloadError:
            return True

    def _only_page(self, url: httpx.URL, span: _Span, cursor: Mapping[str, Any], deadline: float) -> Fetched:
        """The one answer, unless it is the one that was read last."""
        asks = {} if not self._declared.conditional or cursor.get("asked") != self._asked(url) else cursor
        conditions = {
            header: asks[key]
            for header, key in (("if-none-match", "etag"), ("if-modified-since", "last_modified"))
            if asks.get(key)
        }
        answer = self._client.get(url, {**self._declared.headers, **conditions}, until=deadline)
        digest = hashlib.sha256(answer.content).hexdigest()[:16]
        if answer.status == 304 or (answer.status == 200 and asks.get("digest") == digest):
            return Fetched(version=asks.get("etag") or asks.get("digest"))
        validators = {"etag": answer.headers.get("etag"), "last_modified": answer.headers.get("last-modified")}
        kept = {key: value for key, value in validators.items() if value and not self._redactor.holds_secret(value)}
        found = {**kept, "digest": digest, "asked": self._asked(url)} if self._declared.conditional else {}
        return self._whole(span, [answer], cursor, **found)

    def _asked(self, url: httpx.URL) -> str:
        """What tells one question from another, so that an answer's ETag is not sent along with another question."""
        return hashlib.sha256(f"{self._fingerprint} {url}".encode()).hexdigest()[:16]

    # ---- what came ----------------------------------------------------------------------------------------------------

    def _whole(self, span: _Span, answers: list[Answer], cursor: Mapping[str, Any], **found: str) -> Fetched:
        """Everything of a span: the next fetch asks for what comes after it."""
        reached, sure = self._reached(span, answers)
        steps: dict[str, Any] = {}
        if not sure and span.since is not None:
            back = length_of(self._declared.look_back) if cursor.get("since") is not None else timedelta(0)
            steps = {"steps": steps_to(reached, span.since + back, cursor)}
        ended_early = reached == span.until and self._window_ended_early(span, answers[-1].received_time)
        if steps and ended_early:
            steps["goes_on"] = True
        return Fetched(
            payloads=self._payloads(answers),
            cursor={"of": self._fingerprint, "since": reached.isoformat(), **steps, **found},
            version=found.get("etag") or found.get("digest") or f"{len(answers)} pages",
            more=ended_early,
            partial=ended_early,
            state_time=self._state_time(answers),
        )

    def _reached(self, span: _Span, answers: list[Answer]) -> tuple[datetime, bool]:
        """Until when a span is told of by its first page, and whether the provider's clock says so."""
        first = answers[0]
        reached, sure = read_until(span.until, date=first.headers.get("date"), now=first.received_time)
        return (reached, sure) if span.begun is None else (min(reached, span.begun), sure)

    def _window_ended_early(self, span: _Span, now: datetime) -> bool:
        """Whether the span was cut to the longest window and there is more after it."""
        window = self._declared.window
        if window is None or span.since is None:
            return False
        return span.until == span.since + length_of(window) and span.until < now

    def _part(self, span: _Span, answers: list[Answer], position: Position, cursor: Mapping[str, Any]) -> Fetched:
        """Some pages of a span: the next fetch goes on at `position`.

        Raises:
            Refused: If the position holds a credential, and so cannot be kept, or if parts are no use.
        """
        if not self._declared.resume:
            raise Refused(
                f"there is more than one fetch takes ({len(answers)} pages so far), and parts are no use here",
                again=False,
                hint="raise max_bytes, or pages_per_fetch of its paging.",
            )
        if self._redactor.holds_secret(str(position)):
            raise Refused("the address of the next page holds a credential and cannot be kept", again=False)
        resume = {
            "position": position,
            "since": span.since.isoformat() if span.since is not None else None,
            "until": span.until.isoformat(),
            "begun": self._reached(span, answers)[0].isoformat(),
        }
        so_far = {name: cursor[name] for name in ("since", "steps") if name in cursor}
        return Fetched(
            payloads=self._payloads(answers),
            cursor={"of": self._fingerprint, "since": None, **so_far, "resume": resume},
            version=f"{len(answers)} pages, more to come",
            more=True,
            partial=True,
            state_time=self._state_time(answers),
        )

    def _payloads(self, answers: list[Answer]) -> tuple[Payload, ...]:
        return tuple(
            Payload(
                content=answer.content,
                label=answer.url,
                received_time=answer.received_time,
                version=self._redactor.text(answer.headers.get("etag", ""))
                or hashlib.sha256(answer.content).hexdigest()[:16],
                media_type=self._redactor.text(answer.headers.get("content-type", "")),
            )
            for answer in answers
            if answer.status == 200
        )

    def _state_time(self, answers: list[Answer]) -> datetime | None:
        try:
            return state_time_of(
                answers[0].content, self._declared.layout, provider=self._provider, label=answers[0].url
            )
        except PayloadError:  # parsing will say what is wrong
            return None
