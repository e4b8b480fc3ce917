"""Run all speed benchmarks, and write their results to benchmarks/results/speed.md, JSON and pictures.

    make bench DATA=FOLDER            (or: python benchmarks/run_all.py --data FOLDER)

Most of an hour on two cores; `--quick` takes a few minutes and shows that everything runs. Each benchmark is a separate
script, which prints Markdown tables and then one line of JSON. Run it on an idle machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bulk
import click
import peers
import pictures

from edgetune.bench.latency import Cell, random_task
from edgetune.demo.program import packaged_model
from edgetune_runtime import Bundle, files

HERE = Path(__file__).parent
TITLES = {
    "peers": "Latency compared with others",
    "bulk": "Rows a second over real texts",
    "tasks": "What tasks cost",
    "start": "Cold start and memory",
    "ceiling": "What the CPU gives",
}


def commands(minilm: Path, data: Path | None, work: Path, quick: bool) -> dict[str, list[str]]:
    """The arguments of every benchmark, after its name."""
    bundle = peers.prepare("MiniLM", minilm, work)[1] / "bundle"
    task = work / "task.safetensors"
    random_task(Bundle(bundle).manifest, Cell("prefix", 20, 1, 1)).save(task)
    found = {
        "peers": [str(minilm), "--work", str(work)],
        "bulk": [str(bundle), str(data)],
        "tasks": [str(bundle)],
        "start": [str(minilm), str(bundle), str(task)],
        "ceiling": [],
    }
    if data is None:
        del found["bulk"]
    return {name: [*found[name], *(["--quick"] if quick and name != "ceiling" else [])] for name in found}


def run(name: str, arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The tables and the figures of one benchmark."""
    click.echo(f"== {name}", err=True)
    process = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if process.returncode:
        raise SystemExit(f"{process.stdout}{name}.py failed: see above")
    tables, _, figures = process.stdout.rstrip().rpartition("\n")
    return tables, json.loads(figures)


def page(found: Mapping[str, tuple[str, dict[str, Any]]], drawn: Mapping[str, list[str]], how: str) -> str:
    """All tables and pictures as one page."""
    where = next(iter(found.values()))[1]["environment"]
    dot_product = {True: "with", False: "without", None: "perhaps with"}[where["int8_dot_product"]]
    versions: dict[str, str] = {}
    for _, figures in found.values():
        versions |= figures["environment"]["versions"]
    parts = [
        "# Speed",
        f"{where['cpu']}, {where['threads']} threads, {dot_product} int8 dot products (VNNI); {where['date']}; "
        f"{', '.join(f'{package} {number}' for package, number in sorted(versions.items()))}; {how}.",
        "Written by `make bench`; what was tried and decided is in [README.md](README.md).",
    ]
    for name, (tables, _) in found.items():
        documentation = (HERE / f"{name}.py").read_text().split('"""')[1].split("\n\n")
        parts += [f"## {TITLES[name]}", documentation[-1].strip(), tables]
        parts += [f"![{TITLES[name]}]({picture})" for picture in drawn.get(name, [])]
    return "\n\n".join(parts) + "\n"


def commit() -> str:
    """The commit that is measured."""
    described = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f"commit {described.stdout.strip() or 'unknown'}"


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Left out: no bulk.")
@click.option("--work", type=click.Path(path_type=Path), help="Where exported models are kept. [default: nowhere]")
@click.option("--out", type=click.Path(path_type=Path), help="[default: benchmarks/results; bench-output if --quick]")
@click.option("--quick", is_flag=True, help="Little of everything; the page says so.")
def main(data: Path | None, work: Path | None, out: Path | None, quick: bool) -> None:
    """Run every benchmark and write the results."""
    minilm = Path(packaged_model())
    out = out or (Path("bench-output") if quick else HERE / "results")
    out.mkdir(parents=True, exist_ok=True)
    how = f"{commit()}{', --quick' if quick else ''}"
    if data is None:
        click.echo("bulk is left out: it needs --data (make bench DATA=FOLDER)", err=True)
    elif missing := [name for name in bulk.DATA if not (data / name / "test.jsonl").is_file()]:
        raise click.UsageError(f"{data} has no {missing[0]}/test.jsonl: bulk classifies {', '.join(bulk.DATA)}")
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, arguments in commands(minilm, data, work or Path(scratch), quick).items():
            found[name] = run(name, arguments)
            files.write_atomic(out / f"{name}.json", (json.dumps(found[name][1]) + "\n").encode())
    drawn = {name: pictures.DRAW[name](figures, out) for name, (_, figures) in found.items() if name in pictures.DRAW}
    files.write_atomic(out / "speed.md", page(found, drawn, how).encode())
    click.echo(str(out / "speed.md"))


if __name__ == "__main__":
    main()
