"""Latency per prompt length: the engine's precisions compared with each other and with PyTorch, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np

from edgetune.bench.contenders import Contender, EngineSetup, Rows, Setup, TorchSetup
from edgetune.tables import aligned, fits
from edgetune_runtime import contract
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.errors import DataError
from edgetune_runtime.manifest import Manifest
from edgetune_runtime.parts import PARTS
from edgetune_runtime.session import cpu_name, has_int8_dot_product
from edgetune_runtime.task import Task

TORCH = "torch"
_TURNS = 4
_VARIANT = "light"  # these parts are usually trained
_TURN_PAUSE_S = 0.01  # lets the other contenders' threads go to sleep


@dataclass(frozen=True)
class Cell:
    """One row of the table: what to run. `prompt_length` is the length of the part that the method trains."""

    method: str
    prompt_length: int
    sequence_length: int
    batch_size: int


@dataclass(frozen=True)
class Timing:
    """Times of one contender in one cell, in milliseconds; `ratio` is the baseline's median divided by this median."""

    median_ms: float
    p95_ms: float
    runs: int
    ratio: float


@dataclass(frozen=True)
class Report:
    """All timings of a run, and the machine on which they were taken."""

    environment: Mapping[str, Any]
    baseline: str
    cells: Sequence[tuple[Cell, Mapping[str, Timing]]]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        cells = [
            {**asdict(cell), "contenders": {name: asdict(timing) for name, timing in timings.items()}}
            for cell, timings in self.cells
        ]
        return {"environment": dict(self.environment), "baseline": self.baseline, "cells": cells}


def grid(
    methods: Sequence[str], prompts: Sequence[int], sequences: Sequence[int], batches: Sequence[int]
) -> list[Cell]:
    """All cells. Length 0 is the same for every method, so it is listed once, under the first."""
    return [
        Cell(method, prompt, sequence, batch)
        for batch, sequence, method, prompt in product(batches, sequences, methods, prompts)
        if prompt > 0 or method == methods[0]
    ]


def measure(
    bundle: Bundle,
    cells: Sequence[Cell],
    *,
    precisions: Sequence[str],
    torch_model: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    seconds_per_cell: float = 4.0,
    progress: Callable[[Sequence[Cell]], Iterator[Cell]] = iter,
) -> Report:
    """Time every cell; the contenders take turns.

    Args:
        bundle: the bundle.
        cells: the cells to run.
        precisions: precisions of the bundle to compare.
        torch_model: the backbone for the comparison with PyTorch, in any form that `load_backbone` takes.
        device: "cpu" or "cuda", for all contenders.
        threads: threads of each contender; by default all that the process may use.
        seconds_per_cell: approximate measuring time per cell.
        progress: iterates over the cells, and may show the progress.

    Raises:
        BackboneError: `torch_model` is not the bundle's backbone.
        DataError: a cell is longer than the backbone supports.
    """
    threads = threads or available_threads()
    manifest = bundle.manifest
    longest = max(cell.sequence_length + (cell.prompt_length if cell.method == "prompt" else 0) for cell in cells)
    if longest > manifest.facts.max_positions:
        raise DataError(
            f"a text and its prompt of {longest} tokens are longer than {manifest.facts.name} reads: at most "
            f"{manifest.facts.max_positions}"
        )
    setups: dict[str, Setup] = {}
    if torch_model is not None:
        setups[TORCH] = TorchSetup(torch_model, manifest.facts.sha256, device, threads)
    for precision in precisions:
        setups[precision] = EngineSetup(str(bundle.path), precision, device, threads)
    measured = []
    with ExitStack() as stack:
        processes = {name: Contender(setup) for name, setup in setups.items()}
        contenders = {name: stack.enter_context(process) for name, process in processes.items()}
        for cell in progress(cells):
            task, rows = random_task(manifest, cell), random_rows(bundle, cell)
            for contender in contenders.values():
                contender.prepare(task, rows)
            measured.append((cell, take_turns(contenders, seconds_per_cell)))
    packages = ["torch", "transformers"] if torch_model is not None else []
    environment = {**machine(threads, *packages), "device": device, "base_model": manifest.facts.name}
    return Report(environment, next(iter(setups)), measured)


def machine(threads: int, *packages: str) -> dict[str, Any]:
    """The machine, the date and the versions, for the report."""
    return {
        "cpu": cpu_name(),
        "int8_dot_product": has_int8_dot_product(),
        "threads": threads,
        "date": time.strftime("%Y-%m-%d"),
        "versions": {package: version(package) for package in ("edgetune", "onnxruntime", "numpy", *packages)},
    }


def random_task(manifest: Manifest, cell: Cell) -> Task:
    """A task with the cell's part, filled with random numbers.

    Raises:
        DataError: no graph of the bundle takes this part.
    """
    random = np.random.default_rng(0)
    taken = manifest.facts.inputs_of(_VARIANT)
    parts = [part for part in PARTS.values() if part.title == cell.method and part.tensors[0] in taken]
    if not parts:
        raise DataError(f"the bundle of {manifest.facts.name} takes no {cell.method}: export it again")
    names = [name for part in parts for name in part.tensors]
    lengths = {"tasks": 1, "labels": 2, **{part.length: cell.prompt_length for part in parts}}
    tensors = {
        name: random.normal(0, 0.1, manifest.facts.sizes.shape(name, **lengths)[1:]).astype(np.float32)
        for name in [*names, contract.HEAD_WEIGHT, contract.HEAD_BIAS]
    }
    return Task(
        name="bench",
        labels=("a", "b"),
        backbone_sha256=manifest.facts.sha256,
        tensors=tensors,
        method=cell.method,
        base_model=manifest.facts.name,
        pooling=manifest.facts.poolings[0],
    )


def random_rows(bundle: Bundle, cell: Cell) -> Rows:
    """Token ids of the cell's size."""
    vocabulary = bundle.vocabulary_size()
    ids = np.random.default_rng(1).integers(0, vocabulary, (cell.batch_size, cell.sequence_length))
    rows: Rows = ids.tolist()
    return rows


def take_turns(contenders: Mapping[str, Contender], seconds: float, turns: int = _TURNS) -> dict[str, Timing]:
    """Time prepared contenders in turns, for about this long. The first is the baseline of the ratios."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, contender in contenders.items():
            times[name] += contender.run(seconds / turns / len(contenders))
            time.sleep(_TURN_PAUSE_S)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    baseline = next(iter(medians.values()))
    return {
        name: Timing(
            median_ms=round(medians[name], 3),
            p95_ms=round(float(np.percentile(values, 95)), 3),
            runs=len(values),
            ratio=round(baseline / medians[name], 3),
        )
        for name, values in times.items()
    }


def table(report: Report) -> str:
    """The report for people. The 95th percentiles are omitted if the table would be wider than 80 columns with them."""
    lines = _lines(report, with_p95=True)
    if not fits(lines):
        lines = _lines(report, with_p95=False)
    where = report.environment
    lines.append(
        f"ratio: {report.baseline}'s median over the contender's. {where['base_model']}, {where['cpu']}, "
        f"{where['threads']} threads, {where['device']}"
    )
    if where["int8_dot_product"] is False:
        lines.append("This CPU has no int8 dot product (VNNI): int8 gains less here than on one that has it.")
    return "\n".join(lines)


def _lines(report: Report, with_p95: bool) -> list[str]:
    header = ["method", "batch", "tokens", "length"]
    for name in report.cells[0][1]:
        header += [f"{name} ms", *(["p95"] if with_p95 else []), "ratio"]
    rows = []
    for cell, timings in report.cells:
        row = [cell.method, *map(str, (cell.batch_size, cell.sequence_length, cell.prompt_length))]
        for timing in timings.values():
            p95 = [f"{timing.p95_ms:.2f}"] if with_p95 else []
            row += [f"{timing.median_ms:.2f}", *p95, f"{timing.ratio:.2f}×"]
        rows.append(row)
    return aligned(header, rows)
