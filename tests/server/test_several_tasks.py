"""Several tasks for one text in one request: a row per task, and shared passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import TEXTS, random_task
from serving import Serve, Server

from edgetune_runtime import Bundle

HEADS = ["angry", "happy", "sad"]


@pytest.fixture(scope="module")
def server(server_bundle: Path, serve: Serve) -> Iterator[Server]:
    bundle = Bundle(server_bundle)
    for place, name in enumerate(HEADS):
        bundle.add_task(random_task(bundle, name, seed=20 + place))
    multi = dataclasses.replace(
        random_task(bundle, "tags", seed=30), kind_name="multi-label", thresholds=(0.3, 0.5, 0.7)
    )
    bundle.add_task(multi)
    with serve(server_bundle, "--precision", "fp32") as server:
        yield server


def ask(server: Server, model: Any, given: Any = TEXTS[0], path: str = "/v1/classify", **more: Any) -> httpx.Response:
    return httpx.post(server.url + path, json={"model": model, "input": given, **more}, timeout=60)


def passes(server: Server) -> tuple[float, float]:
    """Runs and rows so far."""
    lines = dict(
        line.rsplit(" ", 1) for line in httpx.get(f"{server.url}/metrics").text.splitlines() if not line.startswith("#")
    )
    return float(lines["edgetune_batch_rows_count"]), float(lines["edgetune_batch_rows_sum"])


def test_each_text_has_a_row_for_each_task_as_if_it_were_asked_alone(server: Server) -> None:
    names = ["tags", "colour", "angry", "size"]
    answer = ask(server, names, TEXTS[:3]).json()
    assert answer["model"] == names
    assert [(row["index"], row["model"]) for row in answer["data"]] == [
        (place, name) for place in range(3) for name in names
    ]
    for row in answer["data"]:
        (alone,) = ask(server, row["model"], TEXTS[row["index"]]).json()["data"]
        assert {**row, "index": 0} == {"model": row["model"], **alone}


def test_tasks_with_heads_alone_share_a_pass(server: Server) -> None:
    runs, rows = passes(server)
    assert ask(server, HEADS).status_code == 200
    assert passes(server) == (runs + 1, rows + 3)


def test_tasks_with_prompts_of_their_own_do_not(server: Server) -> None:
    runs, rows = passes(server)
    assert ask(server, ["colour", "size"]).status_code == 200
    assert passes(server) == (runs + 2, rows + 2)


def test_one_name_in_a_list_is_a_list(server: Server) -> None:
    answer = ask(server, ["angry"]).json()
    assert answer["model"] == ["angry"]
    assert answer["data"][0]["model"] == "angry"


@pytest.mark.parametrize(
    ("model", "path", "status", "message"),
    [
        (["angry", "angry"], "/v1/classify", 422, 'model is ["angry","angry"]: expected names, each once'),
        ([], "/v1/classify", 422, "model is []: expected names, each once"),
        (["angry", "nobody"], "/v1/classify", 404, "there is no task 'nobody'"),
        (["angry", "sad"], "/classify", 400, "several models came, and vLLM's /classify asks one"),
    ],
)
def test_what_cannot_be_asked_is_told(server: Server, model: Any, path: str, status: int, message: str) -> None:
    answer = ask(server, model, path=path)
    assert answer.status_code == status
    assert message in answer.text.replace('\\"', '"')
