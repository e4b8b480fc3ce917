"""Options of `train` are the fields of `TrainingOptions`. A new option only needs a field and code that uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from edgetune.cli.fields import collect, field_options
from edgetune.cli.flags import Command
from edgetune.cli.train import train
from edgetune.training.options import TrainingOptions, option, parse_class_weight, parse_label_words
from edgetune_runtime.errors import DataError

FIELDS = {one.name: one for one in dataclasses.fields(TrainingOptions)}
PARAMETERS = {one.name: one for one in train.params if isinstance(one, click.Option)}
OWN = {
    "sources", "eval_sources", "names", "outs", "kind_name", "report_folder", "resume", "text_column", "label_columns",
    "text_pair_column", "encoding", "delimiter", "quotes", "as_json",
}  # fmt: skip
"""Parameters of `train` for its inputs and outputs."""

NAMED_OTHERWISE = {
    "long_texts": "--long",
    "descriptions": "--describe",
    "learning_rate": "--lr",
    "head_learning_rate": "--head-lr",
    "train_head": "--fixed-label-words",
}


def commanded(options: type[Any], arguments: Sequence[str], names: tuple[str, ...] | None = None) -> tuple[Result, Any]:
    """The dataclass that a command makes from arguments."""
    found: list[Any] = []

    @click.command(cls=Command)
    @field_options(options, names)
    def command(**values: Any) -> None:
        found.append(collect(options, values))

    result = CliRunner().invoke(command, list(arguments))
    return result, found[0] if found else None


def test_every_field_is_an_option_and_every_option_a_field() -> None:
    assert set(PARAMETERS) - OWN == set(FIELDS)
    for name in FIELDS:
        assert PARAMETERS[name].opts == [NAMED_OTHERWISE.get(name, f"--{name.replace('_', '-')}")]


def test_without_options_the_command_has_the_defaults_of_the_dataclass() -> None:
    result, found = commanded(TrainingOptions, [])
    assert result.exit_code == 0, result.output
    assert found == TrainingOptions()


@pytest.mark.parametrize("name", FIELDS)
def test_the_help_shows_each_default(name: str) -> None:
    record = PARAMETERS[name].get_help_record(click.Context(train))
    assert record is not None
    one, own = FIELDS[name], record[1]
    # Others describe their default in words, or need no default: flags, and options that are empty by default.
    in_words = {"class_weight", "learning_rate", "head_learning_rate", "pooling", "patience", "epochs"}
    silent = {"init_text", "init_from", "label_words", "train_head", "positions_behind_prompt", "keep_prompt"}
    in_words |= {"descriptions", "dropout", "prompt_length"}
    silent |= {"gradient_checkpointing", "parts"}
    if name in in_words:
        assert "[default: " in own
    elif name in silent:
        assert "default" not in own
    else:
        assert f"[default: {one.default}" in own


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--method", "prompt", "--prompt-length", "0"], {"method": "prompt", "prompt_length": 0}),
        (["--long", "windows", "--stride", "5"], {"long_texts": "windows", "stride": 5}),
        (["--lr", "0.5", "--head-lr", "1e-4"], {"learning_rate": 0.5, "head_learning_rate": 1e-4}),
        (["--fixed-label-words"], {"train_head": False}),
        (["--positions-behind-prompt", "--pooling", "cls"], {"positions_behind_prompt": True, "pooling": "cls"}),
        (["--class-weight", "balanced"], {"class_weight": "balanced"}),
        (["--class-weight", "a=2", "--class-weight", "b=0.5"], {"class_weight": {"a": 2.0, "b": 0.5}}),
        (
            ["--label-words", "a=x, y", "--label-words", "b=z"],
            {"label_words": {"a": ["x", "y"], "b": ["z"]}},
        ),
        (["--describe", "a=x y, z", "--describe", "b=w"], {"descriptions": {"a": ["x y", "z"], "b": ["w"]}}),
        (["--init-text", "a lamp", "--template", "{text}!"], {"init_text": "a lamp", "template": "{text}!"}),
        (["--seed", "3", "--mixed-precision", "bf16"], {"seed": 3, "mixed_precision": "bf16"}),
        (["--gradient-checkpointing", "--load-in", "bf16"], {"gradient_checkpointing": True, "load_in": "bf16"}),
    ],
)
def test_options_are_collected(arguments: list[str], changes: dict[str, Any]) -> None:
    result, found = commanded(TrainingOptions, arguments)
    assert result.exit_code == 0, result.output
    assert found == dataclasses.replace(TrainingOptions(), **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magic"], "'magic' is not one of"),
        (["--prompt-length", "-1"], "-1 is not in the range x>=0"),
        (["--max-length", "3"], "3 is not in the range x>=4"),
        (["--epochs", "0"], "0 is not in the range x>=1"),
        (["--epochs", "1.5"], "'1.5' is not a valid integer"),
        (["--stride", "-2"], "-2 is not in the range x>=0"),
        (["--lr", "0"], "0.0 is not in the range x>0"),
        (["--lr", "fast"], "'fast' is not a valid float"),
        (["--long", "all"], "'all' is not one of 'cut', 'windows'"),
        (["--seed", "-1"], "-1 is not in the range"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_wrong_usage(arguments: list[str], message: str) -> None:
    result, _ = commanded(TrainingOptions, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class-weight", "odd"], "--class-weight 'odd': expected none or balanced alone"),
        (["--class-weight", "a=1", "--class-weight", "balanced"], "--class-weight 'balanced': expected"),
        (["--label-words", "good"], "--label-words 'good' is not LABEL=WORD"),
        (["--label-words", "good=a"], "for the label 'good' alone: expected at least two labels"),
        (["--describe", "good=a"], "--describe for the label 'good' alone: expected at least two labels"),
        (["--init-from", "nowhere.safetensors"], "the task file nowhere.safetensors cannot be read"),
    ],
)
def test_what_a_parser_says_is_the_error(arguments: list[str], message: str) -> None:
    result, _ = commanded(TrainingOptions, arguments)
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_some_fields_alone() -> None:
    result, found = commanded(TrainingOptions, ["--template", "so {text}"], ("template", "max_length"))
    assert result.exit_code == 0, result.output
    assert found == TrainingOptions(template="so {text}")
    assert commanded(TrainingOptions, ["--epochs", "2"], ("template", "max_length"))[0].exit_code == 2


def _doubled(items: Sequence[str]) -> list[str] | None:
    if "bad" in items:
        raise DataError("bad came")
    return [item * 2 for item in items] or None


@dataclass(frozen=True)
class MoreOptions(TrainingOptions):
    """An additional option: one field here, and its use."""

    warmup: int = option(6, "Steps.", least=0)
    dropout: float = option(0.1, "Share of zeros.", least=0.0)
    decay: float = option(0.25, "Any number.")
    repeats: int = option(2, "Any whole number.")
    note: str = option("none so far", "A note.", flag="--remark")
    loud: bool = option(False, "Say more.")
    shuffle: bool = option(True, "Keep the order.", unset="--in-order")
    words: list[str] | None = option(None, "Words.", metavar="WORD", parse_all=_doubled)
    half: float | None = option(None, "Half of it.", parse=lambda value: float(value) / 2)
    hidden: int = 5


class TestAFieldMore:
    """A new field of a dataclass becomes an option, with type, limits and default."""

    def test_defaults(self) -> None:
        result, found = commanded(MoreOptions, [])
        assert result.exit_code == 0, result.output
        assert found == MoreOptions()

    def test_values(self) -> None:
        numbers = ["--warmup", "1", "--dropout", "0.5", "--decay", "-3", "--repeats", "-1", "--half", "3"]
        others = ["--remark", "x", "--loud", "--in-order", "--words", "a", "--words", "b"]
        result, found = commanded(MoreOptions, [*numbers, *others])
        assert result.exit_code == 0, result.output
        assert found == MoreOptions(
            warmup=1, dropout=0.5, decay=-3.0, repeats=-1, note="x", loud=True, shuffle=False, words=["aa", "bb"],
            half=1.5,
        )  # fmt: skip
        assert type(found.decay) is float and type(found.repeats) is int

    def test_help(self) -> None:
        text = " ".join(commanded(MoreOptions, ["--help"])[0].output.split())
        for shown in (
            "--warmup INTEGER RANGE Steps. [default: 6; x>=0]",
            "--dropout FLOAT RANGE Share of zeros. [default: 0.1; x>=0.0]",
            "--decay FLOAT Any number. [default: 0.25]",
            "--remark TEXT A note. [default: none so far]",
            "--loud Say more.",
            "--in-order Keep the order.",
            "--words WORD Words.",
        ):
            assert shown in text

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--dropout", "-0.5"], "-0.5 is not in the range x>=0"),
            (["--decay", "much"], "'much' is not a valid float"),
            (["--repeats", "1.5"], "'1.5' is not a valid integer"),
            (["--hidden", "3"], "No such option"),
        ],
    )
    def test_wrong_usage(self, arguments: list[str], message: str) -> None:
        result, _ = commanded(MoreOptions, arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())

    def test_its_parser_speaks(self) -> None:
        result, _ = commanded(MoreOptions, ["--words", "bad"])
        assert isinstance(result.exception, DataError)
        assert str(result.exception) == "bad came"

    def test_a_training_of_other_options_is_another_training(self) -> None:
        assert MoreOptions(warmup=7).stamp() != MoreOptions().stamp()


def test_parsers_are_those_that_python_callers_have() -> None:
    assert parse_class_weight(()) == TrainingOptions().class_weight
    assert parse_label_words(()) is TrainingOptions().label_words
