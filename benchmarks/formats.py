"""`edgetune score` on the same rows in every format, and only the reading; with --base also for another checkout.

    python benchmarks/formats.py BUNDLE ROWS.jsonl --rows 20000 --base ../earlier

The texts of ROWS.jsonl are repeated. The task is a random prefix of 20, in int8, with one worker, so that a slower
reader is visible. Each contender is a separate process; they take turns, and medians are compared. "Reading" scans a
file with ten times as many rows and reads all its shards, without an engine.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from edgetune.bench.latency import Cell, machine, random_task
from edgetune_runtime import Bundle

TASK = "scored"
NAMES = ("rows.jsonl", "rows.csv", "rows.parquet", "rows.csv.gz")
HERE = Path(__file__).parents[1]

_READ_NOW = """
from edgetune.data import sources
from edgetune.data.text_files import Reading
from edgetune.scoring import inputs
began = time.perf_counter()
columns, shards = inputs.scan(sources.find([path], print), Reading(), ["text"], 10_000, lambda number: None, print)
reader = inputs.reader(shards[0], columns, ["text"])
rows = sum(len(some.texts) for shard in shards for some in reader.read(shard))
"""
_READ_BEFORE = """
from edgetune.scoring.sources import find_files, format_of, scan
began = time.perf_counter()
columns, shards = scan(find_files([path]), 10_000, lambda number: None)
rows = sum(len(some.texts) for shard in shards for some in format_of(path).read(shard, columns, ["text"]))
"""


def write(texts: list[str], folder: Path) -> None:
    """Write the rows in every format, with an id and a number for each text."""
    records = [{"id": place, "text": text, "price": place / 7} for place, text in enumerate(texts)]
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(records[0]), *(list(record.values()) for record in records)])
    (folder / "rows.csv.gz").write_bytes(gzip.compress((folder / "rows.csv").read_bytes()))
    pq.write_table(pa.Table.from_pylist(records), folder / "rows.parquet")


def environment(tree: Path) -> dict[str, str]:
    """Environment variables that make Python use the packages of a checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(tree / name) for name in ("", "export", "runtime"))}


def scored_s(tree: Path, bundle: Path, rows: Path, out: Path) -> float:
    """Duration of a run of `edgetune score`, from start to end."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "edgetune", "score", bundle, rows, "--task", TASK, "--precision", "int8"]
    began = time.perf_counter()
    subprocess.run(
        [*map(str, command), "--workers", "1", "--out", str(out)],
        env=environment(tree),
        cwd=tree,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def read_s(tree: Path, rows: Path) -> float:
    """Time to scan a file and to read its shards."""
    read = _READ_NOW if (tree / "edgetune" / "data").is_dir() else _READ_BEFORE
    program = (
        f"import time; from pathlib import Path; path = Path({str(rows)!r})\n{read}\nprint(time.perf_counter() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(tree), cwd=tree, check=True, capture_output=True, text=True
    )
    return float(done.stdout.splitlines()[-1])


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, resolve_path=True))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--rows", default=20_000, show_default=True)
@click.option("--turns", default=3, show_default=True)
@click.option("--base", type=click.Path(path_type=Path), help="Another checkout, to compare with.")
def main(bundle: Path, source: Path, rows: int, turns: int, base: Path | None) -> None:
    """Measure."""
    texts = [json.loads(line)["text"] for line in source.open(encoding="utf-8")]
    trees = {"this": HERE, **({"base": base.resolve()} if base else {})}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "many").mkdir()
        write(list(islice(cycle(texts), rows)), folder)
        write(list(islice(cycle(texts), 10 * rows)), folder / "many")
        shutil.copytree(bundle, folder / "bundle")
        copied = Bundle(folder / "bundle")
        copied.add_task(random_task(copied.manifest, Cell("prefix", 20, 32, 1)).renamed(TASK))
        times: dict[tuple[str, str, str], list[float]] = {}
        for _ in range(turns):
            for name in NAMES:
                for tree, path in trees.items():
                    if tree == "base" and name.endswith(".gz"):
                        continue
                    scored = scored_s(path, folder / "bundle", folder / name, folder / "out")
                    times.setdefault(("score", name, tree), []).append(scored)
                    times.setdefault(("reading", name, tree), []).append(read_s(path, folder / "many" / name) / 10)
    medians = {key: rows / statistics.median(found) for key, found in times.items()}
    print(f"{rows:,} rows, medians of {turns} turns, rows/s")
    print(f"{'what':<10}{'file':<16}{'this':>12}{'base':>12}{'ratio':>9}")
    for what in ("score", "reading"):
        for name in NAMES:
            this, other = medians[what, name, "this"], medians.get((what, name, "base"))
            beside = "" if other is None else f"{other:>12,.0f}{this / other:>8.2f}×"
            print(f"{what:<10}{name:<16}{this:>12,.0f}{beside}")
    figures = {" ".join(key): round(found, 1) for key, found in medians.items()}
    print(json.dumps({"machine": machine(1, "pyarrow"), "rows": rows, "turns": turns, "rows_per_s": figures}))


if __name__ == "__main__":
    main()
