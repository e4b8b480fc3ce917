"""Python on emulated ARM64 and the example in C++, compared with Python here: ids, labels and probabilities.

    python benchmarks/runtimes.py BUNDLE DATA [--machine neoverse-n1] [--machine max] [--arm-rows 20]

BUNDLE is what `benchmarks/javascript.py --work FOLDER` leaves in FOLDER/bundle: fp32, int8, and a task fitted to each
of six data sets in DATA, and a task with low rank; it is made of `--model` if it does not exist. C++ answers every text
that it takes: `classify` texts in ASCII for tasks with one label, `adapter` token ids for all tasks without pairs.
Emulated ARM64 answers --arm-rows texts of each data set, and tests/conformance. Python, qemu and headers are fetched as
`make arm64` and `make headers` do. Two emulated CPUs with 20 texts of each data set take some 20 minutes of one core,
or 45 on a machine that others use.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import click
import numpy as np
import onnxruntime
from click.testing import CliRunner
from six_tasks import PRECISIONS, ROOT, SETS, Row, agreement, make_bundle, python_answers, test_rows

from edgetune.bench.latency import machine
from edgetune.cli import cli
from edgetune_runtime import Bundle, Engine
from edgetune_runtime.session import int8_saturates

sys.path[:0] = [str(ROOT / "tests/machines")]

from on_machine import answer_of, conformance  # noqa: E402
from run import MACHINES, WORK, answers, build_wheel, fetch, fetch_machine, install  # noqa: E402

CONFORMANCE = ROOT / "tests/conformance"
CPP_TASKS = SETS[:4]
"""Those with one label and no pairs, which `classify` is for."""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", help="Make the bundle of this model if it does not exist.")
@click.option("--rows", default=1000, show_default=True, help="Test texts in all, as many of each data set.")
@click.option(
    "--machine", "machines", multiple=True, type=click.Choice(list(MACHINES)), help="Emulated; several times."
)
@click.option("--arm-rows", default=20, show_default=True, help="Test texts of each data set on emulated machines.")
def main(bundle: Path, data: Path, model: str | None, rows: int, machines: tuple[str, ...], arm_rows: int) -> None:
    """Measure."""
    if model is not None and not bundle.exists():
        make_bundle(model, data, bundle)
    texts = test_rows(data, rows)
    some = test_rows(data, arm_rows * len(SETS))
    click.echo(f"{'':<8}{'where':<24}{'texts':>7}{'same ids':>10}{'same labels':>13}{'probabilities ±':>17}")
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        expected = {precision: python_answers(bundle, precision, texts) for precision in PRECISIONS}
        programs = compiled(Path(scratch))
        for precision in ("fp32", "int8"):
            for line in in_cpp(programs, bundle, precision, texts, expected[precision]):
                found.append(shown(line))
        cases = {"Python": conformance(CONFORMANCE), "C++": cpp_conformance(programs)}
    seconds = {}
    wheel = build_wheel() if machines else None
    for name in machines:
        began = time.perf_counter()
        fetch_machine(MACHINES[name])
        told = on_machine(name, install(wheel, MACHINES[name]), bundle, some)
        seconds[name] = round(time.perf_counter() - began)
        cases[name] = told["conformance"]
        for precision in PRECISIONS:
            here = python_answers(bundle, precision, some)
            line = {**agreement(here, told["rows"][precision]), "precision": precision, "where": f"Python, {name}"}
            found.append(shown(line))
    for where, by_precision in cases.items():
        for precision, counts in by_precision.items():
            click.echo(f"conformance, {precision}, {where}: {counts}")
    click.echo(json.dumps({"agreement": found, "conformance": cases, "seconds": seconds, **machine(1)}))


def shown(line: Row) -> Row:
    """The same, as a line of the table."""
    ids = "given" if line["same_ids"] is None else line["same_ids"]
    click.echo(
        f"{line['precision']:<8}{line['where']:<24}{line['texts']:>7}{ids:>10}{line['same_labels']:>13}"
        f"{line['largest_difference']:>17.1e}"
    )
    return line


def on_machine(name: str, site: Path, bundle: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Its answers to tests/conformance and to rows."""
    file = WORK / f"rows-{name}.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return answers(MACHINES[name], site, bundle.resolve(), file, ",".join(PRECISIONS))


def compiled(folder: Path) -> Path:
    """The folder of the example's programs, and of `ids`, which prints what its tokenizer reads."""
    place = copytree(ROOT / "examples/cpp", folder / "cpp")
    copytree(ROOT / "benchmarks/cpp", place, dirs_exist_ok=True)
    fetch(["libonnxruntime-dev:amd64"], WORK / "headers")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    headers = WORK / "headers/usr/include/onnxruntime"
    subprocess.run(
        ["make", "-s", "adapter", "classify", "ids", f"INCLUDE={headers}", f"SHARED={library}"], cwd=place, check=True
    )
    return place


def in_cpp(folder: Path, bundle: Path, precision: str, rows: Sequence[Row], expected: Sequence[Row]) -> Iterator[Row]:
    """What `classify` makes of texts, and `adapter` of token ids, compared with Python."""
    told: dict[str, list[tuple[Row, Row]]] = {"text to label": [], "ids to logits": []}
    with Engine(bundle, precision, threads=1) as engine:
        for name in dict.fromkeys(row["task"] for row in rows):
            task = engine.task(name)
            if task.pairs:
                continue
            own = [(row["text"], wanted) for row, wanted in zip(rows, expected, strict=True) if row["task"] == name]
            adapter, about = exported(folder, bundle, name)
            graph = about["graphs"][list(engine.bundle.manifest.graphs).index(precision)]
            lines = [" ".join(map(str, wanted["ids"])) for _, wanted in own]
            for line, (_, wanted) in zip(
                run(folder / "adapter", bundle / graph, adapter, lines=lines), own, strict=True
            ):
                logits = np.array([[float(number) for number in line.split()]], np.float32)
                got = answer_of(task.kind.answer(logits, task).fields())
                told["ids to logits"].append((wanted, {**got, "ids": wanted["ids"]}))
            if name not in CPP_TASKS:
                continue
            own = [(text, wanted) for text, wanted in own if text.isascii()]
            texts = [" ".join(text.splitlines()) for text, _ in own]
            before = max(about["position_offset"], about["prompt_length"])
            most = min(about["max_length"], engine.bundle.facts.max_positions - before)
            ids = run(folder / "ids", bundle, most, lines=texts)
            labels = run(folder / "classify", bundle, graph, adapter, adapter.with_suffix(".json"), lines=texts)
            for read, line, (_, wanted) in zip(ids, labels, own, strict=True):
                label, score = line.split("\t")
                best = {"probs": [max(wanted["probs"])], "said": wanted["said"], "ids": wanted["ids"]}
                got = {"probs": [float(score)], "said": label, "ids": [int(number) for number in read.split()]}
                told["text to label"].append((best, got))
    for what, pairs in told.items():
        line = agreement([wanted for wanted, _ in pairs], [got for _, got in pairs])
        if what == "ids to logits":
            line["same_ids"] = None  # they are Python's
        yield {**line, "precision": precision, "where": f"C++, {what}"}


def exported(folder: Path, bundle: Path, name: str) -> tuple[Path, Row]:
    """A task's adapter, and what `classify` reads about it, which is written next to it."""
    adapter = folder / f"{name}.onnx_adapter"
    command = ["tasks", "export-adapter", str(bundle), name, "--out", str(adapter), "--json"]
    told = CliRunner().invoke(cli, command).stdout
    adapter.with_suffix(".json").write_text(told, encoding="utf-8")
    about: Row = json.loads(told)
    return adapter, about


def cpp_conformance(folder: Path) -> dict[str, Row]:
    """Logits of `adapter` for the cases of tests/conformance that it takes: one text, the mean of its tokens."""
    lines = (CONFORMANCE / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for case in map(json.loads, lines):
        if case["spans"] == [[0, len(case["ids"])]] and not any(case["type_ids"]) and "words" not in case:
            groups.setdefault((case["bundle"], case["precision"], case["task"]), []).append(case)
    found: dict[str, Row] = {}
    for (name, precision, task), cases in groups.items():
        bundle = CONFORMANCE / "bundle" / name
        adapter, about = exported(folder, bundle, task)
        if about["pooling"] != "mean":
            continue
        graph = about["graphs"][list(Bundle(bundle).manifest.graphs).index(precision)]
        ids = [" ".join(map(str, case["ids"])) for case in cases]
        told = found.setdefault(precision, {"largest_difference": 0.0, "cases": 0, "beyond": 0})
        for line, case in zip(run(folder / "adapter", bundle / graph, adapter, lines=ids), cases, strict=True):
            off = float(np.abs(np.array([float(number) for number in line.split()]) - case["logits"]).max())
            told["largest_difference"] = max(told["largest_difference"], off)
            told["cases"] += 1
            told["beyond"] += off > case["tolerance"]
    return found


def run(program: Path, *arguments: object, lines: Sequence[str]) -> list[str]:
    """What a program prints for lines of input."""
    exact = ["exact"] if int8_saturates() and program.name != "ids" else []
    given = "".join(f"{line}\n" for line in lines)
    command = [str(program), *map(str, arguments), *exact]
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
