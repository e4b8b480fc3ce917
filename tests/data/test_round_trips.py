"""Files from other programs are read back equal, row by row, by the reader of `train` and by that of `score`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from reading import labelled, scored
from written import WRITERS, Rows, tables


@pytest.mark.parametrize("name", WRITERS)
@settings(deadline=None, max_examples=20)
@given(rows=tables)
@example(rows=[("", "x"), ('say "yes"', "a,b"), ("two\nlines", ";"), ("a\rb", "\t"), ("c\r\nd", "|"), ("\ufeff", "é")])
@example(rows=[('"', '"'), ("\n", "'"), ("\r", "\u2028"), ("\0", "\0"), ("[1]", "{"), ("null", "NaN"), (" a ", " b ")])
def test_what_others_write_comes_back(name: str, rows: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[name](rows, Path(folder))
        assert labelled(path) == rows
        assert scored(path) == rows
