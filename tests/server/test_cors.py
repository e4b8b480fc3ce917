"""Pages from other origins: the requests that a browser allows, and the responses that they can read."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import needs_browser, run_browser
from conftest import TEXTS
from serving import Serve, Server
from test_connection import connect, read_to_end

from edgetune.cli import cli
from edgetune_runtime import Engine

APP = "https://app.example.org"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def server(server_bundle: Path, serve: Serve, site: str) -> Iterator[Server]:
    """A server that requires a key and allows two origins."""
    with serve(
        server_bundle, "--cors-origin", f"{APP.upper()}:443/", "--cors-origin", site, env={"EDGETUNE_API_KEY": "one"}
    ) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a web server with an empty page."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_a_preflight_needs_no_key(client: httpx.Client) -> None:
    for path in ("/classify", "/v1/models", "/v2/models/colour/infer", "/nothing"):
        answer = client.options(path, headers={"origin": APP, **PREFLIGHT})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == APP
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert int(answer.headers["access-control-max-age"]) > 0
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_of_another_origin_is_refused(client: httpx.Client) -> None:
    for origin in ("https://evil.example.org", f"{APP}:8443", "http://app.example.org", "null"):
        answer = client.options("/classify", headers={"origin": origin, **PREFLIGHT})
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers


REQUESTS: dict[str, tuple[dict[str, Any], int]] = {
    "an answer": ({"json": {"model": "colour", "input": "good"}}, 200),
    "no key": ({"json": {"model": "colour", "input": "good"}, "headers": {}}, 401),
    "no task": ({"json": {"model": "none", "input": "good"}}, 404),
    "no path": ({"url": "/nothing"}, 404),
    "another method": ({"method": "PUT"}, 405),
    "too much": ({"json": {"model": "colour", "input": ["good"] * 257}}, 413),
    "no message": ({"json": {}}, 422),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("origin", [APP, "https://evil.example.org"])
def test_answers_and_refusals_can_be_read_by_who_is_let_in(client: httpx.Client, name: str, origin: str) -> None:
    changes, status = REQUESTS[name]
    request = {"method": "POST", "url": "/classify", "headers": {"authorization": "Bearer one"}} | changes
    answer = client.request(**request | {"headers": request["headers"] | {"origin": origin}})
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (APP if origin == APP else None)
    assert "Origin" in answer.headers["vary"]


def test_while_it_stops_refusals_can_be_read_too(server_bundle: Path, serve: Serve) -> None:
    with serve(server_bundle, "--cors-origin", "*", "--drain-seconds", "5") as server, server.client() as client:
        answer = client.get("/v1/models", headers={"origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        server.process.terminate()
        while client.get("/health").status_code == 200:
            pass
        answer = client.get("/v1/models", headers={"origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, "*")


def test_what_is_refused_before_it_is_http_can_be_read(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\norigin: " + APP.encode() + b"\r\nx: " + b"y" * 20_000 + b"\r\n\r\n")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"\r\naccess-control-allow-origin: *\r\n" in answer


def test_off_unless_asked_for(server_bundle: Path, serve: Serve) -> None:
    with serve(server_bundle) as server, server.client() as client:
        assert client.options("/classify", headers={"origin": APP, **PREFLIGHT}).status_code == 405
        answer = client.get("/v1/models", headers={"origin": APP})
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origin", ["app.example.org", f"{APP}/page", f"{APP}?x", "https://", "https://grün.de", ""])
def test_what_is_no_origin_is_wrong_usage(server_bundle: Path, origin: str) -> None:
    from click.testing import CliRunner

    found = CliRunner().invoke(cli, ["serve", str(server_bundle), "--cors-origin", origin])
    assert (found.exit_code, "is not an origin" in found.output) == (2, True)


FETCH = """
const [url, key, body, done] = arguments;
const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
fetch(url, { method: "POST", headers, body: JSON.stringify(body) })
  .then(async (answer) => done([answer.status, await answer.json(), answer.headers.get("server-timing")]))
  .catch((error) => done([0, String(error), null]));
"""


@needs_browser
def test_a_page_of_another_origin_asks_in_a_browser(
    server: Server, server_bundle: Path, serve: Serve, site: str, tmp_path: Path
) -> None:
    question = {"model": "colour", "input": TEXTS}
    with run_browser(tmp_path / "profile") as driver, serve(server_bundle) as closed:
        driver.get(site)
        status, answer, timing = driver.execute_async_script(FETCH, f"{server.url}/classify", "one", question)
        with Engine(server_bundle, threads=1) as engine:
            expected = [result.label for result in engine.classify(TEXTS, task="colour")]
        assert (status, [row["label"] for row in answer["data"]]) == (200, expected)
        assert "queue;dur=" in timing
        for key, asked, expected_status in (("", question, 401), ("one", {"model": "none", "input": ""}, 404)):
            status, answer, _ = driver.execute_async_script(FETCH, f"{server.url}/classify", key, asked)
            assert (status, set(answer)) == (expected_status, {"error"})
        status, failure, _ = driver.execute_async_script(FETCH, f"{closed.url}/classify", "", question)
        assert (status, "Failed to fetch" in failure) == (0, True)
