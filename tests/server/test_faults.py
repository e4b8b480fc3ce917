"""Short versions of the server's long tests (tests/torture)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torture.bad_input import raw
from torture.faults import swaps


@pytest.fixture
def own_bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def test_no_answer_is_of_two_versions_of_a_task(own_bundle: Path) -> None:
    assert swaps(own_bundle, number=60, seed=0, clients=3).failures == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_bad_input_over_raw_sockets(own_bundle: Path) -> None:
    assert raw(own_bundle, number=50, seed=0, attackers=24, calm_s=0.5, grace_s=10).failures == []
