"""`edgetune score` on many rows: local processes and Ray beside one streaming process, and the memory that each takes.

    python benchmarks/scoring.py BUNDLE ROWS.jsonl --rows 1000000

The texts of ROWS.jsonl come again and again, with ids, as one JSONL file. The task is a random prefix of 20. Memory is
the largest sum over a run's processes of their own pages and their share of shared ones (PSS), looked at once a second;
Ray's own processes and its object store are among them. It is taken at a tenth of the rows too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import psutil
import pyarrow.dataset

from edgetune.benchmark import Cell, machine, random_task
from edgetune_runtime import Bundle

TASK = "scored"
WORKERS = 2


@dataclass(frozen=True)
class Run:
    """One run of a command: how long it took, and the memory that its processes held together."""

    rows: int
    seconds: float
    peak_mb: float

    @property
    def rows_per_s(self) -> float:
        """From the start of the command to its end."""
        return self.rows / self.seconds


def measure(command: list[str], rows: int, output: Path) -> Run:
    """Run a command and watch its processes."""
    began, peak = time.perf_counter(), 0.0
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "edgetune", *command], stdout=file, stderr=subprocess.PIPE)
        while process.poll() is None:
            peak = max(peak, sum(memory_mb(psutil.Process(process.pid))))
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {process.stderr.read().decode() if process.stderr else ''}")
    return Run(rows, seconds, peak)


def memory_mb(process: psutil.Process) -> Iterator[float]:
    """The share of memory of a process and of all below it."""
    try:
        for one in [process, *process.children(recursive=True)]:
            try:
                yield one.memory_full_info().pss / 1e6
            except psutil.Error:
                continue
    except psutil.Error:
        return


def write_rows(source: Path, rows: int, path: Path) -> None:
    """The source's texts again and again, with ids."""
    texts = [json.loads(line)["text"] for line in source.open(encoding="utf-8")]
    with path.open("w", encoding="utf-8") as file:
        for place, text in enumerate(islice(cycle(texts), rows)):
            file.write(json.dumps({"id": place, "text": text}, ensure_ascii=False) + "\n")


def contenders(bundle: Path, shard_rows: int, folder: Path) -> dict[str, Callable[[Path, str], list[str]]]:
    """What is compared: of the input and a name for the output, the command."""

    def score(engine: str, workers: int) -> Callable[[Path, str], list[str]]:
        def command(rows: Path, name: str) -> list[str]:
            options = ["--engine", engine, "--workers", str(workers), "--shard-rows", str(shard_rows)]
            return ["score", str(bundle), str(rows), "--task", TASK, "--out", str(folder / name), *options]

        return command

    return {
        "classify, one thread": lambda rows, name: [
            "classify",
            str(bundle),
            str(rows),
            "--task",
            TASK,
            "--threads",
            "1",
        ],
        "score, local, 1 worker": score("local", 1),
        f"score, local, {WORKERS} workers": score("local", WORKERS),
        f"score, Ray, {WORKERS} actors": score("ray", WORKERS),
    }


def same_rows(folder: Path, names: list[str], rows: int) -> None:
    """Stop unless all outputs have each id once, in order, and the same bytes."""
    first, *others = [folder / name for name in names]
    ids = pyarrow.dataset.dataset(first, format="parquet").to_table(columns=["id"])["id"].to_pylist()
    if ids != list(range(rows)):
        raise SystemExit(f"{first} does not hold each row once, in order")
    parts = {path.name: path.read_bytes() for path in first.iterdir()}
    for other in others:
        if {path.name: path.read_bytes() for path in other.iterdir()} != parts:
            raise SystemExit(f"{other} differs from {first}")


def _plain(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rows", default=20_000, show_default=True)
@click.option("--shard-rows", default=10_000, show_default=True)
def main(bundle: Path, source: Path, rows: int, shard_rows: int) -> None:
    """Measure rows a second and memory."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy = folder / "bundle"
        subprocess.run(["cp", "-r", str(bundle), str(copy)], check=True)
        opened = Bundle(copy)
        opened.add_task(replace(random_task(opened.manifest, Cell("prefix", 20, 1, 1)), name=TASK))
        runs: dict[str, list[Run]] = {}
        for share, number in (("tenth", rows // 10), ("whole", rows)):
            path = folder / f"{share}.jsonl"
            write_rows(source, number, path)
            compared = contenders(copy, min(shard_rows, max(1, number // 10)), folder)
            for name, command in compared.items():
                click.echo(f"{name}: {number:,} rows", err=True)
                output = f"{_plain(name)}-{share}"
                runs.setdefault(name, []).append(measure(command(path, output), number, folder / f"{output}.out"))
            same_rows(folder, [f"{_plain(name)}-{share}" for name in compared if "score" in name], number)
            again = f"score, local, {WORKERS} workers"
            output = f"{_plain(again)}-{share}"
            click.echo(f"{again}: once more, where all is there", err=True)
            known = measure(compared[again](path, output), number, folder / f"{output}.out")
            runs.setdefault("the same once more: nothing to do", []).append(known)
    one = runs["classify, one thread"][1].rows_per_s
    click.echo(
        "| contender | rows | rows/s | beside one process | peak MB | at a tenth of the rows |\n" + "|---" * 6 + "|"
    )
    for name, (tenth, whole) in runs.items():
        click.echo(
            f"| {name} | {whole.rows:,} | {whole.seconds:,.0f} | {whole.rows_per_s:,.0f} | "
            f"{whole.rows_per_s / one:.2f}× | "
            f"{whole.peak_mb:,.0f} | {tenth.peak_mb:,.0f} |"
        )
        found[name] = {"rows_per_s": whole.rows_per_s, "peak_mb": whole.peak_mb, "peak_mb_at_a_tenth": tenth.peak_mb}
        found[name] |= {"seconds": whole.seconds, "seconds_at_a_tenth": tenth.seconds}
    click.echo("All parts are alike, byte for byte, and hold each row once.\n")
    click.echo(json.dumps({"environment": machine(WORKERS, "pyarrow", "ray"), "rows": rows, "scoring": found}))


if __name__ == "__main__":
    main()
