"""Rows in every form in which others write them, read back: `tests/data/test_round_trips.py` at length.

    python tests/torture/tables.py --number 10000

Each case is some rows, any Unicode among them, written by one of `written.WRITERS` and read by the readers of `train`
and of `score`, which must give the same rows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from hypothesis import HealthCheck, given, settings
from reading import labelled, scored
from written import WRITERS, Rows, Write, tables


def check(write: Write, number: int) -> int:
    """Write tables and read them back; gives how many it were."""
    cases = 0

    @settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows=tables)
    def comes_back(rows: Rows) -> None:
        nonlocal cases
        cases += 1
        with tempfile.TemporaryDirectory() as folder:
            path = write(rows, Path(folder))
            assert labelled(path) == scored(path) == rows

    comes_back()
    return cases


@click.command()
@click.option("--number", default=10_000, show_default=True, help="Cases, shared out among the ways to write.")
def main(number: int) -> None:
    """Write rows and read them back; the first that do not come back end it."""
    began, cases = time.monotonic(), 0
    for name, write in WRITERS.items():
        found = check(write, -(-number // len(WRITERS)))
        click.echo(f"{name:<32}{found:>7,} cases")
        cases += found
    click.echo(f"{cases:,} cases, {len(WRITERS)} ways to write: all rows came back, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
