"""`edgetune score` on many rows: local processes and Ray compared with one streaming process, and their memory.

    python benchmarks/scoring.py BUNDLE ROWS.jsonl --rows 1000000

The texts of ROWS.jsonl are repeated, with ids, in one JSONL file. The task is a random prefix of 20, in int8. A tenth
of the rows is run first; contenders with one process run only those. Memory is the largest sum, over a run's processes,
of their own pages and their share of shared pages (PSS), sampled once per second, including Ray's own processes and its
object store.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import click
import psutil
import pyarrow.dataset

from edgetune.bench.latency import Cell, machine, random_task
from edgetune_runtime import Bundle

TASK = "scored"
WORKERS = 2
STREAM = "classify, one thread"
AGAIN = "score once more, where all is there"


@dataclass(frozen=True)
class Run:
    """One run of a command: its duration, and the total memory of its processes."""

    rows: int
    seconds: float
    peak_mb: float

    @property
    def rows_per_s(self) -> float:
        """Rows per second, from the start of the command to its end."""
        return self.rows / self.seconds


def measure(command: list[str], rows: int, output: Path) -> Run:
    """Run a command and watch its processes."""
    began, peak, pause_s = time.perf_counter(), 0.0, 0.1
    with output.open("wb") as file, output.with_suffix(".err").open("wb") as said:
        process = subprocess.Popen([sys.executable, "-m", "edgetune", *command], stdout=file, stderr=said)
        while process.poll() is None:
            peak = max(peak, sum(memory_mb(psutil.Process(process.pid))))
            with suppress(subprocess.TimeoutExpired):
                process.wait(pause_s)
            pause_s = min(1.0, pause_s * 1.2)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {output.with_suffix('.err').read_text()}")
    return Run(rows, seconds, peak)


def memory_mb(process: psutil.Process) -> Iterator[float]:
    """The memory share of a process and all its children."""
    try:
        for one in [process, *process.children(recursive=True)]:
            try:
                yield one.memory_full_info().pss / 1e6
            except psutil.Error:
                continue
    except psutil.Error:
        return


def write_rows(source: Path, rows: int, path: Path) -> None:
    """Write the source's texts repeatedly, with ids."""
    texts = [json.loads(line)["text"] for line in source.open(encoding="utf-8")]
    with path.open("w", encoding="utf-8") as file:
        for place, text in enumerate(islice(cycle(texts), rows)):
            file.write(json.dumps({"id": place, "text": text}, ensure_ascii=False) + "\n")


def contenders(bundle: Path, shard_rows: int, folder: Path, least: int) -> dict[str, Callable[[Path, str], list[str]]]:
    """The contenders with at least `least` workers: functions from the input and a name for the output to the
    command."""
    common = ["--task", TASK, "--precision", "int8"]

    def stream(rows: Path, name: str) -> list[str]:
        return ["classify", str(bundle), str(rows), *common, "--threads", "1"]

    def score(engine: str, workers: int) -> Callable[[Path, str], list[str]]:
        def command(rows: Path, name: str) -> list[str]:
            options = ["--engine", engine, "--workers", str(workers), "--shard-rows", str(shard_rows)]
            return ["score", str(bundle), str(rows), *common, "--out", str(folder / name), *options]

        return command

    compared = {
        STREAM: (stream, 1),
        "score, local, 1 worker": (score("local", 1), 1),
        f"score, local, {WORKERS} workers": (score("local", WORKERS), WORKERS),
        f"score, Ray, {WORKERS} actors": (score("ray", WORKERS), WORKERS),
    }
    return {name: command for name, (command, workers) in compared.items() if workers >= least}


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
    """Measure rows per second and memory."""
    tenth: dict[str, Run] = {}
    whole: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy = Bundle(shutil.copytree(bundle, folder / "bundle"))
        copy.add_task(replace(random_task(copy.manifest, Cell("prefix", 20, 1, 1)), name=TASK))
        for runs, number, least in ((tenth, rows // 10, 1), (whole, rows, 2)):
            path = folder / f"{number}.jsonl"
            write_rows(source, number, path)
            compared = contenders(copy.path, shard_rows, folder, least)
            for name, command in compared.items():
                click.echo(f"{name}: {number:,} rows", err=True)
                output = f"{number} {name}"
                runs[name] = measure(command(path, output), number, folder / f"{output}.out")
            same_rows(folder, [f"{number} {name}" for name in compared if name != STREAM], number)
            again = f"score, local, {WORKERS} workers"
            runs[AGAIN] = measure(compared[again](path, f"{number} {again}"), number, folder / "again.out")
    click.echo(report(tenth, whole))
    figures = {name: {"tenth": asdict(tenth[name]), "whole": asdict(whole[name])} for name in whole}
    figures |= {name: {"tenth": asdict(run)} for name, run in tenth.items() if name not in whole}
    click.echo(json.dumps({"environment": machine(WORKERS, "pyarrow", "ray"), "rows": rows, "scoring": figures}))


def report(tenth: dict[str, Run], whole: dict[str, Run]) -> str:
    """The figures as Markdown."""
    lines = ["| contender | rows | s | rows/s | vs one process | peak MB |", "|---" * 6 + "|"]
    for runs in (tenth, whole):
        for name, run in runs.items():
            beside = "" if name == AGAIN else f"{run.rows_per_s / tenth[STREAM].rows_per_s:.2f}×"
            figures = f"{run.rows:,} | {run.seconds:,.0f} | {run.rows_per_s:,.0f} | {beside} | {run.peak_mb:,.0f}"
            lines.append(f"| {name} | {figures} |")
    return "\n".join([*lines, "", "All parts are alike, byte for byte, and hold each row once.", ""])


if __name__ == "__main__":
    main()
