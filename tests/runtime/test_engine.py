"""The engine: the same answer for a text and task, whatever else runs; tasks that are added, removed and swapped."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS, MakeTask, mixed

from edgetune_runtime import Bundle, Engine, Result, Task, contract, files
from edgetune_runtime.engine import CLOSE_CALL
from edgetune_runtime.errors import BundleError, DataError, DeviceError, TaskError
from edgetune_runtime.passes import _BANKS_KEPT

PRECISIONS = ("fp32", "int8")


@pytest.fixture(params=PRECISIONS)
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    with Engine(bundle, precision=request.param, threads=2) as opened:
        yield opened


def scores(results: list[Result]) -> np.ndarray:
    return np.array([list(result.scores.values()) for result in results])


def test_results_carry_label_and_probabilities(engine: Engine) -> None:
    (result,) = engine.classify(TEXTS[:1], task="colour")
    assert result.task == "colour"
    assert list(result.scores) == ["label0", "label1", "label2"]
    assert sum(result.scores.values()) == pytest.approx(1)
    assert result.label == max(result.scores, key=lambda label: result.scores[label])


def test_an_answer_does_not_depend_on_what_else_runs(engine: Engine) -> None:
    alone = scores([engine.classify([text], task="colour")[0] for text in TEXTS])
    together = scores(engine.classify(TEXTS, task="colour"))
    reversed_order = scores(engine.classify(TEXTS[::-1], task="colour"))[::-1]
    pairs = [pair for text in TEXTS for pair in ((text, "size"), (text, "colour"))]
    among_others = scores(engine.classify(**mixed(pairs))[1::2])
    for other in (together, reversed_order, among_others):
        np.testing.assert_allclose(other, alone, atol=1e-5)


def test_fp32_batches_of_mixed_tasks_give_the_answers_of_single_runs(bundle: Bundle) -> None:
    pairs = [(text, task) for text in TEXTS for task in ("colour", "size")]
    with Engine(bundle, "fp32") as single, Engine(bundle, "fp32", batch_size=5) as batched:
        for one, other in zip(single.classify(**mixed(pairs)), batched.classify(**mixed(pairs)), strict=True):
            assert list(one.scores) == list(other.scores)
            assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=1e-5)


def test_thirty_tasks_of_unequal_prompts_in_one_run_answer_as_each_alone(bundle: Bundle, make_task: MakeTask) -> None:
    tasks = [make_task(f"t{n}", prompt=n % 7, prefix=n % 11, labels=2 + n % 4, seed=n) for n in range(30)]
    poolings = bundle.manifest.facts.poolings
    tasks = [dataclasses.replace(task, pooling=poolings[n % len(poolings)]) for n, task in enumerate(tasks)]
    with Engine(bundle, "fp32", batch_size=30) as batched, Engine(bundle, "fp32") as single:
        tokens = batched.encode([TEXTS[n % len(TEXTS)] for n in range(30)], tasks)
        rows = [(row.ids, task) for row, task in zip(tokens, tasks, strict=True)]
        together = batched.run(rows)
        for n, row in enumerate(rows):
            np.testing.assert_allclose(together[n], single.run([row])[0], atol=1e-5)
            assert together[n].shape == (len(tasks[n].labels),)


def test_int8_is_not_batched(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="would depend on each other"):
        Engine(bundle, "int8", batch_size=2)


def test_fewer_than_one_thread_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="threads is 0: expected at least 1"):
        Engine(bundle, threads=0)


def test_threads_give_the_answers_of_one(engine: Engine) -> None:
    expected = scores(engine.classify(TEXTS, task="colour"))
    got: list[np.ndarray] = []

    def call() -> None:
        got.append(scores(engine.classify(TEXTS, task="colour")))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6
    for answer in got:
        np.testing.assert_array_equal(answer, expected)


def test_a_swap_under_load_is_never_seen_half_done(engine: Engine, make_task: MakeTask) -> None:
    versions = [make_task("swapped", prefix=3 + 4 * seed, labels=2 + seed, seed=seed) for seed in (0, 1)]
    expected = []
    for version in versions:
        engine.add_task(version)
        expected.append(scores(engine.classify(TEXTS, task="swapped")))
    stop = threading.Event()

    def swap() -> None:
        place = 0
        while not stop.is_set():
            engine.add_task(versions[place % 2])
            place += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(60):
            got = scores(engine.classify(TEXTS, task="swapped"))
            match = [place for place, one in enumerate(expected) if one.shape == got.shape]
            np.testing.assert_allclose(got, expected[match[0]], atol=1e-6)
            seen.add(match[0])
    finally:
        stop.set()
        swapper.join()
    assert seen == {0, 1}


def test_a_removed_task_is_gone_and_can_come_back(engine: Engine, make_task: MakeTask, tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    make_task("new").save(path)
    engine.add_task(path)
    assert "new" in engine.task_names
    engine.remove_task("new")
    with pytest.raises(TaskError, match="no task 'new'"):
        engine.classify(TEXTS, task="new")
    with pytest.raises(TaskError, match="no task 'new' to remove"):
        engine.remove_task("new")
    engine.add_task(path, name="other")
    assert engine.classify(TEXTS[:1], task="other")[0].task == "other"


def test_closing_breaks_no_call_that_runs(engine: Engine) -> None:
    expected = scores(engine.classify(TEXTS, task="colour"))
    stop = threading.Event()

    def close() -> None:
        while not stop.is_set():
            engine.close()

    closer = threading.Thread(target=close)
    closer.start()
    try:
        for _ in range(20):
            np.testing.assert_array_equal(scores(engine.classify(TEXTS, task="colour")), expected)
    finally:
        stop.set()
        closer.join()


def test_a_task_of_the_bundle_can_be_removed_from_the_engine_alone(engine: Engine) -> None:
    engine.remove_task("colour")
    assert engine.task_names == ["size"]
    assert engine.bundle.task_names() == ["colour", "size"]


def test_no_texts_give_no_results(engine: Engine) -> None:
    assert engine.classify([], task="colour") == []


def test_an_empty_text_is_answered(engine: Engine) -> None:
    assert engine.classify([""], task="colour")[0].label.startswith("label")


def test_a_long_text_is_truncated_and_said_so(engine: Engine) -> None:
    long, short = engine.classify(["the lamp " * 500, "the lamp"], task="colour")
    assert long.truncated
    assert not short.truncated


@pytest.mark.parametrize(
    ("texts", "task", "error", "message"),
    [
        ("one string", "colour", DataError, "write \\[text\\]"),
        ([3], "colour", DataError, "text 0 is a int"),
        (["\ud800"], "colour", DataError, "text 0 has half of a surrogate pair"),
        (["text"], "colours", TaskError, "no task 'colours' here: the engine has colour, size"),
        (["text"], "../colour", TaskError, "no task '../colour'"),
    ],
)
def test_bad_calls_are_refused(bundle: Bundle, texts: object, task: str | None, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Engine(bundle).classify(texts, task)  # type: ignore[arg-type]


PAIR = ("the lamp", "is it broken?")


@pytest.fixture(scope="module")
def kinds_engine(bundle: Bundle, make_task: MakeTask) -> Iterator[Engine]:
    """An engine with a task of each kind and one that takes pairs. Not to be changed."""
    with Engine(bundle, "fp32", threads=1) as opened:
        opened.add_task(dataclasses.replace(make_task("pair"), pairs=True))
        opened.add_task(dataclasses.replace(make_task("topics"), kind_name="multi-label"))
        opened.add_task(dataclasses.replace(make_task("alike", labels=1), kind_name="score"))
        yield opened


BAD_CALLS: dict[str, tuple[dict[str, object], str]] = {
    "a pair for a task of texts": (
        {"texts": [PAIR], "task": "colour"},
        "text 0 is a tuple of 2: expected a string for task 'colour'; to mix tasks pass tasks=[NAME, …]",
    ),
    "the tuple form of edgetune 0.1": (
        {"texts": [("good", "colour"), ("good", "size")], "tasks": ["colour", "size"]},
        "text 0 is a tuple of 2: expected a string for task 'colour'; to mix tasks pass tasks=[NAME, …]",
    ),
    "a string for a task of pairs": (
        {"texts": [PAIR, "good"], "task": "pair"},
        "text 1 is a string: expected a pair of strings (text, text_pair) for task 'pair'",
    ),
    "a tuple of three": (
        {"texts": [(*PAIR, "good")], "task": "pair"},
        "text 0 is a tuple of 3: expected a pair of strings (text, text_pair) for task 'pair'",
    ),
    "a tuple of one": (
        {"texts": [("good",)], "task": "pair"},
        "text 0 is a tuple of 1: expected a pair of strings (text, text_pair) for task 'pair'",
    ),
    "an empty tuple": (
        {"texts": [()], "task": "colour"},
        "text 0 is a tuple of 0: expected a string for task 'colour'; to mix tasks pass tasks=[NAME, …]",
    ),
    "a list for a pair": (
        {"texts": [list(PAIR)], "task": "pair"},
        "text 0 is a list: expected a pair of strings (text, text_pair) for task 'pair'",
    ),
    "a number in a pair": (
        {"texts": [("good", 3)], "task": "pair"},
        "text 0 is a int: expected a pair of strings (text, text_pair) for task 'pair'",
    ),
    "nothing in a pair": (
        {"texts": [(None, "good")], "task": "pair"},
        "text 0 is a NoneType: expected a pair of strings (text, text_pair) for task 'pair'",
    ),
    "bytes": ({"texts": ["good", b"good"], "task": "colour"}, "text 1 is a bytes: expected a string for task 'colour'"),
    "half of a surrogate pair in the second text": (
        {"texts": [("good", "\ud800")], "task": "pair"},
        "text 0 has half of a surrogate pair: expected whole characters",
    ),
    "one string for a task of pairs": (
        {"texts": "good", "task": "pair"},
        "one string came instead of a list of texts: write [text]",
    ),
    "fewer tasks than texts": (
        {"texts": ["a", "b"], "tasks": ["colour"]},
        "1 tasks came for 2 texts: expected one for each",
    ),
    "more tasks than texts": ({"texts": [], "tasks": ["colour"]}, "1 tasks came for 0 texts: expected one for each"),
    "no task": (
        {"texts": ["a"]},
        "expected a task for the texts: pass task=NAME, or tasks=[NAME, …] with one for each",
    ),
    "a task and tasks": (
        {"texts": ["a"], "task": "colour", "tasks": ["colour"]},
        "expected a task for the texts: pass task=NAME, or tasks=[NAME, …] with one for each",
    ),
    "one string instead of tasks": (
        {"texts": ["a", "b", "c", "d"], "tasks": "size"},
        "one string came instead of a list of tasks: write task=NAME, or tasks=[NAME, …]",
    ),
    "a lowest score for a number": (
        {"texts": ["a"], "task": "alike", "min_score": 0.5},
        "min_score is 0.5, and task 'alike' of the kind 'score' gives no probabilities: leave it out",
    ),
    "a lowest score for a number among others": (
        {"texts": ["a", "b"], "tasks": ["colour", "alike"], "min_score": 0.5},
        "min_score is 0.5, and task 'alike' of the kind 'score' gives no probabilities: leave it out",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_calls_that_mean_nothing_are_refused_in_one_line(kinds_engine: Engine, name: str) -> None:
    call, message = BAD_CALLS[name]
    with pytest.raises(DataError) as caught:
        kinds_engine.classify(**call)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_tasks_of_all_kinds_and_pairs_are_answered_in_one_call(kinds_engine: Engine) -> None:
    texts = ["good", PAIR, "good", "good", PAIR]
    tasks = ["colour", "pair", "topics", "alike", "pair"]
    results = kinds_engine.classify(texts, tasks=tasks)
    assert [result.task for result in results] == tasks
    assert [set(result.fields()) for result in results] == [
        {"label", "score", "scores"}, {"label", "score", "scores"}, {"labels", "scores"}, {"score"},
        {"label", "score", "scores"},
    ]  # fmt: skip
    assert results[1] == results[4]
    for text, task, result in zip(texts, tasks, results, strict=True):
        assert kinds_engine.classify([text], task) == [result]
    assert kinds_engine.classify([("the lamp", "so")], "pair") != kinds_engine.classify([("so", "the lamp")], "pair")


def test_a_lowest_score_of_nothing_is_none(kinds_engine: Engine) -> None:
    assert kinds_engine.classify(["good"], "alike", 0.0) == kinds_engine.classify(["good"], "alike")


def test_no_texts_and_no_tasks_give_no_results(kinds_engine: Engine) -> None:
    assert kinds_engine.classify([], tasks=[]) == []


def test_rows_whose_best_score_is_too_low_abstain(engine: Engine) -> None:
    plain = engine.classify(TEXTS, task="colour")
    tops = [max(result.scores.values()) for result in plain]
    least = sorted(tops)[len(tops) // 2]  # a score that occurs; a score equal to the limit is sufficient
    results = engine.classify(TEXTS, task="colour", min_score=least)
    assert [result.abstained for result in results] == [top < least for top in tops]
    assert {result.abstained for result in results} == {True, False}
    for result, before in zip(results, plain, strict=True):
        assert result.label == (None if result.abstained else before.label)
        assert result.best == before.label
        assert result.scores == before.scores
        assert not before.abstained


@pytest.mark.parametrize("min_score", [-0.1, 1.1, float("nan")])
def test_a_min_score_that_is_no_probability_is_refused(bundle: Bundle, min_score: float) -> None:
    with pytest.raises(DataError, match=r"min_score is .*: expected a probability"):
        Engine(bundle).classify(TEXTS, "colour", min_score)


def test_precision_defaults_to_int8(bundle: Bundle) -> None:
    assert Engine(bundle).precision == "int8"


def test_a_device_that_is_not_there_is_named(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider.*CPUExecutionProvider.*pip install onnxruntime-gpu"):
        Engine(bundle, device="cuda")
    with pytest.raises(DeviceError, match="expected one of cpu, cuda"):
        Engine(bundle, device="tpu")


def test_temperature_and_template_are_used(bundle: Bundle, make_task: MakeTask) -> None:

    plain = make_task("plain", seed=3)
    hot = dataclasses.replace(plain, name="hot", temperature=4.0)
    filled = dataclasses.replace(plain, name="filled", template="the lamp {text} today")
    with Engine(bundle, "fp32") as engine:
        for task in (plain, hot, filled):
            engine.add_task(task)
        base, warm = engine.classify(**mixed([("good", "plain"), ("good", "hot")]))
        np.testing.assert_allclose(scores([warm]), scores([base]) ** 0.25 / (scores([base]) ** 0.25).sum(), atol=1e-6)
        spelt, slotted = engine.classify(**mixed([("the lamp good today", "plain"), ("good", "filled")]))
        assert spelt.scores == pytest.approx(slotted.scores)


def test_more_tasks_than_banks_are_kept_answer_each_time_alike(bundle: Bundle, make_task: MakeTask) -> None:
    tasks = [make_task(f"t{n}", prompt=1 + n % 3, prefix=n % 2, seed=n) for n in range(_BANKS_KEPT + 9)]
    with Engine(bundle, "fp32", threads=1) as engine:
        pairs = [(TEXTS[0], engine.add_task(task).name) for task in tasks]
        first, again = scores(engine.classify(**mixed(pairs))), scores(engine.classify(**mixed(pairs)))
        np.testing.assert_array_equal(first, again)
        assert len(np.unique(first[:, 0])) == len(tasks)
        assert len(engine._runner._banks) == _BANKS_KEPT


def close_and_clear(bundle: Bundle, make_task: MakeTask) -> Task:
    """A task that is undecided in int8 (on this CPU) for the first text, and decided for others."""
    task = make_task("close", labels=2)
    weight = task.tensors[contract.HEAD_WEIGHT] * 10
    task = dataclasses.replace(task, tensors={**task.tensors, contract.HEAD_WEIGHT: weight})
    with Engine(bundle, "int8") as engine:
        first, second = engine.run(tokens_of(engine, task))[0]
    bias = task.tensors[contract.HEAD_BIAS] + np.array([0, first - second], np.float32)
    return dataclasses.replace(task, tensors={**task.tensors, contract.HEAD_BIAS: bias})


def tokens_of(engine: Engine, task: Task) -> list[tuple[list[int], Task]]:
    return [(row.ids, task) for row in engine.encode(TEXTS, [task] * len(TEXTS))]


def test_by_default_close_calls_are_answered_in_fp32_and_the_others_in_int8(
    bundle: Bundle, make_task: MakeTask
) -> None:
    task = close_and_clear(bundle, make_task)
    found = {}
    for precision in (None, "int8", "fp32"):
        with Engine(bundle, precision, threads=2) as engine:
            engine.add_task(task)
            found[precision] = engine.classify(TEXTS, task="close")
    used = [result.precision for result in found[None]]
    assert set(used) == {"int8", "fp32"}
    for result, int8, fp32 in zip(found[None], found["int8"], found["fp32"], strict=True):
        best, second = sorted(int8.scores.values(), reverse=True)
        assert (result.precision == "fp32") == (best - second < CLOSE_CALL)
        assert result.scores == (fp32 if result.precision == "fp32" else int8).scores
        assert (int8.precision, fp32.precision) == ("int8", "fp32")


def test_fp32_is_not_opened_before_a_close_call(bundle: Bundle, make_task: MakeTask) -> None:
    task = make_task("sure", labels=2)
    sure = task.tensors[contract.HEAD_BIAS] + np.array([1000, 0], np.float32)
    with Engine(bundle) as engine:
        engine.add_task(dataclasses.replace(task, tensors={**task.tensors, contract.HEAD_BIAS: sure}))
        assert {result.precision for result in engine.classify(TEXTS, task="sure")} == {"int8"}
        assert {precision for precision, *_ in engine._runner._sessions} == {"int8"}


@pytest.mark.parametrize("left_out", ["in the manifest", "as a file"])
def test_without_fp32_in_the_bundle_all_answers_are_int8s(
    bundle: Bundle, bundle_folder: Path, make_task: MakeTask, tmp_path: Path, left_out: str
) -> None:
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    if left_out == "as a file":
        (tmp_path / "bundle" / files.graph_file("fp32")).unlink()
    else:
        manifest = json.loads((tmp_path / "bundle" / files.MANIFEST).read_bytes())
        del manifest["graphs"]["fp32"]
        (tmp_path / "bundle" / files.MANIFEST).write_text(json.dumps(manifest))
    task = close_and_clear(bundle, make_task)
    with Engine(tmp_path / "bundle") as engine, Engine(bundle, "int8") as int8:
        engine.add_task(task)
        int8.add_task(task)
        assert engine.classify(TEXTS, task="close") == int8.classify(TEXTS, task="close")


def test_a_task_in_another_float_type_is_run_in_the_graphs(bundle: Bundle, make_task: MakeTask) -> None:
    task = make_task("double", prompt=2, prefix=3)
    double = {name: tensor.astype(np.float64) for name, tensor in task.tensors.items()}
    with Engine(bundle, "fp32") as engine:
        engine.add_task(task, "single")
        engine.add_task(dataclasses.replace(task, tensors=double))
        one, other = (scores(engine.classify(TEXTS, task=name)) for name in ("single", "double"))
    np.testing.assert_array_equal(one, other)
