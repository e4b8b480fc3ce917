"""Misbehaving clients on a connection, byte by byte."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import Serve, Server

BODY = json.dumps({"model": "colour", "input": "good"}).encode()
HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
SOUND = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def strict(server_bundle: Path, serve: Serve) -> Iterator[Server]:
    """A server with short timeouts."""
    with serve(server_bundle, "--client-seconds", "0.5", "--max-connections", "8") as server:
        yield server


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_to_end(connection: socket.socket) -> bytes:
    found = b""
    try:
        while chunk := connection.recv(65536):
            found += chunk
    except ConnectionResetError:  # the server did not read all that was sent
        pass
    return found


def answer_to(server: Server, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Everything that is received, until the connection ends."""
    with connect(server) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause_s)
        return read_to_end(connection)


def counted(metrics: str, name: str) -> float:
    """The value of a metric; 0 if it was never counted."""
    return next((float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name)), 0.0)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


REFUSED = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "two lengths": (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
    "a length and chunks": (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a negative length": (HEAD + b"content-length: -1\r\n\r\n", 400),
    "a huge length": (HEAD + b"content-length: 99999999999999999999999\r\n\r\n", 400),
    "an unknown coding": (HEAD + b"transfer-encoding: gzip, chunked, x\r\n\r\n", 400),
    "a bad chunk": (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    "a NUL in a header": (b"GET / HTTP/1.1\r\nhost: x\0y\r\n\r\n", 400),
    "bytes in the path": (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a large body": (HEAD + b"content-length: 8000001\r\n\r\n", 413),
    "one long header": (b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", 431),
    "an endless header": (b"GET / HTTP/1.1\r\nx: " + b"y" * 2_000_000, 431),
    "an upgrade": (
        HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 24\r\n\r\nGET /tasks HTTP/1.1\r\n\r\n",
        400,
    ),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "an address without a path": (b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "an endless path": (b"GET /" + b"y" * 2_000_000, 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(strict: Server, name: str) -> None:
    sent, expected = REFUSED[name]
    answer = answer_to(strict, sent)
    if answer:  # a reset can outrun it, where much was sent
        assert status(answer) == expected, answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    else:
        assert len(sent) > 1_000_000
    assert httpx.post(
        f"{strict.url}/v1/classify", content=BODY, headers={"content-type": "application/json"}
    ).is_success


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"GET / HT"], 408),
        ([SOUND[:9], SOUND[9:20], SOUND[20:30], SOUND[30:40], SOUND[40:50]], 408),
        ([SOUND[:-5]], 408),
        ([SOUND[:-5], SOUND[-5:-4], SOUND[-4:-3]], 408),
        ([SOUND + b"GET /"], 200),
    ],
    ids=["a header", "a slow header", "a body", "a slow body", "a second header"],
)
def test_who_is_slow_is_cut_off(strict: Server, parts: list[bytes], expected: int) -> None:
    answer = answer_to(strict, *parts, pause_s=0.2)
    assert status(answer) == expected
    assert expected == 200 or b"connection: close" in answer


def test_who_sends_nothing_or_empty_lines_is_cut_off(strict: Server) -> None:
    assert answer_to(strict) == b""
    assert answer_to(strict, *[b"\r\n"] * 8, pause_s=0.1) == b""


def test_a_body_that_is_not_wanted_is_not_waited_for(strict: Server) -> None:
    answer = answer_to(strict, b"GET /tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
    assert status(answer) == 200


def test_connections_are_bounded(strict: Server) -> None:
    held = [connect(strict) for _ in range(8)]
    try:
        time.sleep(0.1)
        assert status(answer_to(strict, SOUND)) == 429
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.1)
    assert httpx.get(f"{strict.url}/tasks").status_code == 200


def test_requests_on_one_connection_are_answered_in_order(server: Server) -> None:
    other = SOUND.replace(b"/v1/classify", b"/v1/classifx")
    with connect(server) as connection:
        connection.sendall(SOUND + other + SOUND)
        found = b""
        while found.count(b"HTTP/1.1 ") < 3 and (chunk := connection.recv(65536)):
            found += chunk
    assert [status(b"x " + part) for part in found.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]


@pytest.mark.parametrize("sound", [1, 2, 3])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET http://x HTTP/1.1\r\n\r\n", 400),
    ],
    ids=["no HTTP", "a long header", "a bad chunk", "a bad address"],
)
def test_what_came_before_something_bad_is_answered_first(
    strict: Server, sound: int, bad: bytes, expected: int
) -> None:
    answers = answer_to(strict, SOUND * sound + bad).split(b"HTTP/1.1 ")[1:]
    assert [status(b"x " + answer) for answer in answers] == [200] * sound + [expected]
    assert "traceback" not in "".join(strict.said)


def test_who_goes_away_from_several_requests_leaves_no_error(strict: Server) -> None:
    for _ in range(20):
        with connect(strict) as connection:
            connection.sendall(SOUND * 5)
    time.sleep(0.2)
    assert "traceback" not in "".join(strict.said)


def test_requests_at_once_on_one_connection_are_bounded(strict: Server) -> None:
    answers = answer_to(strict, b"GET /tasks HTTP/1.1\r\n\r\n" * 1000).split(b"HTTP/1.1 ")[1:]
    assert [status(b"x " + answer) for answer in answers] == [200] * 9 + [429]


def test_who_does_not_read_is_cut_off(strict: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", strict.port))
        connection.settimeout(20)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(2000):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n" * 5)
                time.sleep(0.01)


def test_a_refusal_reaches_a_client_whose_body_comes_late(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD.replace(b"classify", b"classifx") + b"content-length: %d\r\n\r\n" % len(BODY))
        found = connection.recv(65536)
        assert status(found) == 404
        connection.sendall(BODY + SOUND)
        while b"HTTP/1.1 200 OK" not in found:
            chunk = connection.recv(65536)
            assert chunk
            found += chunk


def test_what_follows_a_chunked_body_is_no_header(server_bundle: Path, serve: Serve) -> None:
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n"
    with serve(server_bundle, env={"EDGETUNE_API_KEY": "key"}) as keyed, connect(keyed) as connection:
        connection.sendall(chunked + b"authorization: Bearer key\r\n\r\n")
        assert status(connection.recv(65536)) == 401


def test_a_chunked_body_is_read(server: Server) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    with connect(server) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert status(connection.recv(65536)) == 200


def test_who_goes_away_hinders_nobody(server: Server) -> None:
    texts = json.dumps({"model": "colour", "input": ["where is my parcel?"] * 200}).encode()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(texts) + texts

    def ended(metrics: str) -> tuple[float, float]:
        """Number of requests whose clients disconnected, and of answered requests."""
        name = 'edgetune_requests_total{route="classify",status="%d"}'
        return counted(metrics, name % 499), counted(metrics, name % 200)

    with server.client() as client:
        gone_before, answered_before = ended(client.get("/metrics").text)
    os.kill(server.process.pid, signal.SIGSTOP)  # so that each request and its end are read at once, on any machine
    try:
        for _ in range(10):
            with connect(server) as connection:
                connection.sendall(request)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    with server.client() as client:
        assert client.post("/v1/classify", json={"model": "colour", "input": "good"}).status_code == 200
        for _ in range(100):
            metrics = client.get("/metrics").text
            gone, answered = ended(metrics)
            if "edgetune_queue_rows 0.0" in metrics and gone + answered == gone_before + answered_before + 11:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(metrics)
    assert gone > gone_before  # a fast machine may answer some before it sees that their clients are gone
