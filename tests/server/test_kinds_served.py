"""Every kind of answer, and pairs of texts, on every route."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import BAD, TEXTS
from kinds_served import (
    NAMES,
    PAIRED,
    PAIRS,
    SINGLES,
    THRESHOLDS,
    classify,
    infer,
    save_kinds,
    task_of,
    tensors,
    texts_for,
)
from serving import Serve, Server

from edgetune_runtime import Bundle, Engine
from edgetune_runtime.kinds import KINDS, LabelResult, LabelsResult, Result


@pytest.fixture(scope="module")
def kinds_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return save_kinds(bundle_folder, tmp_path_factory.mktemp("kinds") / "bundle")


@pytest.fixture(scope="module")
def server(kinds_bundle: Path, serve: Serve) -> Iterator[Server]:
    with serve(kinds_bundle) as server:
        yield server


@pytest.fixture(scope="module")
def engine(kinds_bundle: Path) -> Iterator[Engine]:
    with Engine(kinds_bundle, threads=2) as engine:
        yield engine


PACKING: dict[str, Callable[[list[Any]], bytes]] = {
    "BYTES": lambda values: b"".join(len(one).to_bytes(4, "little") + one.encode() for one in values),
    "BOOL": lambda values: np.array(values, bool).tobytes(),
    "INT64": lambda values: np.array(values, "<i8").tobytes(),
    "FP32": lambda values: np.array(values, "<f4").tobytes(),
}


def expected_row(place: int, result: Result) -> dict[str, Any]:
    if isinstance(result, LabelResult):
        probs = list(result.scores.values())
        own: dict[str, Any] = {"label": result.label, "probs": probs, "num_classes": len(probs)}
    else:
        own = result.fields()
    return {"index": place, **own, "status": result.status}


@pytest.mark.parametrize("name", NAMES)
def test_classify_answers_as_the_engine_does(client: httpx.Client, engine: Engine, name: str) -> None:
    texts = texts_for(name)
    answer = classify(client, name, texts)
    results = engine.classify(texts, task=name)
    rows = [expected_row(place, result) for place, result in enumerate(results)]
    assert answer.json()["data"] == rows
    assert [list(row) for row in answer.json()["data"]] == [list(row) for row in rows]  # as a client reads them
    assert answer.json()["usage"]["prompt_tokens"] == sum(
        len(tokens.ids) for tokens in engine.encode(texts, [engine.task(name)] * len(texts))
    )


def test_the_tasks_are_worth_asking(engine: Engine) -> None:
    """Some labels apply and some do not."""
    numbers = {
        len(result.labels) for result in engine.classify(TEXTS, task="multi-label") if isinstance(result, LabelsResult)
    }
    assert len(numbers) > 1


@pytest.mark.parametrize("name", SINGLES)
def test_shapes_of_a_text(client: httpx.Client, name: str) -> None:
    (row,) = classify(client, name, TEXTS[0]).json()["data"]
    for shape in (
        TEXTS[:1],
        {"text": TEXTS[0]},
        [{"text": TEXTS[0], "text_pair": None}],
        [{"text": TEXTS[0], "id": 1}],
    ):
        assert classify(client, name, shape).json()["data"] == [row]


@pytest.mark.parametrize("name", PAIRED)
def test_shapes_of_a_pair(client: httpx.Client, engine: Engine, name: str) -> None:
    first, second = PAIRS[0]
    (result,) = engine.classify([(first, second)], task=name)
    named = {"text": first, "text_pair": second}
    for shape in (named, [named], [[first, second]]):
        assert classify(client, name, shape).json()["data"] == [expected_row(0, result)]
    rows = classify(client, name, [named, [second, first], named]).json()["data"]
    assert rows[0] == expected_row(0, result)
    assert rows[1] != rows[0] | {"index": 1}
    assert rows[2] == rows[0] | {"index": 2}


@pytest.mark.parametrize("name", NAMES)
def test_vllms_route_has_one_shape(client: httpx.Client, name: str) -> None:
    answer = classify(client, name, texts_for(name), path="/classify")
    if name.startswith("single-label"):
        assert answer.json()["data"] == classify(client, name, texts_for(name)).json()["data"]
    else:
        assert answer.status_code == 400
        assert [part in answer.json()["error"] for part in (name, "/v1/classify")] == [True, True]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_infer_gives_the_outputs_of_the_kind(client: httpx.Client, engine: Engine, name: str, binary: bool) -> None:
    texts, task = texts_for(name), engine.task(name)
    results = engine.classify(texts, task=name)
    answer = infer(client, name, texts, parameters={"binary_data_output": binary})
    length = int(answer.headers["inference-header-content-length"]) if binary else len(answer.content)
    head, tail = json.loads(answer.content[:length]), answer.content[length:]
    metadata = client.get(f"/v2/models/{name}").json()
    assert [one["name"] for one in metadata["inputs"]] == [one["name"] for one in tensors(texts)]
    assert [one["name"] for one in metadata["outputs"]] == [one.name for one in task.kind.outputs]
    assert metadata["labels"] == list(task.labels)
    for output, described, found in zip(task.kind.outputs, metadata["outputs"], head["outputs"], strict=True):
        values = [value for result in results for value in output.of(result)]
        shape = [len(texts), len(task.labels)] if output.by_label else [len(texts)]
        assert (found["name"], found["datatype"], found["shape"]) == (output.name, output.datatype, shape)
        assert (described["datatype"], described["shape"]) == (output.datatype, [-1, *shape[1:]])
        if binary:
            size = found["parameters"]["binary_data_size"]
            packed, tail = tail[:size], tail[size:]
            assert packed == PACKING[output.datatype](values)
        else:
            assert found["data"] == values
    assert tail == b""


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", PAIRED)
def test_pairs_as_binary_tensors_in_any_order(client: httpx.Client, name: str, turned: bool) -> None:
    inputs, tail = tensors(list(PAIRS)), b""
    for tensor in reversed(inputs) if turned else inputs:
        data = PACKING["BYTES"](tensor.pop("data"))
        tensor["parameters"] = {"binary_data_size": len(data)}
        tail += data
    head = json.dumps({"inputs": inputs[::-1] if turned else inputs}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = client.post(f"/v2/models/{name}/infer", content=head + tail, headers=headers)
    assert answer.json() == infer(client, name, list(PAIRS)).json()


@pytest.mark.parametrize("name", NAMES)
def test_each_output_can_be_asked_for(client: httpx.Client, name: str) -> None:
    whole = infer(client, name, texts_for(name)).json()["outputs"]
    for output in whole:
        (alone,) = infer(client, name, texts_for(name), outputs=[{"name": output["name"]}]).json()["outputs"]
        assert alone == output


@pytest.mark.parametrize("shape", [[8], [8, 1]])
@pytest.mark.parametrize("name", ["single-label-pairs", "score"])
def test_one_value_per_text_is_shaped_as_the_input(client: httpx.Client, name: str, shape: list[int]) -> None:
    inputs = [tensor | {"shape": shape} for tensor in tensors(texts_for(name))]
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()
    assert answer["outputs"][0]["shape"] == shape


def one_input(name: str, count: int = 1) -> dict[str, Any]:
    return {"name": name, "shape": [count], "datatype": "BYTES", "data": ["good"] * count}


BOTH = [one_input("text"), one_input("text_pair")]
REFUSED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "an output of another kind": (
        "multi-label",
        {"inputs": BOTH[:1], "outputs": [{"name": "label"}]},
        400,
        "task 'multi-label' has no output 'label': expected some of applies, scores",
    ),
    "labels of a number": (
        "score",
        {"inputs": BOTH[:1], "outputs": [{"name": "scores"}]},
        400,
        "task 'score' has no output 'scores': expected some of score",
    ),
    "an output of no kind": (
        "multi-label",
        {"inputs": BOTH[:1], "outputs": [{"name": "logits"}]},
        422,
        "there is no output 'logits': expected some of applies, scores",
    ),
    "Triton's classes": (
        "score",
        {"inputs": BOTH[:1], "outputs": [{"name": "score", "parameters": {"classification": 1}}]},
        422,
        "the parameter 'classification' came: classes are not counted here: read 'score' and the model's labels",
    ),
    "a pair for single texts": (
        "score",
        {"inputs": BOTH},
        400,
        "task 'score' takes single texts, and 'text' and 'text_pair' came: expected 'text'",
    ),
    "a text for pairs": (
        "score-pairs",
        {"inputs": BOTH[:1]},
        400,
        "task 'score-pairs' takes pairs of texts, and 'text' came: expected 'text' and 'text_pair'",
    ),
    "three inputs": ("score-pairs", {"inputs": [*BOTH, one_input("x")]}, 422, "expected two, 'text' and 'text_pair'"),
    "an unknown second input": (
        "score-pairs",
        {"inputs": [BOTH[0], one_input("second")]},
        422,
        "the input is 'second', 'BYTES': expected 'text' and 'text_pair', 'BYTES'",
    ),
    "the same input twice": ("score-pairs", {"inputs": [BOTH[1]] * 2}, 422, "'text_pair' came twice"),
    "unequal numbers": (
        "score-pairs",
        {"inputs": [BOTH[0], one_input("text_pair", 2)]},
        422,
        "1 texts came with 2 second texts",
    ),
    "another shape of the second": (
        "score-pairs",
        {"inputs": [BOTH[0], BOTH[1] | {"shape": [3]}]},
        422,
        "the input 'text_pair' has shape [3] for 1 texts",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_infer_refuses(client: httpx.Client, case: str) -> None:
    name, body, status, why = REFUSED[case]
    answer = client.post(f"/v2/models/{name}/infer", json=body)
    assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.text


def test_sizes_of_binary_tensors_are_not_negative(client: httpx.Client) -> None:
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        for name, size in (("text", -8), ("text_pair", 16))
    ]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = client.post("/v2/models/score-pairs/infer", content=head + b"\4\0\0\0good", headers=headers)
    assert (answer.status_code, "8 bytes came behind" in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_the_task_does_not_take_is_bad_alone(client: httpx.Client, engine: Engine, name: str) -> None:
    texts, odd = texts_for(name), TEXTS[0] if name in PAIRED else PAIRS[0]
    rows = classify(client, name, [texts[0], odd, *texts[1:]]).json()["data"]
    bad = rows.pop(1)
    assert (bad["index"], bad["status"]) == (1, "error")
    assert f"task '{name}' takes" in bad["error"]
    results = engine.classify(texts, task=name)
    places = [0, *range(2, len(texts) + 1)]
    assert rows == [expected_row(place, result) for place, result in zip(places, results, strict=True)]
    empty = {"label": None, "probs": [], "num_classes": 3}
    own = empty if name.startswith("single") else dict.fromkeys(engine.task(name).kind.columns)
    assert {key: value for key, value in bad.items() if key not in ("index", "status", "error")} == own


@pytest.mark.parametrize("name", NAMES)
def test_rows_all_of_which_the_task_does_not_take_are_refused(client: httpx.Client, name: str) -> None:
    for odd in [TEXTS[:2], TEXTS[0], {"text": "good"}] if name in PAIRED else [PAIRS[:2]]:
        answer = classify(client, name, odd)
        assert answer.status_code == 400
        assert f"task '{name}' takes" in answer.json()["error"]
        assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (["good"], "a list of 1 texts came as a row"),
        (["good", "bad", "worse"], "a list of 3 texts came as a row"),
        ([], "a list of 0 texts came as a row"),
        (["good", 2], "token ids"),
        ({"text_pair": "good"}, "`text`"),
        ({"text": ["good", "bad"]}, "Expected"),
    ],
)
@pytest.mark.parametrize("name", ["score", "score-pairs"])
def test_rows_that_are_no_texts(client: httpx.Client, name: str, row: object, why: str) -> None:
    answer = classify(client, name, [row])
    assert (answer.status_code, why in answer.json()["error"]) == (422, True), answer.text


@pytest.mark.parametrize("place", [0, 1])
def test_the_longest_of_a_pair_counts(client: httpx.Client, place: int) -> None:
    pair = ["good", "good"]
    pair[place] = "x" * 20_001
    answer = classify(client, "score-pairs", [pair])
    assert (answer.status_code, "a text has 20001 characters" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("name", NAMES)
def test_min_score(client: httpx.Client, engine: Engine, name: str) -> None:
    texts = texts_for(name)
    answer = classify(client, name, texts, min_score=0.999)
    if engine.task(name).kind.min_score:
        results = engine.classify(texts, task=name, min_score=0.999)
        assert answer.json()["data"] == [expected_row(place, result) for place, result in enumerate(results)]
        assert answer.json()["data"] != classify(client, name, texts).json()["data"]
    else:
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(
            f"min_score is 0.999, and task '{name}' of the kind '{engine.task(name).kind.name}'"
        )


def test_tasks_say_what_they_are(client: httpx.Client) -> None:
    listed = {one["task"]: one for one in client.get("/tasks").json()["tasks"]}
    assert list(listed) == sorted(NAMES)
    for name, one in listed.items():
        kind = KINDS[name.removesuffix("-pairs")]
        assert (one["kind"], one["kind_title"], one["pairs"]) == (kind.name, kind.title, name in PAIRED)
        assert one.get("thresholds") == (list(THRESHOLDS) if kind.name == "multi-label" else None)


def test_openapi_describes_every_kind(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    rows = schemas["ClassifyResponseOfAnyKind"]["properties"]["data"]["items"]["anyOf"]
    described = [set(schemas[row["$ref"].rpartition("/")[2]]["required"]) for row in rows]
    for name in NAMES:
        assert set(classify(client, name, texts_for(name)).json()["data"][0]) in described
    outputs = {output.name for kind in KINDS.values() for output in kind.outputs}
    assert set(schemas["OutputTensor"]["properties"]["name"]["enum"]) == outputs

    def examples(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
        operation = document["paths"][path]["post"]
        body, answer = operation["requestBody"]["content"], operation["responses"]["200"]["content"]
        return body["application/json"]["examples"], answer["application/json"]["examples"]

    for path, cases in (("/v1/classify", {*KINDS, "tasks"}), ("/classify", {"single-label"})):
        asked, answered = examples(path)
        assert set(answered) == cases
        assert ("tasks" in asked) == ("tasks" in cases)
        for case, example in asked.items():
            model = "single-label-pairs" if "pair" in case else "single-label"
            body = example["value"] | {"model": SINGLES if case == "tasks" else model}
            assert client.post(path, json=body).status_code == 200
    asked, answered = (of["tasks"]["value"] for of in examples("/v1/classify"))
    assert isinstance(asked["model"], list)
    got = client.post("/v1/classify", json={"model": SINGLES, "input": asked["input"][0]}).json()
    assert [list(row) for row in answered["data"]] == [list(row) for row in got["data"]]
    assert [row["model"] for row in answered["data"]] == answered["model"]
    asked, answered = examples("/v2/models/{task}/infer")
    assert set(answered) == set(KINDS)
    for case, task in (("text", "score"), ("pair", "score-pairs")):
        assert client.post(f"/v2/models/{task}/infer", json=asked[case]["value"]).status_code == 200
    for kind, example in answered.items():
        name = kind if kind in SINGLES else f"{kind}-pairs"
        got = infer(client, name, texts_for(name)).json()["outputs"]
        assert [one["name"] for one in example["value"]["outputs"]] == [one["name"] for one in got]


def test_the_document_tells_nothing_of_the_tasks(client: httpx.Client) -> None:
    """It does not need a key."""
    document = client.get("/openapi.json").text
    assert "-pairs" not in document
    assert "label0" not in document


def test_a_task_of_another_kind_takes_the_place(bundle_folder: Path, tmp_path: Path, serve: Serve) -> None:
    folder = save_kinds(bundle_folder, tmp_path / "bundle")
    headers = {"authorization": "Bearer key"}
    with (
        serve(folder, "--allow-task-changes", env={"EDGETUNE_TASK_KEY": "key"}) as server,
        server.client(headers=headers) as client,
    ):
        for name in NAMES:
            task = task_of(Bundle(folder), name, seed=7)
            loaded = client.post("/v2/repository/models/changing/load", content=task.to_bytes()).json()
            stored = Bundle(folder).load_task("changing")
            assert loaded["version"] == stored.sha256 == task.renamed("changing").sha256
            assert (loaded["kind"], loaded["pairs"]) == (task.kind_name, task.pairs)
            with Engine(folder, threads=1) as engine:
                (result,) = engine.classify(texts_for(name)[:1], task="changing")
            answer = classify(client, "changing", texts_for(name)[:1]).json()
            assert answer["data"] == [expected_row(0, result)]
        (folder / "tasks" / "changing.safetensors").unlink()  # by somebody else
        assert client.post("/v2/repository/models/changing/unload").json() == {}
        assert client.post("/v2/repository/models/changing/unload").status_code == 404


@pytest.mark.parametrize("name", ["multi-label", "score"])
def test_a_text_that_fails_has_no_answer(poisoned: Path, tmp_path: Path, serve: Serve, name: str) -> None:
    folder = save_kinds(poisoned, tmp_path / "bundle")
    with serve(folder) as server, server.client() as client:
        good, bad = classify(client, name, [TEXTS[0], BAD]).json()["data"]
    assert good["status"] == "ok"
    fields = dict.fromkeys(KINDS[name].columns)
    assert {key: bad[key] for key in bad if key != "error"} == {"index": 1, **fields, "status": "error"}
    assert "gives the token id" in bad["error"]
