"""Command groups whose help lists commands with whole sentences, in the order in which they are used."""

from __future__ import annotations

from typing import Any

import click

_WHOLE = 1000
"""A length in characters that is longer than every first sentence."""

_ALL = "Commands"
"""Heading of a group without sections."""


class Group(click.Group):
    """A group that lists its commands in the order in which they were added, with the first sentence of their help.

    Attributes:
        sections: heading → names of its commands; if empty, all commands have one heading.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, heading: str, *commands: click.Command) -> None:
        """Add commands, and list them in the help under their own heading."""
        for command in commands:
            self.add_command(command)
        self.sections[heading] = [str(command.name) for command in commands]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands. Sentences are wrapped, not cut."""
        for heading, names in (self.sections or {_ALL: list(self.commands)}).items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(_WHOLE)) for name in names])
