"""`evaluate --report` and `--errors`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import MakeTask
from kinds_of_tasks import TASKS, answers, bundle_of_kinds, given, target_of

from edgetune.cli import cli
from edgetune_runtime.kinds import KINDS, Kind


@pytest.fixture(scope="module")
def kinds(bundle_folder: Path, make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of_kinds(bundle_folder, make_task, tmp_path_factory.mktemp("kinds") / "bundle")


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Rows for the task that the test's parameter names."""
    name = request.node.callspec.params.get("name", "mood")
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for place, text in enumerate(given(name)):
            one, *second = [text] if isinstance(text, str) else text
            row = {"text": one, "label": kind_of(name).written(target_of(name, place))}
            row |= {"text_pair": second[0]} if second else {}
            file.write(json.dumps(row) + "\n")
    return path


def kind_of(name: str) -> Kind:
    """The kind of a task of `TASKS`."""
    return KINDS[TASKS[name][1].get("kind_name", "single-label")]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("name", TASKS)
def test_both(kinds: Path, data: Path, name: str, tmp_path: Path) -> None:
    page, errors = tmp_path / "new" / "report" / "report.html", tmp_path / "other" / "wrong.jsonl"
    arguments = (kinds, "--task", name, "--data", data)
    done = run(*arguments, "--report", page.parent, "--errors", errors)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in errors.read_text().splitlines()]
    assert f"report: {page}\nerrors: {errors} ({len(rows)} rows)\n" in done.stderr
    assert page.read_text().startswith("<!doctype html>")
    results = answers(kinds, name)
    wanted = {
        f"{data}, line {place + 1}": result
        for place, result in enumerate(results)
        if kind_of(name).wrong_by(result, target_of(name, place))
    }
    assert {row["place"] for row in rows} == set(wanted)
    for row in rows:
        text = given(name)[int(row["place"].rpartition(" ")[2]) - 1]
        assert text == ((row["text"], row["text_pair"]) if "text_pair" in row else row["text"])
        assert row.keys() >= {"right", "status", *wanted[row["place"]].fields()}


@pytest.mark.parametrize("name", ["mood"])
def test_nothing_else_is_printed(kinds: Path, data: Path, name: str, tmp_path: Path) -> None:
    arguments = (kinds, "--task", name, "--data", data)
    more = ("--report", tmp_path / "report", "--errors", tmp_path / "wrong.jsonl")
    plain, both = run(*arguments), run(*arguments, *more)
    assert (
        plain.stdout.partition(" rows, ")[2].partition("\n")[2]
        == both.stdout.partition(" rows, ")[2].partition("\n")[2]
    )
    plain, both = (json.loads(run(*arguments, "--json", *one).stdout) for one in ((), more))
    assert list(both)[: len(plain)] == list(plain)
    assert {key: both[key] for key in list(both)[len(plain) :]} == {
        "report": str(tmp_path / "report" / "report.html"),
        "errors_file": str(tmp_path / "wrong.jsonl"),
    }
    assert both["errors"] == plain["errors"] == 0


def test_places_that_cannot_be_written_to_are_told_before_the_work(kinds: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for option in (("--report", tmp_path / "taken"), ("--errors", tmp_path / "taken" / "wrong.jsonl")):
        done = run(kinds, "--task", "mood", "--data", tmp_path / "none.jsonl", *option)
        assert done.exit_code == 1
        assert "taken cannot be written to: " in str(done.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_report_needs_no_torch_and_no_plots(kinds: Path, tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "rows.csv"
    path.write_text("text,label\ngood,label0\nbad,label1\n")
    blocked = "import sys\nfor name in ('torch', 'transformers', 'sklearn', 'matplotlib'): sys.modules[name] = None\n"
    program = f"{blocked}from edgetune.cli import main\nmain()"
    arguments = ["evaluate", kinds, "--task", "mood", "--data", path, "--report", tmp_path / "report"]
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, capture_output=True)
    assert (tmp_path / "report" / "report.html").exists()
