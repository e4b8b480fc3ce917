"""Command options from the fields of a dataclass. A new option only needs a new field and code that uses it.

A field is an option if its metadata has "help". The option takes its name and default from the field. The metadata may
also have:

- `flag`: the option's name, if it differs from the field's.
- `choices`: the allowed values.
- `least`, `above`: the lowest value, or an exclusive lower bound. Values are integers if `least` is an integer.
- `unset`: the flag that sets a field to false whose default is true.
- `parse`: converts the option's text to the field's value.
- `parse_all`: converts all values of a repeatable option to the field's value.
- `metavar`: the placeholder of the value in the help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Options = TypeVar("Options")


def field_options(options: type[Any], names: tuple[str, ...] | None = None) -> Callable[[Command], Command]:
    """Add an option to a command for each field of a dataclass, or for some fields."""
    fields = [one for one in _fields(options) if names is None or one.name in names]

    def decorate(command: Command) -> Command:
        for one in reversed(fields):
            command = _option(one)(command)
        return command

    return decorate


def collect(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Make the dataclass from a command's parameters; other parameters are ignored.

    Raises:
        EdgetuneError: the field's parser rejects a value.
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
        # Inverted here, because click versions differ in the default of a flag whose value is false.
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
