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
from written import WRITERS, Rows, tables


@click.command()
@click.option("--number", default=10_000, show_default=True, help="Cases, shared out among the ways to write.")
def main(number: int) -> None:
    """Write rows and read them back; the first that do not come back end it."""
    began, cases = time.monotonic(), 0
    for name, write in WRITERS.items():

        @settings(max_examples=-(-number // len(WRITERS)), deadline=None, suppress_health_check=list(HealthCheck))
        @given(rows=tables)
        def comes_back(rows: Rows, write: object = write) -> None:
            nonlocal cases
            cases += 1
            with tempfile.TemporaryDirectory() as folder:
                path = write(rows, Path(folder))  # type: ignore[operator]
                assert labelled(path) == scored(path) == rows

        before = cases
        comes_back()
        click.echo(f"{name:<32}{cases - before:>7,} cases")
    click.echo(f"{cases:,} cases, {len(WRITERS)} ways to write: all rows came back, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
