"""Prepared graphs: made once, mapped from then on, and failures never prevent an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import platformdirs
import pytest
from conftest import TEXTS

from edgetune_runtime import Bundle, Engine, files, prepared, session
from edgetune_runtime.errors import BundleError, EdgetuneError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(files.CACHE_VARIABLE, str(folder))
    return folder


def answers(bundle: Path | Bundle, precision: str, threads: int = 2) -> np.ndarray:
    with Engine(bundle, precision, threads=threads) as engine:
        return np.array([list(result.scores.values()) for result in engine.classify(TEXTS, task="colour")])


def entries(cache: Path) -> list[Path]:
    return sorted((cache / files.PREPARED).iterdir())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_answers_are_those_of_the_graph_itself(
    bundle: Bundle, precision: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, mapped = answers(bundle, precision), answers(bundle, precision)
    assert len(entries(cache)) == 1
    monkeypatch.setenv(files.CACHE_VARIABLE, "")
    np.testing.assert_array_equal(written, answers(bundle, precision))
    np.testing.assert_array_equal(mapped, written)


def test_a_prepared_graph_is_loaded_and_not_made_again(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(bundle, "int8")

    def made_again(*_: object) -> None:
        raise AssertionError("the graph was loaded from the bundle")

    monkeypatch.setattr(session, "write_prepared", made_again)
    monkeypatch.setattr(session, "open_session", made_again)
    answers(bundle, "int8", threads=1)


def test_each_precision_and_onnxruntime_has_an_entry_of_its_own(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(bundle, "fp32")
    answers(bundle, "int8")
    assert len(entries(cache)) == 2
    monkeypatch.setattr(ort, "__version__", "9.9.9")
    answers(bundle, "int8")
    assert len(entries(cache)) == 3


@pytest.mark.parametrize("damage", ["graph", "weights", "both gone"])
def test_an_entry_that_cannot_be_loaded_is_made_again(bundle: Bundle, cache: Path, damage: str) -> None:
    expected = answers(bundle, "int8")
    (entry,) = entries(cache)
    if damage == "graph":
        (entry / files.PREPARED_GRAPH).write_bytes(b"\xff" * 100)
    elif damage == "weights":
        os.truncate(entry / files.PREPARED_WEIGHTS, 10)
    else:
        shutil.rmtree(entry)
        entry.mkdir()
    np.testing.assert_array_equal(answers(bundle, "int8"), expected)
    assert (entry / files.PREPARED_WEIGHTS).stat().st_size > 1000


def test_a_damaged_bundle_is_refused_although_its_graph_is_prepared(
    bundle_folder: Path, cache: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(bundle_folder, copied)
    answers(copied, "int8")
    graph = copied / files.graph_file("int8")
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BundleError, match="is damaged"):
        answers(copied, "int8")
    graph.unlink()
    with pytest.raises(BundleError, match="is incomplete"):
        answers(copied, "int8")


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object, **__: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(files.CACHE_VARIABLE)
    assert prepared.cache_folder() is not None
    monkeypatch.setattr(platformdirs, "user_cache_path", no_home)
    assert prepared.cache_folder() is None
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/edgetune"))
    assert prepared.cache_folder() is None


def test_an_engine_that_does_not_prepare_keeps_nothing(bundle: Bundle, cache: Path) -> None:
    expected = answers(bundle, "int8")
    shutil.rmtree(cache)
    with Engine(bundle, "int8", prepare=False) as engine:
        got = [list(result.scores.values()) for result in engine.classify(TEXTS, task="colour")]
    np.testing.assert_array_equal(got, expected)
    assert not cache.exists()


def test_where_nothing_can_be_written_the_graph_is_loaded_as_it_is(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(files.CACHE_VARIABLE, "")
    expected = answers(bundle, "int8")
    taken = tmp_path / "a file"
    taken.write_text("in the way")
    monkeypatch.setenv(files.CACHE_VARIABLE, str(taken / "cache"))
    np.testing.assert_array_equal(answers(bundle, "int8"), expected)


def test_an_interrupted_preparation_leaves_nothing(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path) -> None:
        raise OSError(28, "No space left on device")

    expected = answers(bundle, "fp32")
    monkeypatch.setattr(files, "sync_file", full_disk)
    shutil.rmtree(cache)
    np.testing.assert_array_equal(answers(bundle, "fp32"), expected)
    assert entries(cache) == []


def test_entries_that_nothing_used_for_a_month_go_when_another_is_written(bundle: Bundle, cache: Path) -> None:
    month = 31 * 24 * 3600
    kept = cache / files.PREPARED
    for folder, age in {kept / "old": month, kept / "young": 0, cache / "of another program": month}.items():
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age, time.time() - age))
    answers(bundle, "int8")
    assert [entry.name for entry in entries(cache) if entry.name in ("old", "young")] == ["young"]
    assert (cache / "of another program").is_dir()


def test_using_an_entry_keeps_it(bundle: Bundle, cache: Path) -> None:
    answers(bundle, "int8")
    (entry,) = entries(cache)
    os.utime(entry, (0, 0))
    answers(bundle, "int8")
    assert time.time() - entry.stat().st_mtime < 60


def test_processes_that_prepare_at_once_all_answer(bundle_folder: Path, cache: Path) -> None:
    program = (
        "import sys; from edgetune_runtime import Engine; "
        "print(Engine(sys.argv[1], 'int8').classify(['good'], task='colour')[0].label)"
    )
    command = [sys.executable, "-c", program, str(bundle_folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    labels = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(labels) == 1
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("named", ["~/kept", "$HOME/kept", "${PLACE}/kept", "kept", "{home}/kept", "~kept", "a~/kept"])
def test_the_named_folder_is_what_a_shell_would_make_of_it(
    named: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell expands the variables in files for systemd or Docker."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    monkeypatch.chdir(here)
    for variable in ("HOME", "USERPROFILE", "PLACE"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.setenv(files.CACHE_VARIABLE, named.replace("{home}", str(home)))
    if named == "~kept":  # no such user
        with pytest.raises(EdgetuneError, match=r"EDGETUNE_CACHE is '~kept', and that user has no home"):
            answers(bundle, "int8")
        assert not list(here.iterdir())
        return
    answers(bundle, "int8")
    expected = {"kept": here / "kept", "a~/kept": here / "a~" / "kept"}.get(named, home / "kept")
    assert len(entries(expected)) == 1
    assert {*home.iterdir(), *here.iterdir()} == {expected if named != "a~/kept" else here / "a~"}
