"""A real S3-compatible server for tests: Ceph's object gateway over a cluster of one monitor and one disk file, on the loopback."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from services import Server, program

KEY, SECRET = "AKIATESTONLY", "not-a-secret-9f2c71d0e4"
CONFIG = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{monitor}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/keyring
auth_allow_insecure_global_id_reclaim = false
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/gateway
run_dir = {folder}
admin_socket = {folder}/$name.$pid.asok
log_file = {folder}/$name.log
mon_cluster_log_file = {folder}/cluster.log
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_memory_target = 939524096
bluestore_block_size = 8589934592
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
rgw_num_rados_handles = 1
rgw_thread_pool_size = 64
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
"""


class ObjectStore:
    """Buckets over HTTP: signed requests, conditional puts, multipart, a disk below; what it was told is there after a restart.

    Args:
        folder: Where it keeps everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs = {
            name: program(name, package=package)
            for name, package in (
                ("ceph", "ceph-common"),
                ("ceph-authtool", "ceph-common"),
                ("ceph-mon", "ceph-mon"),
                ("ceph-osd", "ceph-osd"),
                ("radosgw", "radosgw"),
                ("radosgw-admin", "radosgw"),
            )
        }
        self._config = folder / "ceph.conf"
        self._monitor, self._disk, self._gateway = (
            Server(self._daemon(name, who), self._own(name), ready=lambda _: True)
            for name, who in (("ceph-mon", "a"), ("ceph-osd", "0"), ("radosgw", ""))
        )
        self.port = self._gateway.port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _own(self, name: str) -> Path:
        own = self.folder / f"run-{name}"
        own.mkdir()
        return own

    def _daemon(self, name: str, who: str) -> Callable[[int], list[str]]:
        own = ["-n", "client.admin"] if name == "radosgw" else ["-i", who]
        return lambda _: [self._programs[name], "-c", str(self._config), *own, "-f"]

    def _run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._programs[name], *arguments], capture_output=True, text=True, timeout=60, cwd=self.folder, check=False
        )
        assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def start(self) -> ObjectStore:
        """Make the cluster and its one user; takes some seconds."""
        disk = str(uuid.uuid4())
        for place in ("mon", "osd", "gateway"):
            (self.folder / place).mkdir()
        self._config.write_text(
            CONFIG.format(folder=self.folder, fsid=uuid.uuid4(), monitor=self._monitor.port, gateway=self.port)
        )
        keyring = str(self.folder / "keyring")
        everything = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"]
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "osd.0", *everything)
        config, monitor = ["-c", str(self._config)], f"v2:127.0.0.1:{self._monitor.port}"
        self._run("ceph-mon", *config, "--mkfs", "--keyring", keyring, "-i", "a", "--public-addr", monitor)
        self._monitor.start()
        self._run("ceph", *config, "osd", "new", disk)
        self._run("ceph-osd", *config, "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._disk.launch()
        self._gateway.start(60)
        self._run(
            "radosgw-admin", *config, "user", "create", "--uid=tests", "--display-name=tests",
            f"--access-key={KEY}", f"--secret-key={SECRET}",
        )  # fmt: skip
        return self

    def stop(self) -> None:
        for server in (self._gateway, self._disk, self._monitor):
            server.stop()

    def restart_gateway(self, *, killed: bool = False) -> None:
        self._gateway.restart(killed=killed)

    def bucket(self) -> str:
        """A new bucket."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        status, said = self.request("PUT", f"/{name}")
        assert status == 200, said
        return name

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a process needs to know of the store, and all it gets."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """One signed request: the status and the text of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        signed = sign(method, path, body, {"host": f"127.0.0.1:{self.port}", **(headers or {})})
        connection.request(method, path, body=body, headers=signed)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, text


def sign(method: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, str]:
    """Headers with those of AWS's signature, version 4; the path has no query."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {**headers, "x-amz-date": now, "x-amz-content-sha256": digest}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    asked = hashlib.sha256(f"{method}\n{path}\n\n{lines}\n{names}\n{digest}".encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{asked}".encode(), hashlib.sha256).hexdigest()
    credential = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": credential}


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A store; tests make buckets of their own."""
    # Not in pytest's own folder: the paths of Ceph's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="asknown-ceph-", ignore_cleanup_errors=True) as folder:
        store = ObjectStore(Path(folder))
        try:
            yield store.start()
        finally:
            store.stop()


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The way to the store, in this process's environment, on which a test may let requests and answers be lost."""
    with FaultyProxy(object_store.port) as proxy:
        for name, value in object_store.environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        yield proxy
