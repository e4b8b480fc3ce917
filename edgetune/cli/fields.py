"""Options of a command from the fields of a dataclass: a new option is a field and its use.

A field is an option if its metadata has "help". Its name is the option's, its default the option's default. The
metadata may also have:

- `flag`: the option's name, if it is not the field's.
- `choices`: the values that it can have.
- `least`, `above`: the lowest value, or what the value must be above. Values are whole if `least` is.
- `unset`: the flag that makes a field false that is true by default.
- `parse`: makes the field's value of the option's text.
- `parse_all`: makes it of all values of an option that can be given several times.
- `metavar`: what the value looks like in the help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Options = TypeVar("Options")


def field_options(options: type[Any], names: tuple[str, ...] | None = None) -> Callable[[Command], Command]:
    """Give a command an option for each field of a dataclass, or for some of them."""
    fields = [one for one in _fields(options) if names is None or one.name in names]

    def decorate(command: Command) -> Command:
        for one in reversed(fields):
            command = _option(one)(command)
        return command

    return decorate


def collect(options: type[Options], values: Mapping[str, Any]) -> Options:
    """The dataclass, made of a command's parameters; others among them are passed over.

    Raises:
        EdgetuneError: a value is not what the field can be; the field's own parser says so.
    """
    given = {}
    for one in _fields(options):
        if one.name not in values:
            continue
        value, how = values[one.name], one.metadata
        if "parse_all" in how:
            value = how["parse_all"](value)
        elif "parse" in how and value is not None:
            value = how["parse"](value)
        given[one.name] = one.default if value is None else value
    return options(**given)


def _fields(options: type[Any]) -> list[dataclasses.Field[Any]]:
    return [one for one in dataclasses.fields(options) if "help" in one.metadata]


def _option(one: dataclasses.Field[Any]) -> Callable[[Command], Command]:
    how = one.metadata
    flag = how.get("flag", f"--{one.name.replace('_', '-')}")
    if "unset" in how:
        # Turned round by hand: what a flag whose value is false has for a default differs from one click to another.
        return click.option(how["unset"], one.name, is_flag=True, callback=lambda _, __, on: not on, help=how["help"])
    if isinstance(one.default, bool):
        return click.option(flag, one.name, is_flag=True, default=one.default, help=how["help"])
    several = "parse_all" in how
    shown = one.default not in (None, "") and not several
    return click.option(
        flag,
        one.name,
        type=None if several else _type(one),
        default=None if several or not shown else one.default,
        multiple=several,
        show_default=shown,
        metavar=how.get("metavar"),
        help=how["help"],
    )


def _type(one: dataclasses.Field[Any]) -> Any:
    how = one.metadata
    if "choices" in how:
        return click.Choice(how["choices"])
    if "above" in how:
        return click.FloatRange(how["above"], min_open=True)
    if "least" in how:
        least = how["least"]
        if not isinstance(least, float):
            return click.IntRange(least)
        return click.FloatRange(least, how.get("below"), max_open="below" in how)
    return type(one.default) if isinstance(one.default, int | float) else str
