"""Options, extras and output that several commands share."""

from __future__ import annotations

import json
import pkgutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetune.cli.flags import in_flags
from edgetune.figures import figure_name as figure_name
from edgetune_runtime.devices import CPU, DEVICES

if TYPE_CHECKING:
    from edgetune.data.labelled import Columns
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.kinds import Kind

Command = TypeVar("Command", bound=Callable[..., Any])

LABELLED_DATA = (
    "a file (JSONL, JSON, CSV, TSV or Parquet; text also as .gz or .zst), a folder of files, or a hub data set as "
    "NAME[:CONFIG][:SPLIT]"
)


def _kind_names() -> list[str]:
    """Names of `edgetune_runtime.kinds.KINDS`, taken from its modules.

    Importing the kinds would import numpy for every command, even for `--help`.
    """
    package = find_spec("edgetune_runtime.kinds")
    folders = (package and package.submodule_search_locations) or ()
    names = sorted(module.name for module in pkgutil.iter_modules(folders))
    return [name.replace("_", "-") for name in names if name != "kind"]  # the module that they share


KINDS = _kind_names()
"""Names of all kinds of answer."""

FILE = click.Path(path_type=Path)

_FETCHED = "edgetune.fetched"


class _Bundle(click.Path):
    """A bundle's folder or, if the command does not change the bundle, its name on the hub.

    A bundle on the hub is fetched; with `--precision`, only that precision.
    """

    name = "bundle"

    def __init__(self, read_only: bool) -> None:
        super().__init__(path_type=Path)
        self._read_only = read_only

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The bundle's folder."""
        if not str(value).startswith("hf://"):
            return Path(value)
        if not self._read_only:
            self.fail(f"{value} is on the hub: pull it, change the folder, and push that", param, ctx)
        from edgetune_runtime.hub import local_folder

        if ctx is not None:
            ctx.meta[_FETCHED] = str(value)
        precision = ctx.params.get("precision") if ctx else None
        return local_folder(str(value), precision if isinstance(precision, str) else None)


BUNDLE = _Bundle(read_only=True)
CHANGED_BUNDLE = _Bundle(read_only=False)


def fetched_name() -> str | None:
    """The hub name of the running command's bundle; `None` if it is a folder."""
    return click.get_current_context().meta.get(_FETCHED)


def note(message: str) -> None:
    """Print a message on stderr, because stdout is for results.

    Parameter names of the library are replaced by flags.
    """
    click.echo(in_flags(message), err=True)


def let_nobody_wait() -> None:
    """Let long work continue even if nobody reads its stderr, for example if a log collector stalls."""
    own = sys.__stderr__
    if own is not None and sys.stderr is own and not own.isatty():
        from edgetune.stderr import never_wait

        never_wait()


def note_unread_tasks(bundle: Bundle) -> None:
    """Report files in a bundle's task folder that are not read."""
    for file, why in bundle.unread_tasks().items():
        note(f"not read: {bundle.path / 'tasks' / file}: {why}")


def print_json(value: Any) -> None:
    """Print one JSON object on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def shortest(number: float) -> float:
    """Round a number to the digits of float32, because graphs compute in float32."""
    import numpy as np

    return float(str(np.float32(number)))


def json_option(command: Command) -> Command:
    """`--json`: results as one JSON object."""
    return click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")(command)


def engine_options(command: Command) -> Command:
    """How the engine runs: `--precision`, `--device`, `--threads`."""
    threads = click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: all]")
    return device_options(threads(command))


precision_option: Callable[[Command], Command] = click.option(
    "--precision",
    is_eager=True,  # so that its value is known when the bundle is fetched
    help="Precision to run, one of the bundle's. [default: int8 and, for close calls, fp32, if the bundle has them]",
)


def device_options(command: Command) -> Command:
    """What the engine runs, and on which device: `--precision`, `--device`."""
    return precision_option(device_option(command))


def device_option(command: Command) -> Command:
    """`--device`; untested devices print a note."""
    untested = " and ".join(device.name for device in DEVICES.values() if not device.tested)
    return click.option(
        "--device",
        type=click.Choice(list(DEVICES)),
        default=CPU.name,
        show_default=True,
        callback=_told_device,
        help="Device that runs the graphs. All but the first need another package of onnxruntime. Nobody has tested "
        f"{untested} yet.",
    )(command)


def _told_device(context: click.Context, option: click.Parameter, value: str) -> str:
    if not DEVICES[value].tested:
        note(f"nobody has tested {value} yet: compare its answers with those of --device {CPU.name}, and tell us")
    return value


def min_score_option(command: Command) -> Command:
    """`--min-score`: the score below which a row is not answered."""
    return click.option(
        "--min-score",
        type=click.FloatRange(0, 1),
        help="Abstain if the best score is lower than this, 0 to 1. [default: answer every row]",
    )(command)


def reading_options(command: Command) -> Command:
    """How text files are read: `--encoding`, `--delimiter`, `--no-quotes`."""
    options = [
        click.option(
            "--encoding",
            help="Encoding of text files, such as cp1252. [default: UTF-8, or UTF-16 if the file looks like it]",
        ),
        click.option(
            "--delimiter",
            callback=_delimiter,
            help="Separator of CSV files: one character, or 'tab'. [default: , ; | or tab, whichever fits]",
        ),
        click.option(
            "--no-quotes",
            "quotes",
            flag_value=False,
            default=True,
            help="Quotes in CSV files are part of the texts. [default: they may enclose fields]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _delimiter(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter(f"{value!r} came, and one character was expected, or 'tab'")
    return value


input_option: Callable[[Command], Command] = click.option(
    "--input",
    "kind",
    type=click.Choice(["auto", "text", "jsonl", "json", "csv"]),
    default="auto",
    show_default=True,
    help="Format of the rows: one text per line, one JSON object per line, a JSON array, or CSV. auto looks at the "
    "file's name, then at its beginning.",
)

text_column_option: Callable[[Command], Command] = click.option(
    "--text-column", default="text", show_default=True, help="Column with the texts."
)

text_pair_column_option: Callable[[Command], Command] = click.option(
    "--text-pair-column", help="Column with the second text of a pair. [default: text_pair, if there is one]"
)

kind_option: Callable[[Command], Command] = click.option(
    "--kind", "kind_name", type=click.Choice(KINDS), help="Kind of answer. [default: seen in the labels]"
)

max_characters_option: Callable[[Command], Command] = click.option(
    "--max-characters",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="A text with more characters is a bad row.",
)


def column_options(command: Command) -> Command:
    """The column names of labelled data, and how its files are read."""
    options = [
        text_column_option,
        click.option(
            "--label-column",
            "label_columns",
            multiple=True,
            help="Column with the labels; repeatable for 0/1 columns. [default: the first of label, labels, score, "
            "entities, tags]",
        ),
        text_pair_column_option,
        reading_options,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def columns_named(text_column: str, label_columns: tuple[str, ...], text_pair_column: str | None) -> Columns:
    """The columns that `column_options` name."""
    from edgetune.data.labelled import Columns

    return Columns(text_column, label_columns, text_pair_column)


def kind_named(kind_name: str | None) -> Kind | None:
    """The kind that `kind_option` names; `None` if it is derived from the labels."""
    from edgetune_runtime.kinds import KINDS as kinds

    return None if kind_name is None else kinds[kind_name]
