"""Files for releases: versions from one place, a workflow that calls existing files."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_changes_begin_with_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)$", changes, re.MULTILINE)
    assert newest is not None and newest[1] == PROJECT["version"] == version("edgetune")


def test_the_workflow_calls_what_exists() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    named = {word for line in runs for word in line.split() if "/" in word or word.endswith((".py", ".txt"))}
    assert {".ci/run", "tests/clean_wheel.py", "constraints.txt"} <= named
    assert all((ROOT / name).exists() for name in named)
    oldest, *_ = jobs["wheel"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={oldest}"


def test_the_hooks_run_tools_that_make_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert lint is not None
    tools = set(re.findall(r"\$\(BIN\)/(\w+)", lint[1]))
    assert {Path(hook["entry"].split()[0]).name for hook in hooks} == tools


def test_every_extra_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \| ", readme.partition("## Install")[2], re.MULTILINE)
    named = {name for cell in listed for name in re.findall(r"`([a-z]+)`", cell)} | {"train"}
    own = {"bench", "container", "dev", "docs", "torture"}  # for contributors
    assert named == set(PROJECT["optional-dependencies"]) - own
