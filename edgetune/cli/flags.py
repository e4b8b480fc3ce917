"""Option names in messages: the library names parameters in backticks, and the command line shows their flags."""

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
"""Parameter of the library → parameter of the commands, if the names differ."""

_QUOTED_OR_NAMED = re.compile(r"""(?<!\w)(['"]).*?\1(?!\w)|(?<![^\s(])`(\w+)`(?![\w/`-]|\.\w)""")
"""Matches quoted text, which is a user's value, or a whole word in backticks, which is a name."""


class RenamedOption(click.Option):
    """An option with an old spelling, which still works with a note and is not shown in the help.

    The last declared spelling is the old one.
    """

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its line in the help, without the old spelling."""
        opts, self.opts = self.opts, self.opts[:-1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = opts

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Make the parser print a note when it reads the old spelling."""
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
            EdgetuneError: the library's error, with flags in place of parameters.
        """
        try:
            return super().invoke(ctx)
        except EdgetuneError as error:
            error.args = (in_flags(str(error)), *error.args[1:])
            raise


def in_flags(message: str) -> str:
    """Replace parameter names in a library message with the flags of the running command.

    A parameter that the command lacks belongs to another command, such as `pooling` in "train it again with `pooling`".
    It is replaced if all commands that have it use the same flag. Any other name stays as it is, because it may be a
    user's text; so does quoted text.
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
    """A command or, for a group, all commands below it."""
    if not isinstance(command, click.Group):
        yield command
        return
    for other in command.commands.values():
        yield from _commands(other)


def _spellings(command: click.Command) -> dict[str, str]:
    """Parameter of a command → what users write: an option's longest flag, or an argument as shown in the help."""
    return {one.name: _spelling(one) for one in command.params if one.name is not None}


def _spelling(parameter: click.Parameter) -> str:
    if not isinstance(parameter, click.Option):
        return parameter.human_readable_name
    current = parameter.opts[:-1] if isinstance(parameter, RenamedOption) else parameter.opts
    return max(current, key=len)
