"""The log with a reader, without a reader, and with a reader again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from conftest import TEXTS
from serving import READY

from edgetune.stderr import PatientStream
from edgetune_runtime import Engine

if sys.platform == "win32":
    pytest.skip("pipes and signals as Unix has them", allow_module_level=True)

import fcntl

PIPE_BYTES = 4096
LONG = "/" + "x" * 15_000


def a_pipe() -> tuple[int, int]:
    """The two ends of a small pipe."""
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


def a_socket() -> tuple[int, int]:
    """Two sockets, as Node passes to its child processes, and systemd to its services."""
    reader, writer = socket.socketpair()
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_BYTES)
    return reader.detach(), writer.detach()


@dataclass
class Stalled:
    """A server whose stderr is not read."""

    url: str
    process: subprocess.Popen[bytes]
    reader: int
    threads: list[threading.Thread] = field(default_factory=list)

    def dropped(self) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith("edgetune_log_lines_dropped_total"))
        return float(value)

    def overflow(self) -> None:
        """Send so many requests that the log exceeds its memory limit."""
        with httpx.Client(base_url=self.url) as client:
            for _ in range(150):
                assert client.get(LONG).status_code == 404

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def stalled(bundle: Path, kind: Callable[[], tuple[int, int]]) -> Iterator[Stalled]:
    """A server whose stderr is read only until it is ready."""
    reader, writer = kind()
    command = [sys.executable, "-m", "edgetune", "serve", str(bundle), "--trust", "--port", "0", "--threads", "2"]
    process = subprocess.Popen([*command, "--drain-seconds", "0"], stderr=writer)
    os.close(writer)
    try:
        said = b""
        while not (found := READY.search(said.decode())):
            chunk = os.read(reader, 65_536)
            assert chunk, said
            said += chunk
        yield Stalled(found[1], process, reader)
    finally:
        process.kill()
        process.wait()
        os.close(reader)


@pytest.mark.parametrize("kind", [a_pipe, a_socket])
def test_answers_and_the_end_do_not_wait_for_a_reader(server_bundle: Path, kind: Callable[[], tuple[int, int]]) -> None:
    with Engine(server_bundle, threads=1) as engine:
        expected = [list(result.scores.values()) for result in engine.classify(TEXTS, task="colour")]
    with stalled(server_bundle, kind) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(200):
                rows = client.post("/classify", json={"model": "colour", "input": TEXTS}).json()["data"]
                assert [row["probs"] for row in rows] == expected
        server.overflow()
        assert server.dropped() > 0
        assert server.end() == 0


def test_a_reader_that_comes_back_is_told_what_it_missed(server_bundle: Path) -> None:
    with stalled(server_bundle, a_pipe) as server:
        server.overflow()
        assert server.dropped() > 0
        lines: list[bytes] = []
        with os.fdopen(os.dup(server.reader), "rb") as log:
            reading = threading.Thread(target=lines.extend, args=(log,), daemon=True)
            reading.start()
            while not any(b"log_lines_dropped" in line for line in list(lines)):
                time.sleep(0.01)
            dropped = server.dropped()
            assert server.end() == 0
            reading.join(30)
    told = [json.loads(line) for line in lines]
    (place,) = [place for place, line in enumerate(told) if line.get("event") == "log_lines_dropped"]
    assert (told[place]["lines"], told[place]["level"]) == (dropped, "warning")
    assert {line["path"] for line in told[:place]} == {LONG}
    assert [line["path"] for line in told[place + 1 :]] == ["/metrics"]
    assert place + dropped == 150 + 1  # with the first look at the metrics


def test_a_reader_that_went_away_is_not_missed(server_bundle: Path) -> None:
    with stalled(server_bundle, a_pipe) as server:
        os.dup2(os.open(os.devnull, os.O_RDONLY), server.reader)
        for _ in range(3):
            assert httpx.post(f"{server.url}/classify", json={"model": "size", "input": "good"}).status_code == 200
            time.sleep(0.05)
        assert 0 < server.dropped() <= 4
        assert server.end() == 0


def test_without_stderr_no_connection_takes_its_place(server_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"exec {sys.executable} -m edgetune serve {server_bundle} --trust --port {port} --threads 1 2>&- <&-"
    process = subprocess.Popen(["sh", "-c", command])
    try:
        while process.poll() is None:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/health").status_code in (200, 503)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        if Path("/proc").exists():
            for descriptor in (0, 2):
                assert Path(f"/proc/{process.pid}/fd/{descriptor}").readlink() == Path(os.devnull)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


NATIVE = """
import ctypes, sys
from edgetune.server.log import log_to_stderr
log_to_stderr(False)
written = ctypes.CDLL(None).write(2, b"x" * 10_000_000, 10_000_000)
print(written < 10_000_000, file=sys.stdout, flush=True)
raise SystemExit("and a note")
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="a pipe is opened anew by /proc")
@pytest.mark.parametrize("kind", [a_pipe, a_socket])
def test_libraries_that_write_to_stderr_themselves_do_not_wait_either(kind: Callable[[], tuple[int, int]]) -> None:
    reader, writer = kind()
    found = subprocess.run(
        [sys.executable, "-c", NATIVE], stderr=writer, stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(reader)
    os.close(writer)
    assert (found.stdout.strip(), found.returncode) == ("True", 1)


def test_the_pipe_of_others_stays_as_it_is() -> None:
    """Other processes that share the pipe still have blocking writes."""
    reader, writer = a_pipe()
    subprocess.run(
        [sys.executable, "-c", "from edgetune.server.log import log_to_stderr; log_to_stderr(False)"],
        stderr=writer,
        check=True,
    )
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_all_lines_come_in_the_order_of_their_threads() -> None:
    reader, writer = a_pipe()
    stream = PatientStream(writer, queue_bytes=10_000_000)
    lines: list[str] = []
    reading = threading.Thread(target=lines.extend, args=(os.fdopen(reader, encoding="utf-8"),))
    reading.start()

    def write(name: str) -> None:
        for number in range(1000):
            stream.write(f"{name} {number} größe\n")

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    stream.drain()
    os.close(writer)
    reading.join(30)
    for name in "abcd":
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name} {number} größe\n" for number in range(1000)]
