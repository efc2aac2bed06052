"""What the clients of an object store say, captured from Ceph's gateway, told as what is wrong; and told once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake.exceptions import TableNotFoundError

import alignment
import ingestion
from alignment import location
from alignment.store_faults import fault_of
from ingestion.storage import Location

PLACE = "s3://b-3fef14699d4b/logs/m"
ARROW = "\n          \x1b[31m↳\x1b[0m "
GET = "Error performing GET http://127.0.0.1:49231/b-3fef14699d4b?list-type=2&prefix=logs%2Fm in 47.378405ms - "
XML = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message></Message>'
    "<RequestId>tx00000da59b6d486810762-006b02524d-1007-default</RequestId><HostId>1007-default-default</HostId></Error>\n"
)
LISTED = f"Generic S3 error{ARROW}Error performing list request{ARROW}{GET}Server returned non-2xx status code"
GOT = f"Kernel error -> The operation lacked the necessary privileges to complete for path logs/m/_delta_log/_last_checkpoint{ARROW}{GET}Server returned non-2xx status code{ARROW}403 Forbidden"
BY_POLARS = (
    "object-store error: The operation lacked the necessary privileges to complete for path r.parquet: {}Server returned"
    " non-2xx status code: 403 Forbidden: {} (path: s3://b-3fef14699d4b/r.parquet)"
)
KEYS = "check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL is the store that gave it."
SECRET = "check AWS_SECRET_ACCESS_KEY."
EITHER = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they are allowed to do under the prefix."
SAID = {
    "a bucket that is not there": (
        OSError(f"{LISTED}{ARROW}404 Not Found{ARROW}{XML.format('NoSuchBucket')}"),
        "no such bucket",
        f"the store of '{PLACE}' has no bucket 'b-3fef14699d4b'",
        "correct the address, or make the bucket first, e.g. aws s3 mb s3://b-3fef14699d4b.",
    ),
    "the same of a file that is written": (
        FileNotFoundError(
            f"Object at location logs/x not found{ARROW}Error performing POST http://127.0.0.1:49231/b/logs/x?uploads= in"
            f" 189.399722ms - Server returned non-2xx status code{ARROW}404 Not Found{ARROW}{XML.format('NoSuchBucket')}"
        ),
        "no such bucket",
        f"the store of '{PLACE}' has no bucket 'b-3fef14699d4b'",
        "correct the address, or make the bucket first, e.g. aws s3 mb s3://b-3fef14699d4b.",
    ),
    "a secret that is wrong": (
        OSError(f"{GOT}{ARROW}{XML.format('SignatureDoesNotMatch')}"),
        "wrong keys",
        f"the store of '{PLACE}' says that the secret does not fit the access key",
        SECRET,
    ),
    "the same to Polars": (
        PermissionError(BY_POLARS.format(GET, XML.format("SignatureDoesNotMatch"))),
        "wrong keys",
        f"the store of '{PLACE}' says that the secret does not fit the access key",
        SECRET,
    ),
    "a key that the store does not know": (
        OSError(f"{LISTED}{ARROW}403 Forbidden{ARROW}{XML.format('InvalidAccessKeyId')}"),
        "wrong keys",
        f"the store of '{PLACE}' does not know the access key",
        KEYS,
    ),
    "a key that may not": (
        OSError(f"{LISTED}{ARROW}403 Forbidden{ARROW}{XML.format('AccessDenied')}"),
        "not allowed",
        f"the store of '{PLACE}' does not allow that with these keys (AccessDenied)",
        "whoever reads must be allowed to list and get under the prefix; whoever writes, to put and delete too.",
    ),
    "an answer without a body": (
        OSError(
            f"The operation lacked the necessary privileges to complete for path logs/x{ARROW}Error performing HEAD"
            f" http://127.0.0.1:49231/b/logs/x in 80.420261ms - Server returned non-2xx status code{ARROW}403 Forbidden\n"
        ),
        "not allowed",
        f"the store of '{PLACE}' refuses the request (403 Forbidden)",
        EITHER,
    ),
    "no keys, so that the machine's metadata are asked for some": (
        OSError(
            f"Kernel error -> Generic S3 error{ARROW}Error performing PUT http://169.254.169.254/latest/api/token in 4.98ms - Server"
            f" returned non-2xx status code{ARROW}403 Forbidden{ARROW}denied destination\n"
        ),
        "no keys",
        f"no credentials were found for the store of '{PLACE}'",
        "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., and AWS_ENDPOINT_URL=https://... if it is not Amazon's own.",
    ),
    "HTTP without leave": (
        OSError(f"Generic S3 error{ARROW}{GET}HTTP error{ARROW}builder error{ARROW}URL scheme is not allowed\n"),
        "plain http",
        f"the store of '{PLACE}' is at an http:// address, and HTTP without TLS was not allowed",
        "export AWS_ALLOW_HTTP=true, or set AWS_ENDPOINT_URL to an https:// address.",
    ),
}

REFUSED = "http://127.0.0.1:9/b/logs/m/_delta_log/_last_checkpoint in 3.3s, after 10 retries, max_retries"
DOWN = OSError(
    f"Kernel error -> Generic S3 error{ARROW}Error performing GET {REFUSED}{ARROW}10, retry_timeout{ARROW}180s  - HTTP error{ARROW}"
    f"error sending request{ARROW}client error (Connect){ARROW}tcp connect error{ARROW}Connection refused (os error 111)\n"
)
TROUBLE = {
    "nobody listens": (
        DOWN,
        "out of reach",
        f"the store of '{PLACE}' cannot be reached at http://127.0.0.1:9: connection refused",
        "check AWS_ENDPOINT_URL and the network, then try again.",
    ),
    "no such host": (
        OSError(
            "object-store error: Generic S3 error: Error performing GET http://me:topsecret@no.such.host.invalid:9/b/r.parquet in"
            " 13.121904174s, after 8 retries, max_retries: 8, retry_timeout: 30s  - HTTP error: error sending request (path:"
            " s3://b/r.parquet)\n\nCaused by:\n    0: client error (Connect)\n    1: dns error\n    2: failed to lookup address"
        ),
        "out of reach",
        f"the store of '{PLACE}' cannot be reached at http://no.such.host.invalid:9: the host name is not known",
        "check AWS_ENDPOINT_URL and the network, then try again.",
    ),
    "a store that is busy": (
        OSError(f"{LISTED}{ARROW}503 Service Unavailable{ARROW}{XML.format('SlowDown')}"),
        "out of reach",
        f"the store of '{PLACE}' fails: it answers 503 Service Unavailable (SlowDown) to GET /b-3fef14699d4b",
        "try again later, or ask who runs it.",
    ),
    "something that nobody foresaw": (
        OSError("Generic S3 error: the moon is full"),
        "failed",
        f"the store of '{PLACE}' fails",
        "the error that this one was raised from has what its client says.",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_what_cannot_get_better_says_what_is_wrong_and_what_to_do(case: str) -> None:
    error, reason, problem, hint = SAID[case]
    for kind in (alignment.StoreError, ingestion.StoreError):
        told = kind.of(error, PLACE)
        assert told is not None
        assert (str(told), told.reason, told.lasting) == (f"{problem}\n\nhint: {hint}", reason, True)
        assert isinstance(told, OSError), "who caught the client's own error catches this one too"


@pytest.mark.parametrize("case", TROUBLE)
def test_what_may_get_better_says_what_happened_and_where(case: str) -> None:
    error, reason, problem, hint = TROUBLE[case]
    told = ingestion.StoreError.of(error, PLACE)
    assert told is not None
    assert (str(told), told.reason, told.lasting) == (f"{problem}\n\nhint: {hint}", reason, False)


def asked(error: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[int, ingestion.StoreError]:
    """How often a store that fails so is asked, and what is raised in the end."""
    monkeypatch.setattr("alignment.location.time.sleep", lambda _: None)
    times = 0

    def ask() -> None:
        nonlocal times
        times += 1
        raise error

    with pytest.raises(ingestion.StoreError) as caught:
        Location.of(PLACE).patiently(ask)
    assert caught.value.__cause__ is error
    return times, caught.value


@pytest.mark.parametrize("case", SAID)
def test_what_cannot_get_better_is_asked_once(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(SAID[case][0], monkeypatch)[0] == 1


def test_a_store_that_is_out_of_reach_is_asked_again_before_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times, told = asked(DOWN, monkeypatch)
    assert (times, told.reason) == (5, "out of reach")
    monkeypatch.setattr(location, "PATIENCE_S", -1.0)  # as if the client had held it up for longer
    assert asked(DOWN, monkeypatch)[0] == 1


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("s3://bucket/logs?X-Amz-Signature=topsecret", "holds a query, what comes after its question mark"),
        ("s3://topsecret@bucket/logs", "holds a user or a password"),
        ("s3://", "names no bucket"),
        ("s3:///logs", "names no bucket"),
        ("s3:/bucket/logs", "has one slash after its colon, or none, and two are needed"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_and_not_repeated(address: str, fault: str) -> None:
    asks: list[tuple[type[Exception], Callable[[], object]]] = [
        (ingestion.AddressError, lambda: ingestion.open_log(address, "mast")),
        (ingestion.AddressError, lambda: ingestion.create_log(address, "mast", entities=[])),
        (ingestion.AddressError, lambda: ingestion.list_logs(address)),
        (alignment.AddressError, lambda: location.Location.of(address)),
    ]
    for kind, ask in asks:
        with pytest.raises(kind) as caught:
            ask()
        assert str(caught.value) == (
            f"the address {fault}\n\n"
            "hint: write s3://bucket/prefix; credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY."
        )


def test_a_folder_whose_name_delta_would_read_as_another_is_refused(tmp_path: Path) -> None:
    asks: list[Callable[[], object]] = [
        lambda: ingestion.create_log(tmp_path / "a%20b", "mast", entities=[]),
        lambda: ingestion.open_log(tmp_path / "a%20b", "mast"),
    ]
    for ask in asks:
        with pytest.raises(ingestion.DefinitionError) as caught:
            ask()
        assert str(caught.value) == (
            f"the folder '{tmp_path}/a%20b' has '%20' in its name, which Delta reads as another character\n\n"
            "hint: name a folder whose path has no '%' before two digits or letters A to F."
        )
    assert list(tmp_path.iterdir()) == []
    assert ingestion.create_log(tmp_path / "100% sure", "mast", entities=[]).position() == -1
    assert ingestion.list_logs(tmp_path / "100% sure") == ["mast"]


def test_without_an_address_the_bucket_is_taken_from_the_error() -> None:
    told = fault_of(PermissionError(BY_POLARS.format(GET, XML.format("AccessDenied"))))
    assert told is not None
    assert told.problem == "the store of 's3://b-3fef14699d4b' does not allow that with these keys (AccessDenied)"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(
            "Object at location logs/x not found\n  Error performing HEAD http://h/b/logs/x - 404 Not Found"
        ),
        TableNotFoundError("no log files: Generic S3 error"),
        OSError(28, "No space left on device"),
        ValueError("403 Forbidden"),
    ],
    ids=["no file", "no table", "the disk", "something else"],
)
def test_what_is_no_fault_of_the_store_stays_as_it_is(error: Exception) -> None:
    assert fault_of(error, PLACE) is None
    assert ingestion.StoreError.of(error, PLACE) is None
