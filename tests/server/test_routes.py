"""What each route answers, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import TEXTS

from edgetune_runtime import Bundle, Engine


@pytest.fixture(scope="module")
def engine(server_bundle: Path) -> Iterator[Engine]:
    with Engine(server_bundle, threads=2) as engine:
        yield engine


def infer(client: httpx.Client, task: str, texts: list[str], **more: Any) -> httpx.Response:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return client.post(f"/v2/models/{task}/infer", json={"inputs": [tensor], **more})


@pytest.mark.parametrize("task", ["colour", "size"])
def test_classify_answers_as_the_engine_does(client: httpx.Client, engine: Engine, task: str) -> None:
    answer = client.post("/v1/classify", json={"model": task, "input": TEXTS}).json()
    expected = engine.classify(TEXTS, task=task)
    assert [row["label"] for row in answer["data"]] == [result.label for result in expected]
    assert [row["probs"] for row in answer["data"]] == [list(result.scores.values()) for result in expected]
    assert [row["index"] for row in answer["data"]] == list(range(len(TEXTS)))
    assert {row["num_classes"] for row in answer["data"]} == {len(engine.task(task).labels)}
    tokens = sum(len(row.ids) for row in engine.encode(TEXTS, [engine.task(task)] * len(TEXTS)))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    assert (answer["object"], answer["model"]) == ("list", task)


def test_classify_takes_one_text(client: httpx.Client, engine: Engine) -> None:
    answer = client.post("/v1/classify", json={"model": "size", "input": TEXTS[0]})
    assert [row["label"] for row in answer.json()["data"]] == [engine.classify(TEXTS[:1], task="size")[0].label]
    assert {part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")} == {"queue", "run"}


def test_classify_abstains(client: httpx.Client) -> None:
    (row,) = client.post("/v1/classify", json={"model": "colour", "input": TEXTS[0], "min_score": 1}).json()["data"]
    assert (row["label"], row["status"]) == (None, "abstained")


def test_a_long_text_is_truncated(client: httpx.Client) -> None:
    (row,) = client.post("/v1/classify", json={"model": "colour", "input": "good " * 300}).json()["data"]
    assert row["status"] == "truncated"


@pytest.mark.parametrize("task", ["colour", "size"])
def test_infer_answers_as_the_engine_does(client: httpx.Client, engine: Engine, task: str) -> None:
    answer = infer(client, task, TEXTS, id="seven").json()
    expected = engine.classify(TEXTS, task=task)
    label, scores = answer["outputs"]
    labels = len(engine.task(task).labels)
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [len(TEXTS)])
    assert label["data"] == [result.best for result in expected]
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("scores", "FP32", [len(TEXTS), labels])
    np.testing.assert_array_equal(
        np.reshape(scores["data"], scores["shape"]), [list(result.scores.values()) for result in expected]
    )
    assert (answer["model_name"], answer["id"]) == (task, "seven")
    assert answer["model_version"] == engine.task(task).sha256


def test_infer_gives_the_outputs_that_are_asked_for(client: httpx.Client) -> None:
    answer = infer(client, "size", TEXTS[:1], outputs=[{"name": "scores"}]).json()
    assert [output["name"] for output in answer["outputs"]] == ["scores"]
    assert "id" not in answer


def test_versions_are_the_digests_of_the_files(client: httpx.Client, server_bundle: Path) -> None:
    import hashlib

    version = hashlib.sha256((server_bundle / "tasks" / "colour.safetensors").read_bytes()).hexdigest()
    metadata = client.get("/v2/models/colour").json()
    assert metadata["versions"] == [version]
    assert metadata["labels"] == ["label0", "label1", "label2"]
    assert metadata["outputs"][1] == {"name": "scores", "datatype": "FP32", "shape": [-1, 3]}
    assert client.get(f"/v2/models/colour/versions/{version}").json() == metadata
    assert client.get(f"/v2/models/colour/versions/{version}/ready").json() == {"name": "colour", "ready": True}
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]}
    assert client.post(f"/v2/models/colour/versions/{version}/infer", json=body).status_code == 200
    assert client.post("/v2/models/colour/versions/1/infer", json=body).status_code == 404


def test_what_there_is(client: httpx.Client, server_bundle: Path) -> None:
    tasks = {name: Bundle(server_bundle).load_task(name) for name in ("colour", "size")}
    listed = client.get("/tasks").json()["tasks"]
    assert [(one["task"], one["version"]) for one in listed] == [(name, t.sha256) for name, t in tasks.items()]
    index = client.post("/v2/repository/index").json()
    assert index == [{"name": name, "version": task.sha256, "state": "READY"} for name, task in tasks.items()]
    assert client.get("/v2").json()["name"] == "edgetune"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/size/ready").json() == {"name": "size", "ready": True}


def classify(**body: Any) -> dict[str, Any]:
    return {"url": "/v1/classify", "json": body}


def tensor(**changes: Any) -> dict[str, Any]:
    sound = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
    return {"url": "/v2/models/size/infer", "json": {"inputs": [{**sound, **changes}]}}


def raw(content: bytes, kind: str = "application/json") -> dict[str, Any]:
    return {"url": "/v1/classify", "content": content, "headers": {"content-type": kind}}


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown model": (classify(model="colours", input="good"), 404, "no task 'colours'"),
    "unknown task": (tensor() | {"url": "/v2/models/x/infer"}, 404, "no task 'x'"),
    "a path for a task": (tensor() | {"url": "/v2/models/..%2f..%2fetc%2fpasswd/infer"}, 404, ""),
    "a line's end in a path": ({"url": "/page.js%0A"}, 404, "nothing at this path"),
    "unknown path": ({"url": "/v1/classify/"}, 404, "nothing at this path"),
    "no input": (classify(model="size"), 422, "`input`"),
    "no texts": (classify(model="size", input=[]), 422, "at least one"),
    "numbers": (classify(model="size", input=[1]), 422, "Expected `str`"),
    "null": (classify(model="size", input=None), 422, "Expected"),
    "min_score": (classify(model="size", input="good", min_score=2), 422, "from 0 to 1"),
    "too many texts": (classify(model="size", input=["good"] * 257), 413, "at most 256"),
    "too long a text": (classify(model="size", input="x" * 20_001), 413, "at most 20000"),
    "two inputs": ({"url": tensor()["url"], "json": {"inputs": tensor()["json"]["inputs"] * 2}}, 422, "2 inputs"),
    "another input": (tensor(name="texts"), 422, "'text', 'BYTES'"),
    "another type": (tensor(datatype="FP32"), 422, "'text', 'BYTES'"),
    "another shape": (tensor(shape=[2]), 422, "shape [2] for 1 texts"),
    "two dimensions": (tensor(shape=[1, 1]), 422, "shape [1, 1]"),
    "another output": (tensor() | {"json": tensor()["json"] | {"outputs": [{"name": "logits"}]}}, 422, "'logits'"),
    "an output twice": (tensor() | {"json": tensor()["json"] | {"outputs": [{"name": "label"}] * 2}}, 422, "once"),
    "not JSON": (raw(b"{"), 400, "not JSON"),
    "empty": (raw(b""), 400, "not JSON"),
    "not UTF-8": (raw(b'{"model": "size", "input": "\xff"}'), 400, "not JSON"),
    "half of a pair": (raw(rb'{"model": "size", "input": "\ud800"}'), 400, "not JSON"),
    "deep": (raw(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 400, "nested too deeply"),
    "NaN": (raw(b'{"model": "size", "input": "good", "min_score": NaN}'), 400, "not JSON"),
    "a huge number": (raw(b'{"model": "size", "input": "good", "min_score": 1e999}'), 422, ""),
    "a form": (raw(b"model=size", "application/x-www-form-urlencoded"), 415, "application/json"),
    "too large": (raw(b" " * 8_000_001), 413, "at most 8000000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(client: httpx.Client, name: str) -> None:
    request, status, why = REFUSED[name]
    answer = client.post(**request)
    assert answer.status_code == status, answer.text
    assert why in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_another_method(client: httpx.Client) -> None:
    answer = client.put("/tasks")
    assert (answer.status_code, answer.json()) == (405, {"error": "PUT is not for this path: expected GET, HEAD"})


def test_a_chunked_body_is_bounded(client: httpx.Client) -> None:
    chunks = (b" " * 1_000_000 for _ in range(20))
    answer = client.post("/v1/classify", content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_metrics_count(client: httpx.Client) -> None:
    def metrics() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    before = metrics()
    assert client.post("/v1/classify", json={"model": "size", "input": TEXTS}).status_code == 200
    assert client.post("/v1/classify", json={"model": "none", "input": TEXTS}).status_code == 404
    after = metrics()
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    assert grown['edgetune_requests_total{route="classify",status="200"}'] == 1
    assert grown['edgetune_failures_total{reason="not_found"}'] == 1
    assert grown["edgetune_rows_total"] == grown["edgetune_batch_rows_sum"] == len(TEXTS)
    assert grown["edgetune_tokens_total"] == grown["edgetune_batch_tokens_sum"] > len(TEXTS)
    assert grown["edgetune_queue_seconds_count"] == grown["edgetune_inference_seconds_count"] == len(TEXTS)
    assert after["edgetune_queue_rows"] == 0


def test_openapi_describes_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for path in document["paths"]:
        filled = path.replace("{task}", "colour").replace("{version}", "1")
        assert client.get(filled).status_code != 404 or "version" in path, path
    assert json.dumps(document).count("$ref") > 10
    schema = document["components"]["schemas"]["ClassifyRequest"]["properties"]
    assert schema["input"]["anyOf"][1]["maxItems"] == 256
