"""`POST /rerank`: the engine's order in text-embeddings-inference's format, over real HTTP."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import BAD, TEXTS, random_task
from serving import Serve, Server

from edgetune_runtime import Bundle, Engine

QUERY = "where is the lamp?"


def save(source: Path, folder: Path, *names: str) -> Path:
    """Copy a bundle, with additional tasks."""
    bundle = Bundle(shutil.copytree(source, folder))
    for seed, (name, (labels, fields)) in enumerate(TASKS.items()):
        if name in names:
            bundle.add_task(dataclasses.replace(random_task(bundle, name, labels=labels, seed=seed), **fields))
    return bundle.path


TASKS: dict[str, tuple[int, dict[str, Any]]] = {
    "alike": (1, {"kind_name": "score", "pairs": True}),
    "relevant": (2, {"labels": ("no", "yes"), "pairs": True}),
    "unnamed": (2, {"pairs": True}),
    "topics": (3, {"kind_name": "multi-label", "pairs": True}),
    "windows": (1, {"kind_name": "score", "pairs": True, "long_texts": "windows", "stride": 4}),
}


@pytest.fixture(scope="module")
def rank_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return save(bundle_folder, tmp_path_factory.mktemp("rank") / "bundle", *TASKS)


@pytest.fixture(scope="module")
def server(rank_bundle: Path, serve: Serve) -> Iterator[Server]:
    with serve(rank_bundle) as server:
        yield server


@pytest.fixture(scope="module")
def engine(rank_bundle: Path) -> Iterator[Engine]:
    with Engine(rank_bundle, threads=2) as engine:
        yield engine


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/rerank", json={"query": QUERY, "texts": TEXTS, **body})


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("model", "label"), [("alike", None), ("relevant", None), ("relevant", "no"), ("unnamed", "label1")]
)
def test_the_order_is_the_engines(
    client: httpx.Client, engine: Engine, model: str, label: str | None, raw: bool
) -> None:
    answer = ask(client, model=model, label=label, raw_scores=raw)
    expected = engine.rank(QUERY, TEXTS, model, label=label, raw_scores=raw)
    assert answer.json() == [{"index": one.index, "score": one.score} for one in expected]
    assert {part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")} == {"queue", "run"}


def test_texts_come_back_if_asked_for(client: httpx.Client) -> None:
    plain, told = (ask(client, model="alike", return_text=how).json() for how in (False, True))
    assert told == [row | {"text": TEXTS[row["index"]]} for row in plain]


HARMLESS = {
    "truncate": True,
    "truncation_direction": "Right",
    "raw_scores": False,
    "return_text": False,
    "label": None,
    "whatever_comes_next": [1],
}
"""Fields of text-embeddings-inference that ask for the default behaviour, and unknown fields."""


def test_what_its_clients_send(client: httpx.Client) -> None:
    assert ask(client, model="alike", **HARMLESS).json() == ask(client, model="alike").json()
    assert ask(client, model="alike", truncate=False).json() == ask(client, model="alike").json()


@pytest.mark.parametrize("name", ["alike", "relevant"])
def test_the_only_task_that_can_rank_need_not_be_named(
    bundle_folder: Path, tmp_path: Path, serve: Serve, name: str
) -> None:
    """Next to a task for single texts, and one with any number of labels."""
    folder = save(bundle_folder, tmp_path / "bundle", name, "topics")
    with serve(folder) as server, server.client() as client:
        assert ask(client).json() == ask(client, model=name).json()
        assert len(ask(client).json()) == len(TEXTS)


def test_no_task_can_rank(bundle_folder: Path, serve: Serve) -> None:
    with serve(bundle_folder) as server, server.client() as client:
        answer = ask(client)
    why = "no task here can rank: expected one that takes pairs of texts, and gives one label or a number"
    assert (answer.status_code, answer.json()) == (400, {"error": why})


LONG = "good " * 300
REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no model": ({}, 422, "no 'model' came, and 4 tasks can rank: expected one of alike, relevant, unnamed, windows"),
    "an unknown model": ({"model": "none"}, 404, "no task 'none'"),
    "single texts": ({"model": "colour"}, 400, "task 'colour' takes single texts"),
    "several labels": ({"model": "topics"}, 400, "task 'topics' is of the kind 'multi-label'"),
    "names that do not tell": ({"model": "unnamed"}, 400, "the labels label0, label1, and which of them means"),
    "another label": ({"model": "relevant", "label": "x"}, 400, "no label 'x': expected one of no, yes"),
    "a label of a number": ({"model": "alike", "label": "x"}, 400, "gives a number and has no labels"),
    "no query": ({"model": "alike", "query": None}, 422, "Expected `str`"),
    "no texts": ({"model": "alike", "texts": []}, 422, "no text came: expected at least one"),
    "one string": ({"model": "alike", "texts": "good"}, 422, "Expected `array`"),
    "a pair": ({"model": "alike", "texts": [["a", "b"]]}, 422, "Expected `str`"),
    "a number": ({"model": "alike", "texts": [1]}, 422, "Expected `str`"),
    "cut at its begin": ({"model": "alike", "truncation_direction": "Left"}, 422, "'Left': a long text is always cut"),
    "not cut": (
        {"model": "alike", "texts": ["good", LONG], "truncate": False},
        422,
        "text 1 and the query have more tokens than the 256 that task 'alike' reads, and truncate is false",
    ),
    "too many": ({"model": "alike", "texts": ["good"] * 257}, 413, "257 texts came"),
    "too long": ({"model": "alike", "texts": ["x" * 20_001]}, 413, "at most 20000"),
    "too long a query": ({"model": "alike", "query": "x" * 20_001}, 413, "at most 20000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client: httpx.Client, case: str) -> None:
    body, status, why = REFUSED[case]
    answer = ask(client, **body)
    assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.text
    assert "\n" not in answer.json()["error"]
    assert "`label`" not in answer.json()["error"]


def test_a_long_text_is_cut(client: httpx.Client) -> None:
    for body in ({"model": "alike"}, {"model": "alike", "truncate": True}, {"model": "windows", "truncate": False}):
        assert len(ask(client, texts=["good", LONG], **body).json()) == 2


def test_a_form_is_no_message(client: httpx.Client) -> None:
    assert client.post("/rerank", data={"query": "good"}).status_code == 415
    assert client.get("/rerank").status_code == 405


def test_a_bad_text_fails_the_request(poisoned: Path, tmp_path: Path, serve: Serve) -> None:
    """The protocol has no status for one text."""
    with serve(save(poisoned, tmp_path / "bundle", "alike")) as server, server.client() as client:
        answer = ask(client, texts=[*TEXTS, BAD])
        assert (answer.status_code, "gives the token id" in answer.json()["error"]) == (500, True)
        assert ask(client).status_code == 200


def test_it_is_counted(client: httpx.Client) -> None:
    def counted() -> dict[str, float]:
        lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    before = counted()
    ask(client, model="alike")
    after = counted()
    route = 'edgetune_requests_total{route="rerank",status="200"}'
    assert after[route] - before.get(route, 0) == 1
    assert after["edgetune_rows_total"] - before["edgetune_rows_total"] == len(TEXTS)


def test_the_document_has_examples_that_are_answered(client: httpx.Client) -> None:
    post = client.get("/openapi.json").json()["paths"]["/rerank"]["post"]
    for example in post["requestBody"]["content"]["application/json"]["examples"].values():
        named = {"model": "relevant", "label": "yes"} if "label" in example["value"] else {"model": "alike"}
        assert client.post("/rerank", json=example["value"] | named).status_code == 200
    for example in post["responses"]["200"]["content"]["application/json"]["examples"].values():
        row, *_ = example["value"]
        got = ask(client, model="alike", return_text="text" in row).json()
        assert set(row) == set(got[0])
        assert [one["score"] for one in example["value"]] == sorted(one["score"] for one in example["value"])[::-1]
