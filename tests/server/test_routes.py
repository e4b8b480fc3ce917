"""The answers of each route, over real HTTP."""

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
    "no model": (classify(input="good"), 422, "there are 2 tasks"),
    "token ids": (classify(model="size", input=[1, 2]), 422, "token ids"),
    "token ids of texts": (classify(model="size", input=[[1], [2]]), 422, "token ids"),
    "text and token ids": (classify(model="size", input=["good", [2]]), 422, "token ids"),
    "truth": (classify(model="size", input=[True]), 422, "Expected"),
    "a chat": (classify(model="size", messages=[{"role": "user", "content": "good"}]), 422, "send the text as 'input'"),
    "logits": (classify(model="size", input="good", use_activation=False), 422, "use_activation is false"),
    "softmax": (classify(model="size", input="good", softmax=False), 422, "softmax is false"),
    "activation": (classify(model="size", input="good", activation=False), 422, "activation is false"),
    "no special tokens": (classify(model="size", input="good", add_special_tokens=False), 422, "always added"),
    "cut earlier": (classify(model="size", input="good", truncate_prompt_tokens=8), 422, "reads 256 tokens"),
    "cut at its begin": (classify(model="size", input="good", truncation_side="left"), 422, "at its end"),
    "padded": (classify(model="size", input="good", padding="max_length"), 422, "never padded"),
    "pictures": (classify(model="size", input="good", mm_processor_kwargs={"x": 1}), 422, "only text"),
    "null": (classify(model="size", input=None), 422, "Expected"),
    "min_score": (classify(model="size", input="good", min_score=2), 422, "from 0 to 1"),
    "too many texts": (classify(model="size", input=["good"] * 257), 413, "at most 256"),
    "too long a text": (classify(model="size", input="x" * 20_001), 413, "at most 20000"),
    "two inputs": ({"url": tensor()["url"], "json": {"inputs": tensor()["json"]["inputs"] * 2}}, 422, "2 inputs"),
    "another input": (tensor(name="texts"), 422, "'text', 'BYTES'"),
    "another type": (tensor(datatype="FP32"), 422, "'text', 'BYTES'"),
    "another shape": (tensor(shape=[2]), 422, "shape [2] for 1 texts"),
    "columns": (tensor(shape=[1, 2], data=["good", "bad"]), 422, "expected [2] or [2, 1]"),
    "three dimensions": (tensor(shape=[1, 1, 1]), 422, "expected [1] or [1, 1]"),
    "no data": (tensor(data=None), 422, "no data"),
    "shared memory": (tensor(parameters={"shared_memory_region": "x"}), 422, "no shared memory"),
    "Triton's classes": (
        tensor() | {"json": tensor()["json"] | {"outputs": [{"name": "scores", "parameters": {"classification": 2}}]}},
        422,
        "'classification'",
    ),
    "compressed": (
        {**raw(b"x", "application/json"), "headers": {"content-type": "application/json", "content-encoding": "gzip"}},
        415,
        "compressed (gzip)",
    ),
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


HARMLESS = {
    "user": "somebody",
    "priority": 3,
    "cache_salt": "salt",
    "add_special_tokens": True,
    "softmax": True,
    "activation": None,
    "use_activation": True,
    "truncate_prompt_tokens": -1,
    "truncation_side": "right",
    "padding": "do_not_pad",
    "mm_processor_kwargs": None,
    "whatever_comes_next": [1],
}
"""vLLM's fields that ask for the default behaviour, or do not affect the answer."""


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_what_clients_of_vllm_send(client: httpx.Client, engine: Engine, path: str) -> None:
    body = {"model": "colour", "input": TEXTS, "request_id": "seven"}
    answers = [client.post(path, json=body | more).json() for more in ({}, HARMLESS)]
    assert [answer["id"] for answer in answers] == ["classify-seven"] * 2
    assert answers[0]["data"] == answers[1]["data"]
    assert [row["label"] for row in answers[0]["data"]] == [row.label for row in engine.classify(TEXTS, task="colour")]
    assert all(set(row) == {"index", "label", "probs", "num_classes", "status"} for row in answers[0]["data"])


def test_tasks_as_openai_lists_models(client: httpx.Client, server_bundle: Path) -> None:
    listed = client.get("/v1/models").json()
    base = Bundle(server_bundle).manifest.facts.name
    assert listed["object"] == "list"
    assert [(one["id"], one["object"], one["root"]) for one in listed["data"]] == [
        ("colour", "model", base),
        ("size", "model", base),
    ]
    assert all(one["max_model_len"] == 256 and one["created"] > 0 for one in listed["data"])
    assert client.get("/v1/models/size").json()["id"] == "size"
    assert client.get("/v1/models/none").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")])
def test_health_is_a_status_and_no_body(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_version(client: httpx.Client) -> None:
    assert client.get("/version").json() == {"version": client.get("/v2").json()["version"]}


@pytest.mark.parametrize("shape", [[8], [8, 1]])
@pytest.mark.parametrize("nested", [False, True])
def test_infer_takes_both_shapes(client: httpx.Client, shape: list[int], nested: bool) -> None:
    data = [[text] for text in TEXTS] if nested else TEXTS
    tensor = {"name": "text", "shape": shape, "datatype": "BYTES", "data": data, "parameters": {"content_type": "str"}}
    answer = client.post("/v2/models/size/infer", json={"inputs": [tensor]}).json()
    expected = infer(client, "size", TEXTS).json()
    assert [output["data"] for output in answer["outputs"]] == [output["data"] for output in expected["outputs"]]
    assert [output["shape"] for output in answer["outputs"]] == [shape, [8, 2]]


def as_bytes(texts: list[bytes]) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def binary(client: httpx.Client, tail: bytes, size: object, shape: list[int], **more: Any) -> httpx.Response:
    """A request like Triton's clients': without a content type, with the tensor after the JSON."""
    tensor = {"name": "text", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return client.post("/v2/models/size/infer", content=head + tail, headers=headers)


@pytest.mark.parametrize("wanted", ["all", "scores", "none"])
def test_infer_speaks_tritons_binary_tensors(client: httpx.Client, wanted: str) -> None:
    texts = ["", "größe 😀", *TEXTS]
    tail = as_bytes([text.encode() for text in texts])
    more: dict[str, dict[str, Any]] = {
        "all": {"parameters": {"binary_data_output": True}},
        "scores": {"outputs": [{"name": "label"}, {"name": "scores", "parameters": {"binary_data": True}}]},
        "none": {},
    }
    answer = binary(client, tail, len(tail), [len(texts)], **more[wanted])
    label, scores = infer(client, "size", texts).json()["outputs"]
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    head, rest = json.loads(answer.content[:length]), answer.content[length:]
    assert ("octet-stream" in answer.headers["content-type"]) == (wanted != "none")
    packed = {"label": as_bytes([one.encode() for one in label["data"]])}
    packed["scores"] = np.array(scores["data"], "<f4").tobytes()
    for output, expected in zip(head["outputs"], (label, scores), strict=True):
        assert (output["name"], output["shape"]) == (expected["name"], expected["shape"])
        if wanted in ("all", output["name"]):
            size = output["parameters"]["binary_data_size"]
            assert (rest[:size], output.get("data")) == (packed[output["name"]], None)
            rest = rest[size:]
        else:
            assert output["data"] == expected["data"]
    assert rest == b""


GOOD = as_bytes([b"good"])
BINARY_REFUSED = {
    "too few bytes": (GOOD[:-1], len(GOOD), 400, "7 bytes"),
    "too many bytes": (GOOD + b"x", len(GOOD), 400, "9 bytes"),
    "a text that goes on": (b"\xff\0\0\0good", 8, 400, "end within a text"),
    "half of a length": (GOOD + b"\1\0", 10, 400, "end within a text"),
    "not UTF-8": (as_bytes([b"\xff"]), 5, 422, "not UTF-8"),
    "another number": (GOOD * 2, 16, 422, "expected [2] or [2, 1]"),
    "no number": (GOOD, "eight", 400, "8 bytes"),
}


@pytest.mark.parametrize("name", BINARY_REFUSED)
def test_binary_tensors_that_are_not_sound_are_refused(client: httpx.Client, name: str) -> None:
    tail, size, status, why = BINARY_REFUSED[name]
    answer = binary(client, tail, size, [1])
    assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize("length", ["-1", "x", "10000", "²"])
def test_a_length_of_the_json_that_cannot_be(client: httpx.Client, length: str) -> None:
    headers = {"inference-header-content-length": length.encode()}
    answer = client.post("/v2/models/size/infer", content=b"{}", headers=headers)
    assert (answer.status_code, "inference-header-content-length" in answer.json()["error"]) == (400, True)
