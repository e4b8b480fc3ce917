"""The output of `edgetune score` when it, or its workers, are killed.

    python tests/torture/runs.py all                    (or one of: workers, drivers, ray_actors, ray_drivers)

SIGKILL at random moments: for a run's workers or actors, one after the other, or for the whole run, which is then
started again. After it the folder holds whole parts only, each of them one of the unbroken run's, byte for byte; in the
end all of them, with the manifest, and nothing else that is read as output. Needs Linux.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from conftest import TEXTS
from torture.common import Findings, Parts, command

ROWS, SHARD_ROWS = 12_000, 100
LIMIT_S = 300.0
BEGUN_S = 3.0
"""A worker is older than this when it has read its graph and is past its first shard."""

_MANIFEST = "_manifest.json"
_WORKER, _ACTOR = "spawn_main", "MapWorker"
"""In the command lines of those to be killed."""


def workers(bundle: Path, number: int, seed: int) -> Findings:
    """Worker processes are killed; the run goes on."""
    return _kills("workers", bundle, number, seed, "local", _WORKER)


def drivers(bundle: Path, number: int, seed: int) -> Findings:
    """The run itself is killed, and started again."""
    return _kills("drivers", bundle, number, seed, "local", None)


def ray_actors(bundle: Path, number: int, seed: int) -> Findings:
    """Actors of Ray are killed; the run goes on."""
    return _kills("ray_actors", bundle, number, seed, "ray", _ACTOR)


def ray_drivers(bundle: Path, number: int, seed: int) -> Findings:
    """The run on Ray is killed, and its cluster with it, and started again."""
    return _kills("ray_drivers", bundle, number, seed, "ray", None)


def _kills(part: str, bundle: Path, number: int, seed: int, engine: str, victim: str | None) -> Findings:
    found = Findings(part, number)
    rows = bundle.parent / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps({'id': i, 'text': TEXTS[i % len(TEXTS)]})}\n" for i in range(ROWS)))
    unbroken = _whole_run(bundle, rows, bundle.parent / f"{part}-unbroken")
    chance = random.Random(f"{part} {seed}")
    place, runs = 0, 0
    while place < number:
        out = bundle.parent / f"{part}-{runs}"
        runs += 1
        while place < number and not (out / _MANIFEST).exists():
            with _run(bundle, rows, out, engine) as process:
                while place < number and _kill_while_it_runs(process, out, chance, victim):
                    place += 1
                if victim is not None:
                    status = process.wait(LIMIT_S)
                    found.expect(status == 0, f"run {runs}: exit status {status}")
                    missing = unbroken.keys() - {path.name for path in out.iterdir()}
                    found.expect(not missing, f"run {runs} ended without {sorted(missing)[:3]}")
            wrong = _wrong(out, unbroken)
            found.expect(not wrong, f"run {runs}, after a kill: {wrong}")
            found.counts["whole parts after kills"] += len(list(out.glob("*.parquet")))
            found.progress(place)
        final = _whole_run(bundle, rows, out)
        found.expect(final == unbroken, f"run {runs}: the output differs from that of an unbroken run")
        left = [path.name for path in out.iterdir() if path.name.endswith(".partial")]
        found.expect(not left, f"run {runs}: {left} are left")
    found.counts["runs"] = runs
    return found.end()


def _command(bundle: Path, rows: Path, out: Path, engine: str) -> list[str]:
    options = ["--task", "size,colour", "--out", str(out), "--shard-rows", str(SHARD_ROWS), "--workers", "2"]
    return [sys.executable, "-m", "edgetune", "score", str(bundle), str(rows), *options, "--engine", engine]


@contextmanager
def _run(bundle: Path, rows: Path, out: Path, engine: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        _command(bundle, rows, out, engine),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _whole_run(bundle: Path, rows: Path, out: Path) -> dict[str, bytes]:
    """A run to its end, on this machine; gives what can be read of its output."""
    subprocess.run(_command(bundle, rows, out, "local"), check=True, capture_output=True, timeout=LIMIT_S)
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}


def _kill_while_it_runs(process: subprocess.Popen[bytes], out: Path, chance: random.Random, victim: str | None) -> bool:
    """Wait until some more parts are there, and a random time more, and kill; tells whether it was not over before."""
    present = len(list(out.glob("*.parquet")))
    aim = present + chance.randrange(12) + (12 if present and victim is not None else 0)
    while len(list(out.glob("*.parquet"))) < aim or not out.exists():
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))
    if victim is None:
        workers = _workers(process, _WORKER) + _workers(process, _ACTOR)
        alive = process.poll() is None
        process.kill()
        process.wait()
        _, orphans = psutil.wait_procs(workers, timeout=30)
        if orphans:
            raise SystemExit(f"half a minute after a run was killed these still work: {orphans}")
        return alive
    while process.poll() is None:
        workers = _workers(process, victim)
        if present:  # later deaths are of those that have begun: three at one shard end a run, as they should
            workers = [worker for worker in workers if _age_s(worker) > BEGUN_S]
        if workers:
            os.kill(chance.choice(workers).pid, signal.SIGKILL)
            return True
        time.sleep(0.01)
    return False


def _workers(process: subprocess.Popen[bytes], title: str) -> list[psutil.Process]:
    """What works for a run, by what its command line has."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if title in " ".join(child.cmdline()):
                    found.append(child)
    return found


def _age_s(process: psutil.Process) -> float:
    try:
        return time.time() - float(process.create_time())
    except psutil.Error:
        return 0.0


def _wrong(out: Path, unbroken: dict[str, bytes]) -> list[str]:
    """What is read as output and is not a part of the unbroken run's."""
    return [
        path.name
        for path in out.iterdir()
        if not path.name.startswith(".") and path.read_bytes() != unbroken.get(path.name)
    ]


PARTS: Parts = {
    "workers": (workers, 50, 3),
    "drivers": (drivers, 50, 3),
    "ray_actors": (ray_actors, 10, 1),
    "ray_drivers": (ray_drivers, 10, 1),
}
"""Each part, how many deaths, and how many with `--quick`."""


if __name__ == "__main__":
    command("runs", PARTS)()
