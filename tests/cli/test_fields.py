"""Options from the fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from edgetune.cli.fields import collect, field_options
from edgetune.training.options import option


@dataclass(frozen=True)
class Settings:
    """A field of each type, and one that is not an option."""

    colour: str = option("red", "A word.", choices=("red", "blue"))
    number: int = option(3, "A whole number.", least=1)
    share: float = option(0.5, "A number.", least=0.0)
    rate: float | None = option(None, "A number, or none.", flag="--speed", above=0.0)
    quick: bool = option(False, "A flag.")
    exact: bool = option(True, "A flag that unsets.", unset="--roughly")
    size: int | None = option(None, "Parsed.", parse=len)
    words: tuple[str, ...] = option((), "Several.", parse_all=tuple)
    hidden: int = 7


@click.command()
@field_options(Settings)
def show(**values: object) -> None:
    """Print the resulting dataclass."""
    click.echo(collect(Settings, values))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Settings()),
        (["--colour", "blue", "--number", "1"], Settings(colour="blue", number=1)),
        (["--share", "0.25", "--speed", "1e-3"], Settings(share=0.25, rate=1e-3)),
        (["--share", "0"], Settings(share=0.0)),
        (["--quick", "--roughly"], Settings(quick=True, exact=False)),
        (["--size", "abc", "--words", "a", "--words", "b"], Settings(size=3, words=("a", "b"))),
    ],
)
def test_a_field_is_an_option(arguments: list[str], expected: Settings) -> None:
    assert CliRunner().invoke(show, arguments).output == f"{expected}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--colour", "green"],
        ["--number", "0"],
        ["--number", "1.5"],
        ["--share", "-0.1"],
        ["--speed", "0"],
        ["--hidden", "1"],
    ],
)
def test_what_a_field_cannot_be_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(show, arguments).exit_code == 2


def test_help_shows_each_option_with_its_default() -> None:
    shown = " ".join(CliRunner().invoke(show, ["--help"]).output.split())
    assert "--share FLOAT RANGE A number. [default: 0.5; x>=0.0]" in shown
    assert "--number INTEGER RANGE A whole number. [default: 3; x>=1]" in shown
    assert "--roughly A flag that unsets." in shown
    assert "hidden" not in shown
