"""Groups of commands whose help says in whole sentences what each does, in the order of the work."""

from __future__ import annotations

from typing import Any

import click

_WHOLE = 1000
"""Characters that no first sentence has."""

_ALL = "Commands"
"""The heading of a group without sections."""


class Group(click.Group):
    """A group that lists its commands as they were added, in sections, each with the first sentence of its help.

    Attributes:
        sections: heading → names of the commands below it; without any, all commands have one heading.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, heading: str, *commands: click.Command) -> None:
        """Add commands, and list them in the help below a heading of their own."""
        for command in commands:
            self.add_command(command)
        self.sections[heading] = [str(command.name) for command in commands]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; sentences are wrapped, not cut."""
        for heading, names in (self.sections or {_ALL: list(self.commands)}).items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(_WHOLE)) for name in names])
