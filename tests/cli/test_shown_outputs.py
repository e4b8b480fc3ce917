"""The examples in docs/few-labels.md and docs/reports.md run, and their output has the shown form."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from conftest import TEXTS, MakeTask

from edgetune.cli import cli
from edgetune_runtime import Bundle

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(edgetune (?:.*\\\n)*.*)$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?<![.,])")


RECHECKED = re.compile(r"(int8) with [\d.]+% rechecked in fp32")
"""Text after int8 if an answer was a close call, which is chance here."""

UNSHOWN = {
    "classifying",
    "reading texts",
    "training multiplies in bf16, which this CPU is faster with (--mixed-precision no: fp32)",
}
"""Labels of progress bars, and what only some CPUs say: no page shows them."""


def form(output: str) -> list[str]:
    """Lines without their numbers."""
    output = RECHECKED.sub(r"\1", output)
    return [line for line in NUMBER.sub("#", output).strip().splitlines() if line not in UNSHOWN]


@pytest.fixture
def _here(
    bundle_folder: Path, model_folder: Path, make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with the files that the commands name, with short training runs."""
    Bundle(shutil.copytree(bundle_folder, tmp_path / "bundle")).add_task(make_task("trec"))
    (tmp_path / "MiniLM").symlink_to(model_folder)
    for name in ("tickets.csv", "dev.csv", "test.jsonl"):
        rows = [(text, f"label{place % 3}") for place, text in enumerate(TEXTS * 3)]
        lines = (
            [f'{{"text": "{text}", "label": "{label}"}}' for text, label in rows]
            if name.endswith("jsonl")
            else ["text,label", *(f'"{text}",{label}' for text, label in rows)]
        )
        (tmp_path / name).write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgetune.training.contrastive.STEPS", 2)
    monkeypatch.setattr("accelerate.utils.memory.gc", SimpleNamespace(collect=lambda: None))


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("page", ["few-labels.md", "reports.md"])
def test_a_page(page: str) -> None:
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    ran = 0
    for block in blocks:
        for command in COMMAND.finditer(block):
            done = CliRunner().invoke(cli, shlex.split(command[1].replace("\\\n", ""))[1:])
            assert done.exit_code == 0, f"{command[1]}: {done.output}{done.exception!r}"
            ran += 1
            if block.startswith("$ "):
                shown, came = form(block[command.end() :].partition("\n$ ")[0]), form(done.output)
                if shown[-1] == "…":  # and so on
                    shown.pop()
                    del came[len(shown) :]
                assert came == shown, done.output
    assert ran
