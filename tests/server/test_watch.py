"""Tasks that change on disk while a server runs."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import TEXTS, MakeTask
from layouts import config_map
from serving import Serve, Server

from edgetune.server.catalog import Catalog
from edgetune.server.metrics import Metrics
from edgetune.server.watch import Watch
from edgetune.sync import open_place, sync
from edgetune_runtime import Bundle, Engine, Task, files

LONGEST_S = 30


@pytest.fixture
def own_bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


class Watched:
    """The parts of a server, without the server; it checks on request."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.catalog = engine, Catalog(engine)
        self.metrics = Metrics(lambda: 0)
        self.watch = Watch(engine.bundle, self.catalog, self.metrics)
        self.watch.begin()
        assert list(self.catalog.read()) == []

    def versions(self) -> dict[str, str]:
        return {task.name: task.sha256 for task in self.catalog.tasks()}

    def looks(self, number: int = 2) -> dict[str, str]:
        for _ in range(number):
            self.watch.look()
        return self.versions()

    def changes(self, change: str) -> float:
        return self.metrics.task_changes.labels(change)._value.get()


@pytest.fixture
def watched(own_bundle: Path) -> Iterator[Watched]:
    with Engine(own_bundle, "fp32", threads=1) as engine:
        yield Watched(engine)


def write(bundle: Path, task: Task) -> None:
    (bundle / files.task_file(task.name)).write_bytes(task.to_bytes())


def test_tasks_come_change_and_go(watched: Watched, own_bundle: Path, make_task: MakeTask) -> None:
    new, other = make_task("mood"), make_task("colour", prefix=6, seed=9)
    for task in (new, other):
        Bundle(own_bundle).add_task(task)
    Bundle(own_bundle).remove_task("size")
    old = watched.versions()
    assert watched.looks(1) == old  # not yet: what was seen may still be written
    assert watched.looks(1) == {"colour": other.sha256, "mood": new.sha256}
    assert (watched.changes("load"), watched.changes("unload")) == (2, 1)
    assert watched.engine.classify(TEXTS[:1], task="mood")
    assert watched.looks(3) == {"colour": other.sha256, "mood": new.sha256}
    assert (watched.changes("load"), watched.changes("unload")) == (2, 1)


def test_what_is_still_written_is_not_read(
    watched: Watched, own_bundle: Path, make_task: MakeTask, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task("colour", prefix=6, seed=9)
    data, old = task.to_bytes(), watched.versions()
    for end in range(len(data) // 4, len(data), len(data) // 4):
        (own_bundle / files.task_file("colour")).write_bytes(data[:end])
        assert watched.looks(1) == old
    write(own_bundle, task)
    assert watched.looks()["colour"] == task.sha256
    assert caplog.records == []


def test_a_bad_file_is_told_once_and_the_old_task_goes_on(
    watched: Watched, own_bundle: Path, make_task: MakeTask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgetune.server")
    logging.getLogger("edgetune").propagate = True
    old = watched.versions()
    for name in ("colour", "new"):
        (own_bundle / files.task_file(name)).write_bytes(b"no task")
    assert watched.looks(5) == old
    told = [record.msg for record in caplog.records]
    assert [one["event"] for one in told] == ["task_left_out", "task_left_out"]
    assert watched.engine.classify(TEXTS[:1], task="colour")
    mended = make_task("new")
    write(own_bundle, mended)
    assert watched.looks() == {**old, "new": mended.sha256}


def test_a_task_of_another_backbone_is_left_out(watched: Watched, own_bundle: Path, make_task: MakeTask) -> None:
    import dataclasses

    old = watched.versions()
    write(own_bundle, dataclasses.replace(make_task("colour"), backbone_sha256="0" * 64))
    assert watched.looks() == old


def test_without_the_folder_all_goes_on(
    watched: Watched, own_bundle: Path, make_task: MakeTask, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("edgetune").propagate = True
    old = watched.versions()
    (own_bundle / files.TASKS).rename(own_bundle / "away")
    assert watched.looks(4) == old
    assert [record.msg["event"] for record in caplog.records] == ["watch_failed"]  # type: ignore[index]
    (own_bundle / "away").rename(own_bundle / files.TASKS)
    Bundle(own_bundle).add_task(make_task("mood"))
    assert watched.looks().keys() == {"colour", "mood", "size"}


def test_a_config_map_changes_at_once(bundle_folder: Path, tmp_path: Path, make_task: MakeTask) -> None:
    folder = config_map(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    tasks = folder / files.TASKS
    with Engine(folder, "fp32", threads=1) as engine:
        watched = Watched(engine)
        old = watched.versions()
        new = {name: make_task(name, seed=7) for name in ("colour", "size")}
        day = tasks / "..2026_11_27_00_00_00.456"
        day.mkdir()
        for name, task in new.items():
            (day / f"{name}{files.TASK_SUFFIX}").write_bytes(task.to_bytes())
        assert watched.looks(3) == old
        (tasks / "..data_tmp").symlink_to(day.name)
        (tasks / "..data_tmp").rename(tasks / "..data")
        assert watched.looks(1) == old
        assert watched.looks(1) == {name: task.sha256 for name, task in new.items()}


def test_what_a_client_has_loaded_is_no_change(watched: Watched, make_task: MakeTask) -> None:
    task = make_task("colour", prefix=6, seed=9)
    watched.catalog.put("colour", task.to_bytes())
    watched.looks(3)
    assert watched.versions()["colour"] == task.sha256
    assert watched.changes("load") == 0  # which the route counts


def test_tasks_of_the_engine_alone_stay(own_bundle: Path, make_task: MakeTask) -> None:
    mine, own = make_task("mine"), make_task("colour", seed=3)
    with Engine(own_bundle, "fp32", threads=1) as engine:
        engine.add_task(mine)
        engine.add_task(own)
        Bundle(own_bundle).add_task(make_task("colour", seed=4))
        Bundle(own_bundle).remove_task("size")
        changes = engine.refresh_tasks()
        assert (changes.added, changes.replaced, changes.removed) == ((), (), ("size",))
        assert engine.task("colour").sha256 == own.sha256
        assert engine.task_names == ["colour", "mine"]
        engine.remove_task("colour")
        assert engine.refresh_tasks().added == ("colour",)


# A real server.


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def versions(server: Server) -> dict[str, str]:
    return {one["task"]: one["version"] for one in httpx.get(f"{server.url}/tasks").json()["tasks"]}


def test_a_server_takes_what_a_sync_brings_while_it_answers(
    own_bundle: Path, tmp_path: Path, serve: Serve, make_task: MakeTask
) -> None:
    source = shutil.copytree(own_bundle, tmp_path / "source")
    with serve(own_bundle, "--watch", "--watch-seconds", "0.1") as server:
        task = make_task("colour", prefix=6, seed=9)
        Bundle(source).add_task(task)
        Bundle(source).add_task(make_task("mood"))
        Bundle(source).remove_task("size")
        sync(open_place(str(source)), open_place(str(own_bundle)), delete=True)
        expected = {name: Bundle(source).load_task(name).sha256 for name in ("colour", "mood")}
        until(lambda: versions(server) == expected)  # a look in the middle of the sync finds a part of it
        answer = httpx.post(f"{server.url}/v1/classify", json={"model": "mood", "input": TEXTS[0]})
        with Engine(source, threads=1) as engine:
            assert answer.json()["data"][0]["label"] == engine.classify(TEXTS[:1], task="mood")[0].label
        assert httpx.post(f"{server.url}/v1/classify", json={"model": "size", "input": "a"}).status_code == 404
        until(lambda: any("tasks_changed" in line for line in server.said))
        assert 'edgetune_task_changes_total{change="load"} 2.0' in httpx.get(f"{server.url}/metrics").text


def test_wrong_usage_is_2(own_bundle: Path) -> None:
    command = [sys.executable, "-m", "edgetune", "serve", str(own_bundle), "--watch-seconds", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2
    assert "give that too" in done.stderr
