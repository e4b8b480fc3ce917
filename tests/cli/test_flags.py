"""Messages of the library name parameters, and those of the command line name flags."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import TEXTS, MakeTask

from edgetune.cli import cli
from edgetune.cli.flags import CALLED_HERE, Command, RenamedOption, in_flags
from edgetune.cli.options import note
from edgetune.data.labelled import read_labelled
from edgetune.data.requests import read_requests
from edgetune.training.options import parse_label_words
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.contract import POOLINGS
from edgetune_runtime.errors import BundleError, DataError, EdgetuneError, MissingPackageError, TaskError


@pytest.fixture
def error() -> list[EdgetuneError]:
    """What the command `fail` raises."""
    return []


@pytest.fixture
def app(error: list[EdgetuneError]) -> click.Group:
    """A program with three commands, of which `fail` runs."""

    @click.group()
    @click.version_option("1", "--version")
    def program() -> None: ...

    @program.command(cls=Command)
    @click.argument("model")
    @click.argument("inputs", metavar="INPUT...", default="")
    @click.option("-l", "--max-length")
    @click.option("--lr", "learning_rate")
    @click.option("--name", "--older-name", "names", cls=RenamedOption)
    @click.option("--no-quotes", "quotes", flag_value=False)
    @click.option("--on/--off", "running")
    @click.option("--kind", "kind_name")
    @click.option("--label-column", "label_columns")
    @click.option("--say", "message", default="")
    def fail(message: str, **_: object) -> None:
        if error:
            raise error[0]
        note(message)

    @program.group()
    def more() -> None: ...

    @more.command(cls=Command)
    @click.option("--pooling")
    @click.option("--there", "unlike")
    @click.option("--labels")
    @click.option("--input", "kind")
    def quiet(**_: object) -> None: ...

    @more.command(cls=Command)
    @click.option("--pooling")
    @click.option("--here", "unlike")
    def loud(**_: object) -> None: ...

    return program


SAID = [
    ("raise `max_length`", "raise --max-length"),  # the longer of two
    ("train with a lower `learning_rate`, or not", "train with a lower --lr, or not"),
    ("`names`: one", "--name: one"),  # not the old spelling, although it is longer
    ("say so with `quotes`", "say so with --no-quotes"),
    ("(`running` or `max_length`)", "(--on or --max-length)"),
    ("give it as `model`.", "give it as MODEL."),
    ("among `inputs`", "among INPUT..."),
    ("say `kind` score", "say --kind score"),  # not that of another command
    ("name it with `labels`", "name it with --label-column"),
    ("train it with `pooling` cls", "train it with --pooling cls"),  # another command has it
    ("is `unlike`", "is `unlike`"),  # two commands have it, with different names
    ("`nothing` of `message`", "`nothing` of --say"),
    ("the `version`", "the `version`"),  # in no command
    # Users' own text stays unchanged.
    ("the label '`max_length`' is `max_length`", "the label '`max_length`' is --max-length"),
    ('"`max_length`": 1', '"`max_length`": 1'),
    ("'it's `max_length`' came", "'it's `max_length`' came"),
    ("/tmp/`max_length`/rows.csv", "/tmp/`max_length`/rows.csv"),
    ("`max_length`.csv, line 1", "`max_length`.csv, line 1"),
    ("x`max_length`", "x`max_length`"),
    ("``max_length`` and `max length`", "``max_length`` and `max length`"),
    ("PEFT's `max_length`, and the task's `quotes`", "PEFT's --max-length, and the task's --no-quotes"),
    ("the tasks' `max_length` and 'a'", "the tasks' --max-length and 'a'"),
]


@pytest.mark.parametrize(("message", "said"), SAID)
def test_notes_name_flags(app: click.Group, message: str, said: str) -> None:
    done = CliRunner().invoke(app, ["fail", "m", "--say", message])
    assert (done.exit_code, done.stderr) == (0, f"{said}\n")


@pytest.mark.parametrize(("message", "said"), SAID)
def test_errors_name_flags(app: click.Group, error: list[EdgetuneError], message: str, said: str) -> None:
    error.append(TaskError(message))
    done = CliRunner().invoke(app, ["fail", "m"])
    assert done.exception is error[0]
    assert str(done.exception) == said


def test_an_error_that_keeps_more_than_its_message(app: click.Group, error: list[EdgetuneError]) -> None:
    error.append(MissingPackageError("pyarrow", "score"))
    assert "pip install 'edgetune[score]'" in str(CliRunner().invoke(app, ["fail", "m"]).exception)


def test_nothing_is_changed_outside_a_command() -> None:
    assert in_flags("raise `max_length`") == "raise `max_length`"


def commands(command: click.Command) -> Iterator[click.Command]:
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        yield one
        yield from commands(one)


def test_every_command_renders_its_errors() -> None:
    every = [one for one in commands(cli) if not isinstance(one, click.Group)]
    assert len(every) > 10
    assert [one.name for one in every if not isinstance(one, Command)] == []


def test_what_is_called_otherwise_here_is_a_parameter_here() -> None:
    assert set(CALLED_HERE.values()) <= {one.name for command in commands(cli) for one in command.params}


# ---- the same error, from Python and from the command line ----


def edgetune(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgetune", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def raised(call: Callable[[], object]) -> str:
    with pytest.raises(EdgetuneError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(f"review,kind\n{TEXTS[0]},a\n{TEXTS[1]},b\n")
    return path


def test_a_missing_column(bundle_folder: Path, rows: Path) -> None:
    python = raised(lambda: list(read_requests(rows)))
    assert "no column 'text' among review, kind: name it with `text_column`; if its first line" in python
    done = edgetune("classify", bundle_folder, rows, "--task", "colour")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"edgetune: {python.replace('`text_column`', '--text-column')}\n"


def test_a_missing_label_column(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good", "mood": "a"}\n')
    python = raised(lambda: read_labelled(str(path)))
    assert python.endswith("no column 'label' among text, mood: name it with `labels`")
    done = edgetune("evaluate", bundle_folder, "--data", path, "--task", "colour")
    assert done.stderr == f"edgetune: {python.replace('`labels`', '--label-column')}\n"


def test_a_column_that_is_called_like_a_parameter_stays_as_it_is(bundle_folder: Path, rows: Path) -> None:
    done = edgetune("classify", bundle_folder, rows, "--task", "colour", "--text-column", "`delimiter`")
    assert "no column '`delimiter`' among review, kind: name it with --text-column" in done.stderr


def test_the_problem_of_a_row(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("good\nüber\n".encode("latin-1"))
    ((_, row),) = list(read_requests(path, "text"))
    assert row.problem is not None and row.problem.endswith("such as cp1252, with `encoding`")
    done = edgetune("classify", bundle_folder, path, "--input", "text", "--task", "colour")
    assert json.loads(done.stdout.splitlines()[1])["error"] == row.problem.replace("`encoding`", "--encoding")


def test_a_parser_of_the_command_line() -> None:
    with pytest.raises(DataError, match=r"^`label_words` 'good' is not LABEL=WORD"):
        parse_label_words(["good"])


@pytest.fixture
def unfit(bundle: Bundle, make_task: MakeTask) -> Task:
    """A task with a pooling that the bundle's backbone does not have."""
    pooling = next(one for one in POOLINGS if one not in ("mask", *bundle.facts.poolings))
    return dataclasses.replace(make_task("unfit"), pooling=pooling)


def test_a_flag_that_another_command_has(bundle_folder: Path, unfit: Task, tmp_path: Path) -> None:
    file = tmp_path / "unfit.safetensors"
    unfit.save(file)
    python = raised(lambda: Engine(bundle_folder).find_task(str(file)))
    assert "train it again with `pooling` " in python
    done = edgetune("classify", bundle_folder, "--task", file, text="good\n")
    assert done.stderr == f"edgetune: {python.replace('`pooling`', '--pooling')}\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("command", [("verify",), ("tasks", "list"), ("tasks", "sync")], ids=" ".join)
def test_what_is_wrong_with_one_of_several_tasks(
    bundle_folder: Path, unfit: Task, tmp_path: Path, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    unfit.save(folder / "tasks" / "unfit.safetensors")
    to = [shutil.copytree(bundle_folder, tmp_path / "other")] if command[-1] == "sync" else []
    done = edgetune(*command, folder, *to, *options)
    assert "train it again with --pooling " in done.stdout + done.stderr
    assert "`pooling`" not in done.stdout + done.stderr


def test_what_the_engine_cannot_do(bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match=r"or `precision` fp32$"):
        Engine(bundle_folder, "int8", batch_size=2)
