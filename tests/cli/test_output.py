"""Commands print UTF-8 whatever the locale, and no character makes one fail."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeTask

from edgetune_runtime import Bundle

LABEL = "größe 😀 赤い"
LOCALES = {
    "Windows, redirected": {"PYTHONIOENCODING": "cp1252"},
    "strict ASCII": {"PYTHONIOENCODING": "ascii:strict"},
    "UTF-16": {"PYTHONIOENCODING": "utf-16"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
locales = pytest.mark.parametrize("locale", LOCALES)


def environment(locale: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    return plain | LOCALES[locale]


@pytest.fixture
def labelled(bundle: Bundle, make_task: MakeTask, tmp_path: Path) -> Path:
    """A task file whose labels are of many scripts."""
    task = dataclasses.replace(make_task("umlaut", labels=2), labels=(LABEL, f"{LABEL} 2"))
    task.save(tmp_path / "umlaut.safetensors")
    return tmp_path / "umlaut.safetensors"


@locales
def test_ids_of_any_script_come_back(locale: str, bundle_folder: Path, labelled: Path) -> None:
    command = [sys.executable, "-m", "edgetune", "classify", str(bundle_folder), "--task", str(labelled)]
    rows = "".join(f'{{"id": "{LABEL} {place}", "text": "a"}}\n' for place in range(3)).encode()
    done = subprocess.run(command, input=rows, capture_output=True, env=environment(locale), check=True)
    answers = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [answer["id"] for answer in answers] == [f"{LABEL} {place}" for place in range(3)]
    assert all(LABEL in answer["label"] for answer in answers)


@locales
def test_every_command_prints_utf8(locale: str, bundle: Bundle, labelled: Path, tmp_path: Path) -> None:
    """Results and errors of all fast commands, one after the other in one process."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"text": "a", "label": "{LABEL}"}}\n', encoding="utf-8")
    place = str(bundle.path)
    calls = [
        ["classify", place, str(rows), "--task", str(labelled)],
        ["evaluate", place, "--task", str(labelled), "--data", str(rows)],
        ["evaluate", place, "--task", str(labelled), "--data", str(rows), "--json"],
        ["score", place, str(rows), "--task", str(labelled), "--out", str(tmp_path / LABEL), "--workers", "1"],
        ["score", place, str(rows), "--task", str(labelled), "--out", str(tmp_path / LABEL), "--json"],
        ["classify", place, str(rows), "--task", LABEL],
        ["tasks", "show", place, LABEL],
        ["verify", str(tmp_path / LABEL / "none")],
        ["serve", str(tmp_path / LABEL / "none")],
        ["bench", str(tmp_path / LABEL / "none"), "--json"],
        ["classify", "--nothing", LABEL],
        *([command, "--help"] for command in ("train", "export", "classify", "score", "serve", "tasks", "verify")),
    ]
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "from edgetune.cli import main\n"
        "if __name__ == '__main__':\n"
        "    for call in json.loads(sys.argv[1]):\n"
        "        sys.argv = ['edgetune', *(os.fsdecode(word.encode()) for word in call)]\n"  # as a shell passes them
        "        try:\n"
        "            main()\n"
        "        except SystemExit as end:\n"
        "            status = end.code\n"
        "        print(json.dumps({'ended': status or 0}), flush=True)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script, json.dumps(calls)], capture_output=True, env=environment(locale), check=False
    )
    printed, told = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == 0, told
    assert "Traceback" not in told
    ended = [json.loads(line)["ended"] for line in printed.splitlines() if line.startswith('{"ended"')]
    assert ended == [0] * 5 + [1] * 5 + [2] + [0] * 7, told
    assert printed.count(LABEL) >= 4
    assert told.count(LABEL if locale != "C" else "gr\\udcc3\\udcb6") >= 4


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are Unicode there")
@locales
def test_a_name_that_is_no_text_is_told_with_escapes(locale: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgetune", "verify", os.fsencode(tmp_path) + b"/gr\xff\xfe"]
    done = subprocess.run(command, capture_output=True, env=environment(locale), check=False)
    assert done.returncode == 1
    assert b"gr\\udcff\\udcfe is not a bundle" in done.stdout
    assert done.stdout.decode("utf-8").count("\n") == 1
