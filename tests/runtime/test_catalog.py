"""Tasks that are stored and discarded, in the bundle on disk and for calls alike."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TEXTS, MakeTask

from edgetune_runtime import Bundle, Engine, Task, files
from edgetune_runtime.errors import TaskError
from edgetune_runtime.facts import BackboneFacts


@pytest.fixture
def own_bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def test_what_is_stored_answers_here_and_elsewhere(own_bundle: Path, make_task: MakeTask) -> None:
    with Engine(own_bundle, threads=1) as engine:
        for seed in (1, 2):
            task = make_task("whatever", seed=seed)
            stored = engine.store_task("new", task.to_bytes(), "the file")
            assert stored.name == "new"
            assert engine.task("new") is engine.catalog.get("new") is stored
            assert (own_bundle / "tasks" / "new.safetensors").read_bytes() == task.renamed("new").to_bytes()
            answers = engine.classify(TEXTS, task="new")
            for other in (Engine(own_bundle, threads=1), pickle.loads(pickle.dumps(engine))):
                assert other.classify(TEXTS, task="new") == answers
        engine.discard_task("new")
        assert "new" not in engine.task_names
        assert engine.catalog.get("new") is None
        assert "new" not in pickle.loads(pickle.dumps(engine)).task_names
    assert "new" not in Bundle(own_bundle).task_names()


def test_a_stored_task_is_read_checked_and_written_once(
    own_bundle: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()

    def counted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            counts[name] += 1
            return work(*arguments)

        return count

    data = make_task("new").to_bytes()
    with Engine(own_bundle, threads=1) as engine:
        monkeypatch.setattr(Task, "from_bytes", counted("read", Task.from_bytes))
        monkeypatch.setattr(BackboneFacts, "check", counted("checked", BackboneFacts.check))
        monkeypatch.setattr(files, "write_atomic", counted("written", files.write_atomic))
        engine.store_task("new", data, "the file")
        engine.classify(TEXTS, task="new")
    assert counts == {"read": 1, "checked": 1, "written": 1}


@pytest.mark.parametrize("data", [b"", b"{}"])
def test_what_is_no_task_changes_nothing(own_bundle: Path, data: bytes) -> None:
    before = (own_bundle / "tasks" / "colour.safetensors").read_bytes()
    with Engine(own_bundle, threads=1) as engine:
        old = engine.task("colour")
        with pytest.raises(TaskError, match="the file"):
            engine.store_task("colour", data, "the file")
        assert engine.task("colour") is old
    assert (own_bundle / "tasks" / "colour.safetensors").read_bytes() == before


def test_a_file_that_is_gone_is_discarded(own_bundle: Path) -> None:
    with Engine(own_bundle, threads=1) as engine:
        (own_bundle / "tasks" / "colour.safetensors").unlink()
        engine.discard_task("colour")
        assert engine.task_names == ["size"]
        with pytest.raises(TaskError, match="no task 'colour'"):
            engine.discard_task("colour")


def test_a_file_that_cannot_be_removed_is_said_and_still_answers(own_bundle: Path) -> None:
    with Engine(own_bundle, threads=1) as engine:
        engine.task("colour")
        path = own_bundle / "tasks" / "colour.safetensors"
        path.unlink()
        path.mkdir()
        with pytest.raises(TaskError, match="cannot be removed"):
            engine.discard_task("colour")
        assert len(engine.classify(TEXTS, task="colour")) == len(TEXTS)
