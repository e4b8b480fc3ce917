"""`edgetune bench`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.flags import Command
from edgetune.cli.options import BUNDLE, FILE, device_option, json_option, print_json
from edgetune_runtime.errors import needs

if TYPE_CHECKING:
    from edgetune.bench.latency import Cell


class _Numbers(click.ParamType[list[int]]):
    """Comma-separated integers."""

    name = "N,N,…"

    def __init__(self, least: int) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        try:
            numbers = [int(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 0,20,100", param, ctx)
        if min(numbers) < self._least:
            self.fail(f"{value!r} has a number below {self._least}", param, ctx)
        return numbers


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--prompt-lengths",
    type=_Numbers(0),
    default="0,5,20,50,100",
    show_default=True,
    help="Lengths of prompts, or ranks, or numbers of units.",
)
@click.option("--sequence-lengths", type=_Numbers(1), default="32,128", show_default=True, help="Tokens of a text.")
@click.option("--batch-sizes", type=_Numbers(1), default="1,16", show_default=True, help="Texts at once.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(["prefix", "prompt", "low-rank", "units"]),
    default=["prefix", "prompt"],
    show_default=True,
    help="Part of the task; may be repeated.",
)
@click.option(
    "--precision", "precisions", multiple=True, help="Precision to measure; repeatable. [default: all of the bundle]"
)
@click.option("--against-torch", metavar="MODEL", help="Compare with PyTorch running the bundle's backbone MODEL.")
@device_option
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each contender. [default: all]")
@click.option("--seconds-per-cell", type=click.FloatRange(0), default=4.0, show_default=True, help="Time for each row.")
@click.option("--plot", type=FILE, help="Draw the latencies to this PNG file.")
@json_option
def bench(
    bundle: Path,
    prompt_lengths: list[int],
    sequence_lengths: list[int],
    batch_sizes: list[int],
    methods: tuple[str, ...],
    precisions: tuple[str, ...],
    against_torch: str | None,
    device: str,
    threads: int | None,
    seconds_per_cell: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure the latency for each prompt length, and compare precisions and PyTorch in one run.

    Prints a table, and the same figures as one JSON object on the last line.

    \b
    Example:
      edgetune bench bundle --against-torch ./MiniLM --plot latency.png
    """
    from edgetune.bench.latency import grid, measure, table
    from edgetune_runtime.bundle import Bundle

    if plot is not None:
        with needs("plot"):
            import matplotlib  # noqa: F401 - before any work is done
    if against_torch is not None:
        with needs("export"):
            import torch  # noqa: F401
            import transformers  # noqa: F401
    opened = Bundle(bundle)
    chosen = [opened.precision(name) for name in precisions or sorted(opened.manifest.graphs)]
    report = measure(
        opened,
        grid(methods, prompt_lengths, sequence_lengths, batch_sizes),
        precisions=chosen,
        torch_model=against_torch,
        device=device,
        threads=threads,
        seconds_per_cell=seconds_per_cell,
        progress=progress_bar,
    )
    if not as_json:
        click.echo(table(report))
    if plot is not None:
        from edgetune.bench.plots import plot_latency

        plot_latency(report, plot)
    print_json(report.to_dict())


def progress_bar(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Iterate over the cells with a progress bar on stderr."""
    with click.progressbar(cells, label="measuring", file=sys.stderr) as bar:
        yield from bar
