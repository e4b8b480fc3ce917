"""Malicious bundles and task files: each is rejected with a message, and no file outside is opened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE, HOSTILE_WHEN_RUN
from hostile.graphs import plain_graph

from edgetune_runtime import Bundle, probe
from edgetune_runtime.errors import BundleError

Outcomes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes(bundle_folder: Path) -> Outcomes:
    """The result of each case, all in one separate process."""
    command = [sys.executable, "-m", "hostile", bundle_folder]
    done = subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
    return {outcome["name"]: outcome for outcome in map(json.loads, done.stdout.splitlines())}


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) + len(HOSTILE_WHEN_RUN) >= 200


def test_the_bundle_that_they_are_made_of_is_sound(outcomes: Outcomes) -> None:
    assert outcomes["sound"]["told"] == "NoneType: None"
    assert outcomes["sound"]["outside"] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(outcomes: Outcomes, name: str) -> None:
    outcome = outcomes[name]
    assert outcome["refused"], outcome["told"]
    assert HOSTILE[name].message in outcome["told"]
    assert "\n" not in outcome["told"]
    assert "\x1b" not in outcome["told"]
    assert outcome["outside"] == []


def test_the_plain_graph_passes_the_probe(bundle_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    plain_graph()(folder)
    probe.probe_bundle(Bundle(folder), ["fp32", "int8"])


@pytest.mark.parametrize("name", HOSTILE_WHEN_RUN)
def test_what_only_running_shows_is_refused_by_the_probe(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(probe, "_TIME_S", 3.0)
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    HOSTILE_WHEN_RUN[name].change(folder)
    with pytest.raises(BundleError) as caught:
        probe.probe_bundle(Bundle(folder), ["fp32"])
    assert HOSTILE_WHEN_RUN[name].message in str(caught.value)
    assert "\n" not in str(caught.value)
