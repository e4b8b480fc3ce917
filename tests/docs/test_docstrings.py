"""Docstrings have the form that the API reference and editors read: an entry of Args or Raises has its own line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("edgetune", "export/edgetune_export", "runtime/edgetune_runtime")
SECTION = re.compile(r"^( *)(?:Args|Attributes|Raises):\n((?:\1 .*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"\*{0,2}[\w.\[\]]+(?:, (?:and |\*{0,2})?[\w.]+)*(?: \[[^\]]*\])?: \S")


def docstrings() -> Iterator[tuple[str, str]]:
    """Where a docstring is, and its text."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                    text = ast.get_docstring(node)
                    if text:
                        yield f"{path.relative_to(ROOT)}:{getattr(node, 'name', '')}", f"{text}\n"


def odd_entries(text: str) -> list[str]:
    """Lines of sections that look like entries by their indentation, and are none."""
    found = []
    for _, body in SECTION.findall(text):
        lines = [line for line in body.split("\n") if line.strip()]
        indent = len(lines[0]) - len(lines[0].lstrip())
        entries = [line.strip() for line in lines if len(line) - len(line.lstrip()) == indent]
        found += [line for line in entries if not ENTRY.match(line)]
    return found


def test_each_entry_of_a_section_has_its_own_line() -> None:
    odd = {place: lines for place, text in docstrings() if (lines := odd_entries(text))}
    assert not odd


@pytest.mark.parametrize(
    ("body", "odd"),
    [
        ("    one: a.\n    two: b\n        and more: of it.\n", []),
        ("    one, other: a.\n    **fields: b.\n", []),
        ("    one: a\n    which goes on. two: b.\n", ["which goes on. two: b."]),
    ],
)
def test_what_is_odd(body: str, odd: list[str]) -> None:
    assert odd_entries(f"Does it.\n\nArgs:\n{body}") == odd
