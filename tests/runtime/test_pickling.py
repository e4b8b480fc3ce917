"""An engine is pickled as its arguments; it is called from threads, event loops and other processes."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import TEXTS, MakeTask, mixed

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import BundleError, DataError, EdgetuneError, MissingPackageError, TaskError

Answers = list[tuple[str, dict[str, float], str]]


def answers(engine: Engine, tasks: Sequence[str] | None = None) -> Answers:
    pairs = [(text, task) for text in TEXTS for task in tasks or engine.task_names]
    return [(result.best, dict(result.scores), result.precision) for result in engine.classify(**mixed(pairs))]


def travelled(engine: Engine) -> Engine:
    return pickle.loads(pickle.dumps(engine))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"precision": "int8", "threads": 1},
        {"precision": "fp32", "threads": 2, "batch_size": 4},
        {"threads": 2, "prepare": False},
    ],
)
@pytest.mark.parametrize("state", ["unused", "used", "closed"])
def test_an_engine_comes_back_with_its_settings(settings: dict[str, Any], state: str, bundle_folder: Path) -> None:
    engine = Engine(bundle_folder, **settings)
    expected = answers(engine) if state != "unused" else answers(Engine(bundle_folder, **settings))
    if state == "closed":
        engine.close()
    for other in (travelled(engine), travelled(travelled(engine)), copy.copy(engine), copy.deepcopy(engine)):
        assert (other.precision, other.precisions) == (engine.precision, engine.precisions)
        assert (other.threads, other.batch_size) == (engine.threads, engine.batch_size)
        assert other._runner._prepare is engine._runner._prepare is settings.get("prepare", True)
        assert answers(other) == expected
    assert answers(engine) == expected


def test_threads_that_were_not_chosen_are_those_of_the_other_computer(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(Engine(bundle_folder)), pickle.dumps(Engine(bundle_folder, threads=2))
    monkeypatch.setattr("edgetune_runtime.engine.available_threads", lambda: 7)
    assert [pickle.loads(one).threads for one in sent] == [7, 2]


def test_added_tasks_travel_and_removed_ones_do_not(
    bundle_folder: Path, bundle: Bundle, make_task: MakeTask, tmp_path: Path
) -> None:
    make_task("filed", seed=5).save(tmp_path / "filed.safetensors")
    engine = Engine(bundle_folder, threads=2)
    engine.add_task(make_task("own", prompt=3, seed=3))
    engine.add_task(tmp_path / "filed.safetensors")
    engine.add_task(make_task("colour", seed=4))  # instead of the bundle's
    engine.add_task(make_task("gone", seed=6))
    engine.remove_task("gone")
    engine.remove_task("size")
    (tmp_path / "filed.safetensors").unlink()
    other = travelled(travelled(engine))
    assert other.task_names == engine.task_names == ["colour", "filed", "own"]
    assert answers(other) == answers(engine)
    with pytest.raises(TaskError, match="no task 'size' here"):
        other.task("size")
    other.add_task(bundle.load_task("size"))
    assert "size" in other.task_names
    assert "size" not in engine.task_names


def test_tasks_of_the_bundle_stay_there(bundle_folder: Path) -> None:
    """Using a thousand tasks does not add them to the pickle."""
    engine = Engine(bundle_folder)
    unused = len(pickle.dumps(engine))
    answers(engine)
    assert len(pickle.dumps(engine)) == unused < 2000


def test_a_relative_folder_is_found_from_elsewhere(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle_folder.parent)
    engine = Engine(bundle_folder.name, threads=1)
    expected, sent = answers(engine), pickle.dumps(engine)
    monkeypatch.chdir(tmp_path)
    assert answers(pickle.loads(sent)) == expected


def test_where_there_is_no_bundle_it_is_said(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to(bundle.path)
    sent = pickle.dumps(Engine(tmp_path / "copy"))
    (tmp_path / "copy").unlink()
    with pytest.raises(BundleError, match="copy is not a bundle"):
        pickle.loads(sent)


def test_bundles_and_tasks_travel(bundle: Bundle, make_task: MakeTask) -> None:
    other: Bundle = pickle.loads(pickle.dumps(bundle))
    assert (other.path, other.manifest) == (bundle.path, bundle.manifest)
    for task in (bundle.load_task("size"), make_task("own")):
        sent: Task = pickle.loads(pickle.dumps(task))
        assert sent.sha256 == task.sha256


@pytest.mark.parametrize("error", [MissingPackageError("ray", "ray"), DataError("a\nb"), EdgetuneError("no")])
def test_errors_travel(error: EdgetuneError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other)) == (type(error), str(error))


def test_a_spawned_pool_takes_an_engine(bundle_folder: Path, make_task: MakeTask) -> None:
    engine = Engine(bundle_folder, threads=2)
    engine.add_task(make_task("own", seed=3))
    expected = answers(engine)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(answers, [engine] * 3) == [expected] * 3
    assert answers(engine) == expected


def test_an_event_loop_calls_it_in_threads_and_processes(bundle_folder: Path) -> None:
    async def calls(engine: Engine) -> list[Answers]:
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, mp_context=context) as processes:
            return await asyncio.gather(
                *(asyncio.to_thread(answers, engine) for _ in range(4)),
                *(loop.run_in_executor(threads, answers, engine) for _ in range(4)),
                loop.run_in_executor(processes, answers, engine),
            )

    with Engine(bundle_folder, threads=2) as engine:
        expected = answers(engine)
        assert asyncio.run(calls(engine)) == [expected] * 9
