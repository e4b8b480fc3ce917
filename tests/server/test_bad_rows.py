"""A text that the tokenizer or the engine fails on has its own status, and does not affect other texts."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import BAD, TEXTS
from serving import Serve, Server

from edgetune_runtime import Engine


@pytest.fixture(scope="module")
def server(poisoned: Path, serve: Serve) -> Iterator[Server]:
    with serve(poisoned) as server:
        yield server


def classify(client: httpx.Client, texts: list[str]) -> httpx.Response:
    return client.post("/classify", json={"model": "colour", "input": texts})


def test_a_bad_text_has_a_status_and_the_others_their_answers(client: httpx.Client, poisoned: Path) -> None:
    rows = classify(client, [*TEXTS[:3], BAD, *TEXTS[3:]]).json()["data"]
    bad = rows.pop(3)
    assert (bad["index"], bad["label"], bad["probs"], bad["num_classes"], bad["status"]) == (3, None, [], 3, "error")
    assert "gives the token id" in bad["error"]
    with Engine(poisoned, threads=1) as engine:
        expected = [list(result.scores.values()) for result in engine.classify(TEXTS, task="colour")]
    assert [row["probs"] for row in rows] == expected
    assert {row["status"] for row in rows} == {"ok"}
    assert all("error" not in row for row in rows)


@pytest.mark.parametrize("texts", [[BAD], [BAD, BAD]])
def test_a_request_of_bad_texts_alone_is_an_error(client: httpx.Client, texts: list[str]) -> None:
    answer = classify(client, texts)
    assert (answer.status_code, "gives the token id" in answer.json()["error"]) == (500, True)


def test_infer_has_no_status_for_a_text(client: httpx.Client) -> None:
    def infer(texts: list[str]) -> httpx.Response:
        tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
        return client.post("/v2/models/size/infer", json={"inputs": [tensor]})

    answer = infer([*TEXTS, BAD])
    assert (answer.status_code, "gives the token id" in answer.json()["error"]) == (500, True)
    assert infer(TEXTS).status_code == 200


def test_requests_beside_bad_ones_are_answered(client: httpx.Client) -> None:
    expected = classify(client, TEXTS).json()["data"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda texts: classify(client, texts), [TEXTS, [BAD], [BAD, *TEXTS[1:]]] * 10))
    for place, answer in enumerate(answers):
        if place % 3 == 0:
            assert answer.json()["data"] == expected
        elif place % 3 == 2:
            assert answer.json()["data"][1:] == expected[1:]
        else:
            assert answer.status_code == 500


def test_failed_texts_are_counted_and_logged(client: httpx.Client, server: Server) -> None:
    def counted() -> dict[str, float]:
        lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    before = counted()
    classify(client, [BAD, *TEXTS])
    after = counted()
    assert after["edgetune_failed_rows_total"] - before["edgetune_failed_rows_total"] == 1
    assert after["edgetune_rows_total"] - before["edgetune_rows_total"] == len(TEXTS)
    lines = [json.loads(line) for line in server.said if '"failed_rows"' in line]
    assert lines
    assert all("[USER]" not in line["error"] for line in lines)
