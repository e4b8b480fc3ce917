"""Messages of the library name parameters, for Python; `edgetune.cli.flags` converts them to flags."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import click
import pytest
from test_packages import PACKAGES

from edgetune.cli import cli
from edgetune.cli.flags import CALLED_HERE

FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
NAME = re.compile(r"`(\w+)`")

RUNS_COMMANDS = {
    "edgetune/demo/program.py": "the demo runs the command line",
    "edgetune/report/confusion.py": "a style's name",
    "edgetune/report/coverage.py": "the page shows what to ask the command line for",
    "edgetune/report/markup.py": "a style's name",
    "edgetune/report/wrong.py": "the page shows a command",
    "runtime/edgetune_runtime/card.py": "a bundle's card shows a command",
    "runtime/edgetune_runtime/devices.py": "pip's command",
}
"""Module → why its strings contain flags."""

DECLARES_OPTIONS = "edgetune/training/options.py"
"""Its fields define the names and help texts of options."""

ROOT = PACKAGES["edgetune"]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for package, folder in PACKAGES.items()
    for path in (folder / package).rglob("*.py")
    if not path.is_relative_to(ROOT / "edgetune" / "cli")
)


def strings(tree: ast.AST) -> Iterator[str]:
    """All strings of a module except docstrings; for an f-string, the parts between its values."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def options_declared(tree: ast.AST) -> set[str]:
    """The strings within calls of `option`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    declared = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "option"]
    return {text for call in declared for text in strings(call)}


@functools.cache
def parameters(module: str) -> set[str]:
    """Parameters of a module's functions, and fields of its classes."""
    nodes = list(ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))))
    fields = {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    return {node.arg for node in nodes if isinstance(node, ast.arg)} | fields


def commands(command: click.Command) -> Iterator[click.Command]:
    """A command and those below it."""
    yield command
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        yield from commands(one)


@pytest.mark.parametrize("module", MODULES)
def test_no_message_names_a_flag(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    found = [text for text in strings(tree) if FLAG.search(text)]
    if module in RUNS_COMMANDS:
        assert found, f"{module} needs no exception any more"
    elif module == DECLARES_OPTIONS:
        assert set(found) <= options_declared(tree)
    else:
        assert found == []


def test_all_exceptions_are_modules() -> None:
    assert {*RUNS_COMMANDS, DECLARES_OPTIONS} <= set(MODULES)


def test_flags_are_found() -> None:
    tree = ast.parse('"""Not --this."""\nx = f"or raise --max-length to {y}, with a--b or -- or --" + "--lr"\n')
    assert sorted(flag for text in strings(tree) for flag in FLAG.findall(text)) == ["--lr", "--max-length"]


NAMED = sorted(
    (name, module)
    for module in MODULES
    if module == "edgetune/server/lifecycle.py" or not module.startswith("edgetune/server/")  # else for HTTP's clients
    for text in strings(ast.parse((ROOT / module).read_text(encoding="utf-8")))
    for name in NAME.findall(text)
    if name != "code"  # in a text that tokenizers are tried on
)
"""All parameters named in messages, with their modules."""


@pytest.mark.parametrize(("name", "module"), sorted(set(NAMED)))
def test_what_a_message_names_is_a_parameter_and_has_a_flag(name: str, module: str) -> None:
    called = {name, CALLED_HERE.get(name)}
    assert any(name in parameters(one) for one in MODULES), f"{module} names {name}, which nothing here takes"
    assert any(one.name in called for command in commands(cli) for one in command.params), f"{name} has no flag"


def test_most_names_are_found() -> None:
    assert {"max_length", "stride", "encoding", "overwrite", "pooling", "workers"} <= {name for name, _ in NAMED}
