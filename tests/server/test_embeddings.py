"""`POST /v1/embeddings`: the engine's vectors in OpenAI's format, over real HTTP."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import BAD, HIDDEN, TEXTS, random_task
from serving import Serve, Server

from edgetune_runtime import Bundle, Engine
from edgetune_runtime.arrays import Array


@pytest.fixture(scope="module")
def server(server_bundle: Path, serve: Serve) -> Iterator[Server]:
    bundle = Bundle(server_bundle)
    bundle.add_task(dataclasses.replace(random_task(bundle, "alike", labels=1), kind_name="score", pairs=True))
    with serve(server_bundle) as server:
        yield server


@pytest.fixture(scope="module")
def engine(server_bundle: Path) -> Iterator[Engine]:
    with Engine(server_bundle, threads=2) as engine:
        yield engine


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/embeddings", json=body)


def vectors(answer: httpx.Response) -> Array:
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


def test_the_shape_is_openais(client: httpx.Client, engine: Engine) -> None:
    answer = ask(client, input=TEXTS, model="tiny-bert", user="somebody")
    tokens = sum(len(row.ids) for row in engine.encode(TEXTS, [engine.bare_task] * len(TEXTS)))
    body = answer.json()
    assert {key: body[key] for key in body if key != "data"} == {
        "object": "list",
        "model": "tiny-bert",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    assert [{key: row[key] for key in row if key != "embedding"} for row in body["data"]] == [
        {"object": "embedding", "index": place} for place in range(len(TEXTS))
    ]
    assert [len(row["embedding"]) for row in body["data"]] == [HIDDEN] * len(TEXTS)
    assert {part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")} == {"queue", "run"}


@pytest.mark.parametrize("model", [None, "tiny-bert", "colour", "size"])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_the_engines_to_the_bit(
    client: httpx.Client, engine: Engine, model: str | None, normalize: bool
) -> None:
    task = model if model in ("colour", "size") else None
    expected = engine.embed(TEXTS, task=task, normalize=normalize)
    answer = ask(client, input=TEXTS, model=model, normalize=normalize)
    np.testing.assert_array_equal(vectors(answer), expected)
    assert answer.json()["model"] == (model or "tiny-bert")


def test_vectors_have_length_1_unless_told_otherwise(client: httpx.Client, engine: Engine) -> None:
    np.testing.assert_allclose(np.linalg.norm(vectors(ask(client, input=TEXTS)), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors(ask(client, input=TEXTS)), engine.embed(TEXTS, normalize=True))


def test_one_text(client: httpx.Client) -> None:
    assert ask(client, input=TEXTS[0]).json() == ask(client, input=TEXTS[:1]).json()


def test_packed_as_openais_client_asks_for_it(client: httpx.Client) -> None:
    plain = vectors(ask(client, input=TEXTS, encoding_format="float"))
    rows = ask(client, input=TEXTS, encoding_format="base64").json()["data"]
    packed = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
    np.testing.assert_array_equal(packed, plain)


def test_what_asks_for_what_is_done_anyway(client: httpx.Client) -> None:
    body = {"model": None, "encoding_format": None, "dimensions": HIDDEN, "user": "x", "whatever_comes_next": [1]}
    assert ask(client, input=TEXTS, **body).json() == ask(client, input=TEXTS).json()


def test_a_task_called_like_the_backbone_is_meant_by_its_name(
    bundle_folder: Path, tmp_path: Path, serve: Serve
) -> None:
    import shutil

    bundle = Bundle(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    bundle.add_task(random_task(bundle, "tiny-bert", prefix=6))
    with serve(bundle.path) as server, server.client() as client, Engine(bundle) as engine:
        named, bare = (vectors(ask(client, input=TEXTS, model=model)) for model in ("tiny-bert", None))
        np.testing.assert_array_equal(named, engine.embed(TEXTS, task="tiny-bert", normalize=True))
        np.testing.assert_array_equal(bare, engine.embed(TEXTS, normalize=True))


def test_a_bundle_without_tasks_is_served(bundle_folder: Path, tmp_path: Path, serve: Serve) -> None:
    import shutil

    folder = shutil.copytree(bundle_folder, tmp_path / "bundle", ignore=shutil.ignore_patterns("tasks"))
    with serve(folder) as server, server.client() as client:
        assert vectors(ask(client, input="good")).shape == (1, HIDDEN)


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no input": ({}, 422, "`input`"),
    "no texts": ({"input": []}, 422, "no text came: expected at least one"),
    "token ids": ({"input": [1, 2]}, 422, "token ids came as 'input': expected texts"),
    "token ids of texts": ({"input": [[1, 2], [3]]}, 422, "token ids"),
    "texts and token ids": ({"input": ["good", [3]]}, 422, "token ids"),
    "an empty list as a text": ({"input": [[]]}, 422, "token ids"),
    "a pair": ({"input": [["good", "bad"]]}, 422, "Expected `int`"),
    "null": ({"input": None}, 422, "Expected"),
    "an unknown model": ({"input": "good", "model": "text-embedding-3-small"}, 404, "no task 'text-embedding-3-small'"),
    "several models": ({"input": "good", "model": ["colour", "size"]}, 422, "Expected"),
    "a task of pairs": ({"input": "good", "model": "alike"}, 400, "task 'alike' takes pairs of texts"),
    "fewer dimensions": (
        {"input": "good", "dimensions": 16},
        422,
        "dimensions is 16, and vectors of 'tiny-bert' have 32: leave it out",
    ),
    "another packing": ({"input": "good", "encoding_format": "hex"}, 422, "Invalid enum value 'hex'"),
    "too many": ({"input": ["good"] * 257}, 413, "257 texts came: expected at most 256"),
    "too long": ({"input": "x" * 20_001}, 413, "at most 20000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client: httpx.Client, case: str) -> None:
    body, status, why = REFUSED[case]
    answer = ask(client, **body)
    assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.text
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [(b"{", "application/json", 400), (b'{"input": "good"}', "text/plain", 415), (b"", "application/json", 400)],
)
def test_bodies_that_are_no_messages(client: httpx.Client, content: bytes, kind: str, status: int) -> None:
    answer = client.post("/v1/embeddings", content=content, headers={"content-type": kind})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_another_method(client: httpx.Client) -> None:
    assert client.get("/v1/embeddings").status_code == 405


def test_a_key_is_asked_for(server_bundle: Path, serve: Serve) -> None:
    with serve(server_bundle, env={"EDGETUNE_API_KEY": "key"}) as server, server.client() as client:
        assert ask(client, input="good").status_code == 401
        answer = client.post("/v1/embeddings", json={"input": "good"}, headers={"authorization": "Bearer key"})
        assert answer.status_code == 200


def test_a_bad_text_fails_the_request(poisoned: Path, serve: Serve) -> None:
    """The protocol has no status for one text."""
    with serve(poisoned) as server, server.client() as client:
        answer = ask(client, input=[*TEXTS, BAD])
        assert (answer.status_code, "gives the token id" in answer.json()["error"]) == (500, True)
        assert ask(client, input=TEXTS).status_code == 200


def test_it_is_counted_and_logged(client: httpx.Client, server: Server) -> None:
    def counted() -> dict[str, float]:
        lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    before = counted()
    ask(client, input=TEXTS)
    after = counted()
    route = 'edgetune_requests_total{route="embeddings",status="200"}'
    assert after[route] - before.get(route, 0) == 1
    assert after["edgetune_rows_total"] - before["edgetune_rows_total"] == len(TEXTS)
    assert after["edgetune_queue_seconds_count"] - before["edgetune_queue_seconds_count"] == len(TEXTS)
    lines = [json.loads(line) for line in server.said if '"/v1/embeddings"' in line]
    assert any((line.get("task"), line.get("rows")) == ("tiny-bert", len(TEXTS)) for line in lines)


def test_the_document_has_examples_that_are_answered(client: httpx.Client) -> None:
    post = client.get("/openapi.json").json()["paths"]["/v1/embeddings"]["post"]
    for example in post["requestBody"]["content"]["application/json"]["examples"].values():
        body = example["value"] | ({"model": "colour"} if "model" in example["value"] else {})
        assert ask(client, **body).status_code == 200
    got = ask(client, input="good").json()
    for example in post["responses"]["200"]["content"]["application/json"]["examples"].values():
        assert list(example["value"]) == list(got)
        assert list(example["value"]["data"][0]) == list(got["data"][0])
