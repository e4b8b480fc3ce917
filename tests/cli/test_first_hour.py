"""Problems that stopped a first-time user, and the messages that they get now."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TEXTS, random_task
from serving import Serve

from edgetune.cli import cli
from edgetune.tables import WIDTH
from edgetune_runtime import Bundle


def run(*arguments: object, source: str | None = None) -> tuple[int, str, str]:
    """Status, output and messages of a command."""
    done = CliRunner().invoke(cli, list(map(str, arguments)), input=source)
    told = done.stderr + ("" if done.exception is None else f"{done.exception}")
    return done.exit_code, done.stdout, told


@pytest.fixture
def here(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle without tasks, and a file of tickets."""
    bare = shutil.ignore_patterns("tasks")
    shutil.copytree(bundle_folder, tmp_path / "bundle", ignore=bare)
    rows = "".join(f'"{text}",label{place % 2}\n' for place, text in enumerate(TEXTS))
    (tmp_path / "tickets.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_only_task_need_not_be_named(here: Path) -> None:
    Bundle("bundle").add_task(random_task(Bundle("bundle"), "tickets", prefix=3))
    status, printed, _ = run("classify", "bundle", source="where is my parcel?\n")
    assert (status, json.loads(printed)["task"]) == (0, "tickets")


def test_one_of_several_tasks_must_be_named_before_any_row_fails(here: Path) -> None:
    for name in ("tickets", "mood"):
        Bundle("bundle").add_task(random_task(Bundle("bundle"), name, prefix=3))
    status, printed, told = run("classify", "bundle", "tickets.csv")
    assert (status, printed) == (1, "")
    assert told == f"none of the first {len(TEXTS)} rows names a task: add --task; bundle has mood, tickets"
    (here / "odd.jsonl").write_text('{"text": 1}\n')
    assert "no row was classified: all 1 are errors; the rows say why" in run("classify", "bundle", "odd.jsonl")[2]
    (here / "own.csv").write_text('text,task\n"it broke",mood\n')
    status, printed, _ = run("classify", "bundle", "own.csv")
    assert (status, json.loads(printed)["task"]) == (0, "mood")


def test_a_folder_that_is_missing_is_said_to_be(here: Path) -> None:
    message = "bundel is not a bundle (there is no such folder): expected a folder that 'edgetune export' wrote"
    for command in (["fit", "bundel", "--data", "tickets.csv", "--name", "a"], ["classify", "bundel", "tickets.csv"]):
        assert run(*command)[::2] == (1, message)


def test_a_name_that_cannot_be_used_is_refused_before_rows_are_read(here: Path) -> None:
    status, _, told = run("fit", "bundle", "--data", "tickets.csv", "--name", "my tickets")
    assert status == 1
    assert told.startswith("task name 'my tickets' cannot be used: expected 1 to 64 letters"), "nothing is read before"
    made = ("train", "MiniLM", "--data", "tickets.csv", "--name", "my tickets", "--out", "a.safetensors")
    assert run(*made)[2].startswith("task name 'my tickets' cannot be used")


def test_a_model_that_is_missing_is_looked_for_on_the_hub_and_that_is_said(here: Path) -> None:
    status, _, told = run("export", "MiniLM", "new")
    assert status == 1
    assert "the model MiniLM cannot be loaded (there is no such folder here, and from the hub: " in told


def test_an_export_without_tasks_says_what_comes_next(here: Path, model_folder: Path) -> None:
    status, printed, told = run("export", model_folder, "new")
    assert status == 0
    assert told.splitlines()[-1].startswith("next, make a task: edgetune fit new --data FILE --name NAME")
    assert "no labels" not in printed and "accuracy" not in printed


def test_tables_fit_a_terminal(here: Path) -> None:
    bundle = Bundle("bundle")
    for name in ("tickets", "support-urgency"):
        bundle.add_task(random_task(bundle, name, prefix=3, kind_name="multi-label"))
    bundle.add_task(random_task(bundle, "wide", prefix=3, labels=20))
    (here / "wide.csv").write_text(
        "text,label\n" + "".join(f'"{text}",label{place % 20}\n' for place, text in enumerate(TEXTS * 3))
    )
    for command in (
        ["--help"],
        ["tasks", "list", "bundle"],
        ["evaluate", "bundle", "--task", "wide", "--data", "wide.csv"],
        ["bench", "bundle", "--seconds-per-cell", "0", "--prompt-lengths", "0", "--sequence-lengths", "8"],
    ):
        status, printed, told = run(*command)
        assert status == 0, told
        lines = [line for line in printed.splitlines() if not line.startswith(("{", "task wide", "ratio:"))]
        assert max(map(len, lines)) <= WIDTH, command
        if command[0] == "evaluate":
            assert "confusions, the most frequent first (--json has the whole table):" in printed


def test_a_task_that_came_while_the_server_ran(here: Path, serve: Serve) -> None:
    with serve(here / "bundle") as server, server.client() as client:
        Bundle("bundle").add_task(random_task(Bundle("bundle"), "late", prefix=3))
        answer = client.post("/v1/classify", json={"model": "late", "input": "a"})
        assert answer.status_code == 404
        assert "task 'late' is in the bundle's folder and not in use" in answer.json()["error"]
        assert "start the server again" in answer.json()["error"]
        answer = client.post("/v1/classify", json={"model": "../late", "input": "a"})
        assert answer.json()["error"] == "there is no task '../late': GET /tasks lists the tasks"


def test_a_port_that_is_in_use(here: Path, serve: Serve) -> None:
    with serve(here / "bundle") as server:
        command = [sys.executable, "-m", "edgetune", "serve", "bundle", "--trust", "--port", str(server.port)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 1
        assert f":{server.port} cannot be listened on (another program uses it): choose another" in done.stderr
