"""Options that commands share, and their values."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from edgetune.cli import options
from edgetune.data.labelled import Columns
from edgetune_runtime.kinds import KINDS


@click.command()
@options.column_options
@options.kind_option
def show(
    text_column: str,
    label_columns: tuple[str, ...],
    text_pair_column: str | None,
    kind_name: str | None,
    **_: object,
) -> None:
    """Print the values of the options."""
    kind = options.kind_named(kind_name)
    click.echo(options.columns_named(text_column, label_columns, text_pair_column))
    click.echo(kind and kind.name)


@pytest.mark.parametrize(
    ("arguments", "columns", "kind"),
    [
        ([], Columns(), None),
        (["--label-column", "x", "--kind", "score"], Columns(labels=("x",)), "score"),
        (["--label-column", "x", "--label-column", "y"], Columns(labels=("x", "y")), None),
        (["--text-column", "a", "--text-pair-column", "b"], Columns("a", (), "b"), None),
    ],
)
def test_columns_and_kind(arguments: list[str], columns: Columns, kind: str | None) -> None:
    result = CliRunner().invoke(show, arguments)
    assert result.output == f"{columns}\n{kind or ''}\n"


def test_kinds_are_those_that_there_are() -> None:
    assert set(options.KINDS) == set(KINDS)
    assert all(options.kind_named(name) is KINDS[name] for name in options.KINDS)


def test_help_imports_neither_numpy_nor_onnxruntime() -> None:
    code = "import sys, edgetune.cli; print({'numpy', 'onnxruntime', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
