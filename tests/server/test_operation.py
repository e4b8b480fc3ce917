"""A server from start to stop: keys, task changes, logs, drain."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import TEXTS, MakeTask
from serving import Serve, Server

from edgetune_runtime import Bundle

QUESTION = {"model": "colour", "input": "good"}


@pytest.fixture
def own_bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keyed(server_bundle: Path, serve: Serve) -> Iterator[Server]:
    """A server that requires keys."""
    keys = {"EDGETUNE_API_KEY": "one two", "EDGETUNE_TASK_KEY": "three"}
    with serve(server_bundle, "--allow-task-changes", env=keys) as server:
        yield server


class TestKeys:
    @pytest.mark.parametrize("key", ["one", "two"])
    def test_each_key_is_taken(self, keyed: Server, key: str) -> None:
        answer = httpx.post(f"{keyed.url}/v1/classify", json=QUESTION, headers=bearer(key))
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "headers", [{}, bearer("three"), bearer("On"), {"authorization": "Basic one"}, bearer("ön")]
    )
    @pytest.mark.parametrize("path", ["/tasks", "/metrics", "/v2", "/v2/models/colour", "/nothing", "//tasks"])
    def test_nothing_is_told_without_one(self, keyed: Server, path: str, headers: dict[str, str]) -> None:
        sent = {name.encode(): value.encode() for name, value in headers.items()}
        answer = httpx.get(keyed.url + path, headers=sent)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "path", ["/", "/page.js", "/dom.js", "/transport.js", "/page.css", "/v2/health/live", "/v2/health/ready"]
    )
    def test_the_page_and_health_are_open(self, keyed: Server, path: str) -> None:
        assert httpx.get(keyed.url + path).status_code == 200

    @pytest.mark.parametrize("key", ["one", "two", "threes"])
    def test_a_task_is_not_changed_with_the_clients_key(self, keyed: Server, key: str) -> None:
        answer = httpx.post(f"{keyed.url}/v2/repository/models/colour/unload", headers=bearer(key))
        assert answer.status_code == 401
        assert httpx.post(f"{keyed.url}/v1/classify", json=QUESTION, headers=bearer("one")).status_code == 200


class TestTaskChanges:
    @pytest.fixture
    def changing(self, own_bundle: Path, serve: Serve) -> Iterator[httpx.Client]:
        with (
            serve(own_bundle, "--allow-task-changes", env={"EDGETUNE_TASK_KEY": "key"}) as server,
            server.client(headers=bearer("key")) as client,
        ):
            yield client

    def test_load_replace_unload(self, changing: httpx.Client, own_bundle: Path, make_task: MakeTask) -> None:
        for seed in (1, 2):
            task = make_task("whatever", seed=seed, labels=4)
            loaded = changing.post("/v2/repository/models/new/load", content=task.to_bytes()).json()
            stored = Bundle(own_bundle).load_task("new")
            assert loaded["version"] == stored.sha256 == task.renamed("new").sha256
            answer = changing.post("/v1/classify", json={"model": "new", "input": "good"}).json()
            assert answer["data"][0]["num_classes"] == 4
        assert changing.post("/v2/repository/models/new/unload").json() == {}
        assert changing.post("/v1/classify", json={"model": "new", "input": "good"}).status_code == 404
        assert changing.post("/v2/repository/models/new/unload").status_code == 404
        assert "new" not in Bundle(own_bundle).task_names()

    @pytest.mark.parametrize("name", ["..%2fx", ".hidden", "a" * 65, "a b"])
    def test_names_only(self, changing: httpx.Client, make_task: MakeTask, name: str) -> None:
        answer = changing.post(f"/v2/repository/models/{name}/load", content=make_task().to_bytes())
        assert answer.status_code in (404, 422)
        assert [one["task"] for one in changing.get("/tasks").json()["tasks"]] == ["colour", "size"]

    def test_a_bad_file_changes_nothing(self, changing: httpx.Client, own_bundle: Path, make_task: MakeTask) -> None:
        sound = make_task("colour").to_bytes()
        other = dataclasses.replace(make_task("colour"), backbone_sha256="0" * 64)
        before = (own_bundle / "tasks" / "colour.safetensors").read_bytes()
        for data in (b"", b"{}", sound[:-1], sound[:-4] + b"\0\0\0\1", other.to_bytes()):
            answer = changing.post("/v2/repository/models/colour/load", content=data)
            assert answer.status_code == 422, answer.text
        assert (own_bundle / "tasks" / "colour.safetensors").read_bytes() == before
        assert list((own_bundle / "tasks").glob(".*")) == []

    def test_off_unless_allowed(self, bundle_folder: Path, serve: Serve) -> None:
        with serve(bundle_folder) as server:
            answer = httpx.post(f"{server.url}/v2/repository/models/colour/unload")
        assert answer.status_code == 403
        assert answer.json()["error"] == "tasks cannot be changed: this server does not allow it"


def test_a_task_that_cannot_be_used_is_left_out_and_said(own_bundle: Path, serve: Serve) -> None:
    (own_bundle / "tasks" / "broken.safetensors").write_bytes(b"nothing")
    with serve(own_bundle) as server, server.client() as client:
        assert [one["task"] for one in client.get("/tasks").json()["tasks"]] == ["colour", "size"]
        (line,) = [json.loads(line) for line in server.said if "task_left_out" in line]
        assert "broken.safetensors" in line["error"]
        assert client.post("/v1/classify", json={"model": "broken", "input": "good"}).status_code == 404


def test_requests_are_logged_as_json_lines(own_bundle: Path, serve: Serve) -> None:
    with serve(own_bundle) as server, server.client() as client:
        client.post("/v1/classify", json={"model": "colour", "input": TEXTS})
        client.post("/v1/classify", json={"model": "none", "input": "secret text"})
        server.process.terminate()
        server.process.wait(30)
        time.sleep(0.2)
    lines = [json.loads(line) for line in server.said if line.startswith("{")]
    good, bad = [line for line in lines if line["logger"] == "edgetune.access"]
    assert {"rows": len(TEXTS), "task": "colour", "status": 200, "path": "/v1/classify"}.items() <= good.items()
    assert good["ms"] > 0
    assert (bad["status"], bad["reason"]) == (404, "not_found")
    assert "secret" not in "".join(server.said)


def test_on_sigterm_what_was_accepted_is_answered(own_bundle: Path, serve: Serve) -> None:
    statuses: list[int] = []
    over = threading.Event()

    def ask(url: str) -> None:
        body = {"model": "colour", "input": TEXTS * 5}
        while not over.is_set():
            try:
                statuses.append(httpx.post(f"{url}/v1/classify", json=body, timeout=60).status_code)
            except httpx.TransportError:  # nobody listens any more
                over.set()

    # The client is there before the signal, and the server listens long enough for a slow machine to ask.
    with serve(own_bundle, "--drain-seconds", "3") as server, server.client() as client:
        askers = [threading.Thread(target=ask, args=(server.url,)) for _ in range(4)]
        for asker in askers:
            asker.start()
        while statuses.count(200) < 20:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while client.get("/v2/health/ready").status_code == 200:
            time.sleep(0.01)
        refused = client.post("/v1/classify", json=QUESTION)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert client.get("/v2/health/live").status_code == 200
        assert server.process.wait(30) == 0
        over.set()
        for asker in askers:
            asker.join()
        time.sleep(0.2)  # for what it said last
    logged = [json.loads(line)["status"] for line in server.said if '"rows": 40' in line]
    assert statuses.count(200) == logged.count(200) > 0
    assert set(statuses) == {200, 503}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgetune", "serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_address_that_is_taken(bundle_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = run(str(bundle_folder), "--port", port)
    assert found.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_damaged_graph_ends_the_server(own_bundle: Path) -> None:
    graph = own_bundle / "onnx" / "model_int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    found = run(str(own_bundle), "--port", "0")
    assert found.returncode == 1
    assert "damaged" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("part", ["a graph", "the tokenizer"])
def test_what_does_not_pass_its_probe_is_not_served(own_bundle: Path, part: str) -> None:
    """Both match the manifest, so only running them shows the problem."""
    name = "onnx/model_int8.onnx" if part == "a graph" else "tokenizer.json"
    (own_bundle / name).write_bytes(b"{}")
    manifest = json.loads((own_bundle / "edgetune.json").read_bytes())
    manifest["files"][name] = hashlib.sha256(b"{}").hexdigest()
    (own_bundle / "edgetune.json").write_text(json.dumps(manifest))
    found = run(str(own_bundle), "--port", "0")
    assert found.returncode == 1
    assert "does not pass its probe" in found.stderr
    assert "Traceback" not in found.stderr


def test_task_changes_need_a_key(bundle_folder: Path) -> None:
    found = run(str(bundle_folder), "--allow-task-changes")
    assert (found.returncode, "EDGETUNE_TASK_KEY" in found.stderr) == (2, True)
