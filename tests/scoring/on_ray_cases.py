"""`edgetune score --engine ray` on a local cluster writes the same bytes as local processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import TEXTS
from ray.util.placement_group import placement_group, remove_placement_group

from edgetune.scoring import local, on_ray
from edgetune.scoring.plan import Settings
from edgetune.scoring.run import score
from edgetune_runtime import Bundle
from edgetune_runtime.errors import EdgetuneError


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [json.dumps({"id": place, "text": TEXTS[place % len(TEXTS)]}) for place in range(60)]
    path.write_text("\n".join([*lines, "{", '{"text": 5}']))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_are_those_of_local_processes(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    settings = Settings(bundle_folder, ("size", "colour"), all_scores=True)
    score(settings, [rows_file], tmp_path / "local", local.make_parts, 1, shard_rows=5)
    summary = score(settings, [rows_file], tmp_path / "ray", on_ray.make_parts, 2, shard_rows=5)
    assert (summary.rows, summary.parts_made, summary.errors) == (62, 13, 2)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    for part in sorted((tmp_path / "ray").glob("*.parquet"))[2:5]:
        part.unlink()
    summary = score(settings, [rows_file], tmp_path / "ray", on_ray.make_parts, 0, shard_rows=5)
    assert summary.parts_made == 3
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_more_workers_than_the_cluster_has_room_for(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetuneError, match="3 workers need 3 CPUs, and the Ray cluster has 2 CPUs,"):
        score(Settings(bundle_folder, ("colour",)), [rows_file], tmp_path / "out", on_ray.make_parts, 3)


def test_how_many_workers_a_cluster_has_room_for() -> None:
    have = {"CPU": 8.0, "GPU": 3.0, "memory": 1e9}
    for needs, room in (({"CPU": 1}, 8), ({"CPU": 1, "GPU": 1}, 3), ({"CPU": 1, "GPU": 2}, 1), ({"CPU": 3}, 2)):
        assert on_ray._room(have, needs) == room


def test_a_cluster_that_others_keep_busy(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "BUSY_S", 1.0)
    others = placement_group([{"CPU": 1}])
    ray.get(others.ready())
    with pytest.raises(
        EdgetuneError, match=r"2 workers need 2 CPUs, and the Ray cluster has 2 CPUs, [01] of them free"
    ):
        score(Settings(bundle_folder, ("colour",)), [rows_file], tmp_path / "out", on_ray.make_parts, 2)
    remove_placement_group(others)


def test_an_error_of_an_actor_ends_the_run(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    def after_a_swap(*arguments: Any) -> Any:
        bundle = Bundle(tmp_path / "bundle")
        bundle.add_task(bundle.load_task("size").renamed("colour"))
        return on_ray.make_parts(*arguments)

    shutil.copytree(bundle_folder, tmp_path / "bundle")
    with pytest.raises(EdgetuneError, match="has not what the run was planned with"):
        score(Settings(tmp_path / "bundle", ("colour",)), [rows_file], tmp_path / "out", after_a_swap, 2)


# When the cluster ends with the module, it also ends everything that Ray Data still runs.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_stands_still_ends(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "STALL_S", 0.0)  # shorter than an actor takes to start
    with pytest.raises(EdgetuneError, match="no actor of Ray was heard of for 0 s"):
        score(Settings(bundle_folder, ("colour",)), [rows_file], tmp_path / "out", on_ray.make_parts, 1)


def test_a_bad_row_ends_a_strict_run(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgetune", "score", bundle_folder, rows_file, "--task", "colour", "--strict"]
    command += ["--out", tmp_path / "out", "--engine", "ray", "--shard-rows", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edgetune: rows.jsonl, line 61: not JSON")
    assert not (tmp_path / "out" / "_manifest.json").exists()


def test_a_cluster_that_is_not_there(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    # In a separate process, which has no cluster yet.
    command = [sys.executable, "-m", "edgetune", "score", bundle_folder, rows_file, "--task", "colour"]
    command += ["--out", tmp_path / "out", "--engine", "ray"]
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "edgetune: there is no Ray cluster at 127.0.0.1:1 (Connection refused)"
    )
