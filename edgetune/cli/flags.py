"""What options are called: the library's messages name parameters in backticks, the command line shows their flags."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from edgetune_runtime.errors import EdgetuneError

CALLED_HERE: Mapping[str, str] = {
    "backbone": "model",
    "dev": "eval_sources",
    "folder": "out",
    "kind": "kind_name",
    "labels": "label_columns",
    "peft_task": "peft_task_id",
    "replace": "overwrite",
    "text": "text_column",
    "text_pair": "text_pair_column",
    "words": "label_words",
}
"""Parameter of the library → the commands' parameter for the same, if it has another name."""

_QUOTED_OR_NAMED = re.compile(r"""(?<!\w)(['"]).*?\1(?!\w)|(?<![^\s(])`(\w+)`(?![\w/`-]|\.\w)""")
"""What stands in quotes, which is somebody's value, or a name in backticks that is a word by itself."""


class RenamedOption(click.Option):
    """An option that also has an old spelling: it goes on working, with a note, and the help does not show it.

    The last spelling that is declared is the old one.
    """

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its line of the help, without the old spelling."""
        opts, self.opts = self.opts, self.opts[:-1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = opts

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser note the old spelling where it reads it."""
        super().add_to_parser(parser, ctx)
        new, old = self.opts[0], self.opts[-1]
        own = parser._long_opt[old]
        noting = copy.copy(own)

        def process(value: Any, state: Any) -> None:
            click.echo(f"{old} is now {new}; the old spelling will go in a later version", err=True)
            own.process(value, state)

        noting.process = process
        parser._long_opt[old] = noting


class Command(click.Command):
    """A command whose errors name its flags."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            EdgetuneError: as the library raised it, but with flags in place of parameters.
        """
        try:
            return super().invoke(ctx)
        except EdgetuneError as error:
            error.args = (in_flags(str(error)), *error.args[1:])
            raise


def in_flags(message: str) -> str:
    """A message of the library with the flags of the running command in place of the parameters that it names.

    A parameter that the command does not have is of another one, such as `pooling` in "train it again with
    `pooling`": it becomes the flag of all commands that have it, if that is the same for all. Any other name stays
    as it is, since it may be somebody's text, and so does what stands in quotes.
    """
    context = click.get_current_context(silent=True)
    if context is None or "`" not in message:
        return message

    def shown(found: re.Match[str]) -> str:
        name = found[2]
        return (_flag(context, name) if name else None) or found[0]

    return _QUOTED_OR_NAMED.sub(shown, message)


def _flag(context: click.Context, name: str) -> str | None:
    own = _spellings(context.command)
    names = [one for one in (name, CALLED_HERE.get(name)) if one is not None]
    found = next((own[one] for one in names if one in own), None)
    if found is not None:
        return found
    others = map(_spellings, _commands(context.find_root().command))
    flags = {there[one] for there in others for one in names if one in there}
    return flags.pop() if len(flags) == 1 else None


def _commands(command: click.Command) -> Iterator[click.Command]:
    """A command or, of a group, all commands below it."""
    if not isinstance(command, click.Group):
        yield command
        return
    for other in command.commands.values():
        yield from _commands(other)


def _spellings(command: click.Command) -> dict[str, str]:
    """Parameter of a command → what people write: the longest flag of an option, an argument as the help shows it."""
    return {one.name: _spelling(one) for one in command.params if one.name is not None}


def _spelling(parameter: click.Parameter) -> str:
    if not isinstance(parameter, click.Option):
        return parameter.human_readable_name
    current = parameter.opts[:-1] if isinstance(parameter, RenamedOption) else parameter.opts
    return max(current, key=len)
