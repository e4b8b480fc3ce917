"""Bundles whose files are links, and other files in the task folder: used or reported, never silently ignored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import TEXTS, MakeTask
from layouts import config_map, config_map_of_paths, hub_cache
from serving import Serve

from edgetune_runtime import Bundle, Engine
from edgetune_runtime.errors import BundleError, TaskError


@pytest.fixture
def copied(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgetune", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("layout", [config_map, config_map_of_paths, hub_cache])
def test_a_bundle_of_links_answers_as_the_files_do(
    copied: Path, bundle_folder: Path, layout: Callable[[Path], Path]
) -> None:
    folder = layout(copied)
    with Engine(bundle_folder, threads=1) as plain, Engine(folder, threads=1) as linked:
        assert linked.task_names == ["colour", "size"]
        for task in linked.task_names:
            assert linked.classify(TEXTS, task=task) == plain.classify(TEXTS, task=task)
    assert Bundle(folder).unread_tasks() == {}


def test_commands_take_a_mounted_task(copied: Path) -> None:
    config_map(copied)
    listed = json.loads(run("tasks", "list", str(copied), "--json").stdout)
    assert [task["task"] for task in listed["tasks"]] == ["colour", "size"]
    answer = run("classify", str(copied), "--task", "size", text="good\n")
    assert json.loads(answer.stdout)["status"] == "ok"


def test_a_day_later_the_new_task_is_read(copied: Path, make_task: MakeTask) -> None:
    config_map(copied)
    before = Bundle(copied).load_task("size")
    (copied / "tasks/..new").mkdir()
    for name in ("colour", "size"):
        make_task(name, seed=9).save(copied / f"tasks/..new/{name}.safetensors")
    (copied / "tasks/..data_tmp").symlink_to("..new")
    (copied / "tasks/..data_tmp").rename(copied / "tasks/..data")  # as Kubernetes does it
    assert Bundle(copied).load_task("size").sha256 != before.sha256


@pytest.fixture
def crowded(copied: Path, tmp_path: Path) -> Path:
    """A bundle with many other files in its task folder."""
    tasks = copied / "tasks"
    data = (tasks / "size.safetensors").read_bytes()
    (tmp_path / "elsewhere.safetensors").write_bytes(data)
    (tasks / "outside.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    (tasks / "nowhere.safetensors").symlink_to("nothing")
    (tasks / "folder.safetensors").mkdir()
    for name in ("binary.bin", "two words.safetensors", "größe.safetensors", "plain", ".hidden.safetensors"):
        (tasks / name).write_bytes(data)
    (tasks / "more").mkdir()
    return copied


UNREADABLE = {
    "folder": "Is a directory",
    "nowhere": "'nowhere.safetensors' is a link that leads nowhere",
    "outside": "'outside.safetensors' is a link that leads out of the bundle",
}
UNREAD = {"binary.bin", "two words.safetensors", "größe.safetensors", "plain", "more"}


def test_nothing_among_the_tasks_is_passed_over(crowded: Path) -> None:
    bundle = Bundle(crowded)
    assert bundle.task_names() == sorted(["colour", "size", *UNREADABLE])
    for name, why in UNREADABLE.items():
        with pytest.raises(TaskError, match=why):
            bundle.load_task(name)
    unread = bundle.unread_tasks()
    assert unread.keys() == UNREAD
    assert "does not end in .safetensors" in unread["binary.bin"]
    assert "its name is no task's" in unread["two words.safetensors"]
    with pytest.raises(TaskError, match=r"it has .*, and binary\.bin is none"):
        bundle.load_task("binary")


def test_tasks_list_tells_each_once(crowded: Path) -> None:
    found = run("tasks", "list", str(crowded))
    assert [line.split()[0] for line in found.stdout.splitlines()[1:]] == ["colour", "size"]
    for what in (*UNREADABLE.values(), *UNREAD):
        assert sum(what in line for line in found.stderr.splitlines()) == 1
    told = json.loads(run("tasks", "list", str(crowded), "--json").stdout)
    assert {one["task"] for one in told["unusable"]} == UNREADABLE.keys()
    assert told["unread"].keys() == UNREAD


def test_a_server_logs_each_once(crowded: Path, serve: Serve) -> None:
    with serve(crowded) as server:
        served = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert [one["id"] for one in served] == ["colour", "size"]
    lines = [json.loads(line)["error"] for line in server.said if "task_left_out" in line]
    assert len(lines) == len(UNREADABLE) + len(UNREAD)
    for what in (*UNREADABLE.values(), *UNREAD):
        assert sum(what in line for line in lines) == 1


def test_a_folder_of_tasks_that_leads_out_is_refused(copied: Path, tmp_path: Path, make_task: MakeTask) -> None:
    (copied / "tasks").rename(tmp_path / "tasks")
    (copied / "tasks").symlink_to(tmp_path / "tasks")
    bundle = Bundle(copied)
    for action in (
        bundle.task_names,
        bundle.unread_tasks,
        lambda: bundle.load_task("size"),
        lambda: bundle.add_task(make_task("size")),
        lambda: bundle.remove_task("size"),
    ):
        with pytest.raises(BundleError, match="leads out of the bundle"):
            action()
    assert len(list((tmp_path / "tasks").iterdir())) == 2


def test_a_graph_that_leads_nowhere_is_not_left_out(copied: Path) -> None:
    (copied / "onnx/model.onnx").unlink()
    (copied / "onnx/model.onnx").symlink_to("nothing")
    with Engine(copied) as engine, pytest.raises(BundleError, match="is a link that leads nowhere"):
        engine.open(1)


def test_a_task_that_is_a_link_is_replaced_and_removed_itself(copied: Path, make_task: MakeTask) -> None:
    config_map(copied)
    bundle, kept = Bundle(copied), copied / "tasks/..data/size.safetensors"
    before = kept.read_bytes()
    bundle.add_task(make_task("size", seed=5))
    assert not (copied / "tasks/size.safetensors").is_symlink()
    assert bundle.load_task("size").sha256 == make_task("size", seed=5).sha256
    bundle.remove_task("colour")
    assert bundle.task_names() == ["size"]
    assert kept.read_bytes() == before
    assert os.path.lexists(copied / "tasks/..data/colour.safetensors")
