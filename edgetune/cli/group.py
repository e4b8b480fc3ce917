"""Groups of commands whose help says in whole sentences what each does, in the order of the work."""

from __future__ import annotations

import click

_WHOLE = 1000
"""Characters that no first sentence has."""


class Group(click.Group):
    """A group that lists its commands as they were added, each with the first sentence of its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; sentences are wrapped, not cut."""
        rows = [(name, command.get_short_help_str(_WHOLE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
