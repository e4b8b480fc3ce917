"""Passes: rows with the same tokens and parts share one, and answers are bit-identical to those of each row alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS, LanguageModelFolder, MakeTask, mixed

from edgetune_runtime import Bundle, Engine, Task, contract
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.passes import Runner
from edgetune_runtime.text import Tokens

OLD = Path(__file__).parents[1] / "formats" / "0.1" / "bert"
KIND_NAMES = ("single-label", "multi-label", "score", "tokens")


class CountingRunner(Runner):
    """Notes how many passes each run has."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.runs: list[int] = []

    def _run_batch(self, precision: str, threads: int, batch: Any) -> np.ndarray:
        self.runs.append(len(batch))
        return super()._run_batch(precision, threads, batch)

    def taken(self) -> list[int]:
        """The passes of the runs since the last call."""
        runs, self.runs = self.runs, []
        return runs


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines made in the test have a `CountingRunner`."""
    monkeypatch.setattr("edgetune_runtime.engine.Runner", CountingRunner)


def runs_of(engine: Engine) -> list[int]:
    assert isinstance(engine._runner, CountingRunner)
    return engine._runner.taken()


MakeHead = Callable[..., Task]


@pytest.fixture
def make_head(make_task: MakeTask) -> MakeHead:
    """Makes a task by number: heads differ, kinds alternate, and parts are those of `like` or none."""

    def make(number: int, like: Task | None = None, **fields: Any) -> Task:
        kind = KINDS[KIND_NAMES[number % 4]]
        labels = min(2 + number % 5, kind.labels[1])
        task = make_task(f"t{number}", prefix=0, labels=labels, seed=100 + number, kind_name=kind.name)
        parts = {name: tensor for name, tensor in (like.tensors if like else {}).items() if not name.startswith("head")}
        thresholds = tuple(np.linspace(0.2, 0.8, labels)) if kind.name == "multi-label" else ()
        made = {"thresholds": thresholds, "tensors": {**task.tensors, **parts}, **fields}
        return dataclasses.replace(task, **made)

    return make


def assert_as_alone(engine: Engine, tasks: Sequence[Task], texts: Sequence[str], passes: int) -> None:
    """All tasks on all texts in one call take this many passes, with answers bit-identical to separate calls."""
    runs_of(engine)
    pairs = [(text, task.name) for text in texts for task in tasks]
    together = engine.classify(**mixed(pairs))
    assert runs_of(engine) == [1] * passes
    assert [type(result) for result in together[: len(tasks)]] == [
        type(engine.classify([texts[0]], task.name)[0]) for task in tasks
    ]
    for (text, name), result in zip(pairs, together, strict=True):
        assert engine.classify([text], name) == [result]
    tokens = engine.encode(*zip(*[(text, task) for text in texts for task in tasks], strict=True))
    rows = list(zip(tokens, [task for _ in texts for task in tasks], strict=True))
    for row, logits in zip(rows, engine.run(rows), strict=True):
        (alone,) = engine.run([row])
        np.testing.assert_array_equal(logits, alone)
        assert logits.dtype == alone.dtype == np.float32


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
class TestShared:
    """One pass per text, however many tasks answer."""

    def test_twenty_heads_without_parts(
        self, bundle: Bundle, make_head: MakeHead, precision: str, threads: int
    ) -> None:
        with Engine(bundle, precision, threads=threads) as engine:
            tasks = [engine.add_task(make_head(number)) for number in range(20)]
            assert {task.kind_name for task in tasks} == set(KIND_NAMES)
            assert_as_alone(engine, tasks, TEXTS[:3], passes=3)

    @pytest.mark.parametrize(("prompt", "prefix"), [(0, 6), (4, 0), (3, 2)])
    def test_heads_on_the_same_prompt_or_prefix(
        self,
        bundle: Bundle,
        make_task: MakeTask,
        make_head: MakeHead,
        precision: str,
        threads: int,
        prompt: int,
        prefix: int,
    ) -> None:
        like = make_task("like", prompt=prompt, prefix=prefix)
        with Engine(bundle, precision, threads=threads) as engine:
            tasks = [engine.add_task(make_head(number, like)) for number in range(6)]
            assert_as_alone(engine, tasks, TEXTS[:3], passes=3)

    def test_spans_of_other_poolings(self, bundle: Bundle, make_head: MakeHead, precision: str, threads: int) -> None:
        with Engine(bundle, precision, threads=threads) as engine:
            tasks = [
                engine.add_task(make_head(number, pooling=("mean", "cls", "last")[number // 3])) for number in range(9)
            ]
            assert_as_alone(engine, tasks, TEXTS[:3], passes=3)

    def test_tasks_that_share_nothing_do_not_share_a_pass(
        self, bundle: Bundle, make_task: MakeTask, precision: str, threads: int
    ) -> None:
        with Engine(bundle, precision, threads=threads) as engine:
            tasks = [engine.add_task(make_task(f"p{n}", prompt=n % 2, prefix=2, seed=n)) for n in range(4)]
            assert_as_alone(engine, tasks, TEXTS[:2], passes=8)

    def test_each_thing_that_decides_features_makes_another_pass(
        self, bundle: Bundle, make_task: MakeTask, make_head: MakeHead, precision: str, threads: int
    ) -> None:
        like = make_task("like", prefix=4)
        plain = make_head(0, like)
        other = make_task("other", prefix=4, seed=9)
        changes: dict[str, dict[str, Any]] = {
            "offset": {"position_offset": 3},
            "template": {"template": "so: {text}"},
            "length": {"max_length": 4},
            "pooler": {"pooling": "pooler"},
            "keys": {"tensors": {**plain.tensors, contract.PREFIX_KEYS: other.tensors[contract.PREFIX_KEYS]}},
        }
        tasks = [dataclasses.replace(plain, name=name, **fields) for name, fields in {"plain": {}, **changes}.items()]
        with Engine(bundle, precision, threads=threads) as engine:
            for task in tasks:
                engine.add_task(task)
            assert_as_alone(engine, tasks, TEXTS[:1], passes=len(tasks))


@pytest.mark.usefixtures("counting")
def test_the_default_precision_answers_shared_rows_as_each_alone(bundle: Bundle, make_head: MakeHead) -> None:
    """Close calls are decided per row, not per pass: some tasks are answered again in fp32, others are not."""
    with Engine(bundle, threads=1) as engine:
        tasks = [engine.add_task(make_head(number)) for number in range(20)]
        pairs = [(text, task.name) for text in TEXTS for task in tasks]
        together = engine.classify(**mixed(pairs))
        again = len(runs_of(engine)) - len(TEXTS)
        assert 0 < again <= len(TEXTS)
        assert {result.precision for result in together} == {"int8", "fp32"}
        assert {
            r.precision for r, (_, name) in zip(together, pairs, strict=True) if engine.task(name).kind_name == "score"
        } == {"int8"}
        for (text, name), result in zip(pairs, together, strict=True):
            assert engine.classify([text], name) == [result]


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_graphs_of_edgetune_0_1_pool_by_themselves(pooling: str) -> None:
    """So tasks with two poolings take two passes there, and tasks with one pooling take one."""
    with Engine(OLD, "fp32", threads=1, prepare=False) as engine:
        plain = dataclasses.replace(engine.task("head-cls"), template="{text}")
        tasks = [
            engine.add_task(dataclasses.replace(plain, name=name, pooling=own))
            for name, own in {"a": pooling, "b": pooling, "c": "last"}.items()
        ]
        assert_as_alone(engine, tasks, TEXTS[:2], passes=4)


@pytest.mark.usefixtures("counting")
def test_the_same_row_twice_is_one_pass_and_two_answers(bundle: Bundle) -> None:
    with Engine(bundle, "int8", threads=1) as engine:
        one, other = engine.classify(["good", "good"], "colour")
        assert runs_of(engine) == [1]
        assert one == other == engine.classify(["good"], "colour")[0]


@pytest.mark.usefixtures("counting")
def test_segments_make_another_pass(bundle: Bundle) -> None:
    with Engine(bundle, "fp32", threads=1) as engine:
        task = engine.task("colour")
        (tokens,) = engine.encode(["the lamp is broken"], [task])
        second = Tokens(tokens.ids, False, [0, 0, *[1] * (len(tokens.ids) - 2)], tokens.spans)
        one, other = engine.run([(tokens, task), (second, task)])
        assert runs_of(engine) == [1, 1]
        assert np.abs(one - other).max() > 1e-3


def test_rows_may_read_several_spans(bundle: Bundle, make_task: MakeTask) -> None:
    """A row's logits are the mean over its spans; rows of unequal numbers of spans share a run."""
    task = make_task("spans", prefix=3)
    with Engine(bundle, "fp32", batch_size=4) as batched, Engine(bundle, "fp32") as single:
        (tokens,) = single.encode(["the lamp is broken and black"], [task])
        spans = ((0, 1), (1, 3), (len(tokens.ids) - 1, len(tokens.ids)))
        apart = [single.run([(dataclasses.replace(tokens, spans=(span,)), task)])[0] for span in spans]
        rows = [(dataclasses.replace(tokens, spans=chosen), task) for chosen in (spans, spans[:1], spans[1:])]
        for engine in (single, batched):
            got = engine.run(rows)
            for logits, expected in zip(got, (apart, apart[:1], apart[1:]), strict=True):
                np.testing.assert_allclose(logits, np.mean(expected, axis=0), atol=1e-6)


# Batches


@pytest.mark.usefixtures("counting")
def test_rows_of_other_tasks_share_a_run_where_runs_have_many(bundle: Bundle, make_task: MakeTask) -> None:
    with Engine(bundle, "fp32", batch_size=8) as engine:
        tasks = [engine.add_task(make_task(f"t{n}", prompt=n % 3, prefix=n % 2, seed=n)) for n in range(4)]
        engine.classify(**mixed([(text, task.name) for text in TEXTS[:4] for task in tasks]))
        assert runs_of(engine) == [8, 8]


@pytest.fixture(scope="module")
def causal(language_model_folder: LanguageModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a backbone whose text positions begin after the prompt."""
    from edgetune_export import export_bundle, load_backbone

    folder = tmp_path_factory.mktemp("causal") / "bundle"
    export_bundle(load_backbone(str(language_model_folder("gpt2"))), folder, precisions=["fp32"])
    return folder


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_text_that_takes_all_positions_runs_with_texts_that_begin_later(
    family: str, bundle_folder: Path, causal: Path
) -> None:
    """The padding of the others would have positions that the backbone lacks, so they run one by one."""
    from conftest import random_task

    opened = Bundle(bundle_folder if family == "bert" else causal)
    bare = random_task(opened, "bare", seed=1)
    behind = dataclasses.replace(random_task(opened, "behind", prefix=10, seed=2), position_offset=10)
    prompted = dataclasses.replace(random_task(opened, "prompted", prompt=20, seed=3), position_offset=20)
    long = "the lamp is broken " * 40
    with Engine(opened, "fp32", batch_size=8) as batched, Engine(opened, "fp32") as single:
        for engine in (batched, single):
            for task in (bare, behind, prompted):
                engine.add_task(task)
        (whole,) = batched.encode([long], [bare])
        assert len(whole.ids) == opened.facts.max_positions
        rows = [(text, task.name) for text in (long, "good") for task in (bare, behind, prompted)]
        together, alone = batched.classify(**mixed(rows)), [single.classify([text], name)[0] for text, name in rows]
        assert sorted(runs_of(batched)) == [1] * 6
        for one, other in zip(together, alone, strict=True):
            assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=1e-5)
            assert one.truncated == other.truncated
        batched.classify(**mixed([row for row in rows if row[0] != long]))
        assert runs_of(batched) == [3]
        batched.classify(**mixed([row for row in rows if row[1] == "bare"]))
        assert runs_of(batched) == [2]


# Caching


def test_what_is_kept_for_parts_goes_when_no_task_has_them(bundle: Bundle, make_task: MakeTask) -> None:
    with Engine(bundle, "fp32", threads=1) as engine:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            engine.add_task(make_task(name, prefix=3, seed=seed))
            engine.classify(["good"], name)
        assert len(engine._runner._banks) == 2
        engine.remove_task("c")
        assert len(engine._runner._banks) == 1
        engine.remove_task("a")
        assert len(engine._runner._banks) == 1  # "b" has the same parts
        engine.remove_task("b")
        assert engine._runner._banks == {}
