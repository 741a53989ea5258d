"""A real InfluxDB for tests: the one of INFLUXDB_URL, an influxd started here, or a container; else the tests skip."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore

VERSION = "2.9.1"
MISSING = "InfluxDB 2 was not found: run `make servers`, or set INFLUXDB_URL, INFLUXDB_TOKEN and INFLUXDB_ORG"
START_ATTEMPTS = 3
START_TIMEOUT = 60.0
DOCKER_SOCKET = "/var/run/docker.sock"
# prctl(PR_SET_PDEATHSIG, SIGTERM), which outlives the exec
ENDS_WITH_ITS_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class InfluxServer:
    """A server, with a token that may do everything in ``org``."""

    url: str
    token: str = field(repr=False)
    org: str

    def store(self, bucket: str, **changes: str | float) -> InfluxMetricsStore:
        """A store on a bucket, with other arguments where ``changes`` has them."""
        arguments = {"url": self.url, "token": self.token, "org": self.org, "bucket": bucket, **changes}
        return InfluxMetricsStore(**arguments)  # type: ignore[arg-type]

    def request(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Call the server's API; its answer."""
        content = _call(method, self.url + path, self.token, body)
        return json.loads(content) if content else {}

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket and all that is in it."""
        found = self.request("GET", f"/api/v2/buckets?org={self.org}&name={name}")
        for bucket in found["buckets"]:  # type: ignore[attr-defined]
            self.request("DELETE", f"/api/v2/buckets/{bucket['id']}")


@contextmanager
def influx_server() -> Iterator[InfluxServer]:
    """The server that INFLUXDB_URL names, or one that runs meanwhile; skips the test where there is none."""
    url = os.environ.get("INFLUXDB_URL")
    binary = find_influxd()
    if url:
        org = os.environ.get("INFLUXDB_ORG") or "freeagentics"
        yield InfluxServer(url.rstrip("/"), os.environ.get("INFLUXDB_TOKEN", ""), org)
    elif binary:
        with running_influxd(binary) as server:
            yield server
    elif docker_runs():
        with running_container() as server:
            yield server
    else:
        pytest.skip(MISSING)


def find_influxd() -> str | None:
    """The influxd that `make servers` built, or one on the PATH."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("FREEAGENTICS_SERVERS") or f"{cache}/freeagentics-persistence/servers"
    built = Path(folder).expanduser() / f"influxd-v{VERSION}"
    return str(built) if os.access(built, os.X_OK) else shutil.which("influxd")


@contextmanager
def running_influxd(binary: str) -> Iterator[InfluxServer]:
    """A server on a free port of the loopback interface, with data that go when it stops."""
    with tempfile.TemporaryDirectory(prefix="influxd-", ignore_cleanup_errors=True) as folder:
        for attempt in range(1, START_ATTEMPTS + 1):
            port = free_port()  # another program may take it before the server does, hence the attempts
            process = start_influxd(binary, Path(folder) / str(attempt), port)
            try:
                if wait_until_ready(f"http://127.0.0.1:{port}", process):
                    yield set_up(f"http://127.0.0.1:{port}")
                    return
            finally:
                stop(process)
        pytest.fail(f"{binary} did not start: {(Path(folder) / str(attempt) / 'log').read_text()[-2000:]}")


def start_influxd(binary: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server that ends with this process, even where this one is killed."""
    folder.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFLUX")}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", ENDS_WITH_ITS_PARENT, binary),
                f"--http-bind-address=127.0.0.1:{port}",
                f"--bolt-path={folder / 'influxd.bolt'}",
                f"--sqlite-path={folder / 'influxd.sqlite'}",
                f"--engine-path={folder / 'engine'}",
                "--reporting-disabled",
                "--no-tasks",
                "--log-level=error",
            ],
            cwd=folder,
            env={**environment, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_until_ready(url: str, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Whether the server answers before its process ends or the time is up."""
    deadline = time.monotonic() + START_TIMEOUT
    while (process is None or process.poll() is None) and time.monotonic() < deadline:
        try:
            if json.loads(_call("GET", f"{url}/health"))["status"] == "pass":
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def set_up(url: str) -> InfluxServer:
    """Make the first user, organisation and token of a new server."""
    server = InfluxServer(url, secrets.token_hex(24), "freeagentics")
    first = {"username": "admin", "password": secrets.token_hex(12), "bucket": "first"}
    _call("POST", f"{url}/api/v2/setup", body={**first, "org": server.org, "token": server.token})
    return server


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force where it does not end by itself."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def docker_runs() -> bool:
    """Whether a Docker engine answers."""
    host = os.environ.get("DOCKER_HOST", f"unix://{DOCKER_SOCKET}")
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0


@contextmanager
def running_container() -> Iterator[InfluxServer]:
    """A server in a container."""
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(f"influxdb:{VERSION}").with_exposed_ports(8086)
    with container.with_env("INFLUXD_REPORTING_DISABLED", "true") as running:
        url = f"http://{running.get_container_host_ip()}:{running.get_exposed_port(8086)}"
        if not wait_until_ready(url):
            pytest.fail(f"InfluxDB in a container did not start: {running.get_logs()}")
        yield set_up(url)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _call(method: str, url: str, token: str = "", body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Token {token}"} if token else {})}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
    return content.decode()
