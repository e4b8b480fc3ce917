"""Tables for a terminal."""

from __future__ import annotations

from edgetune.tables import WIDTH, aligned, fits


def test_columns_are_as_wide_as_their_contents() -> None:
    assert aligned(("task", "kind", "kB"), [("a", "score", "4"), ("tickets", "pairs", "1234")], texts=2) == [
        "task     kind     kB",
        "a        score     4",
        "tickets  pairs  1234",
    ]


def test_a_line_of_80_columns_fits() -> None:
    assert fits(["", "x" * WIDTH])
    assert not fits(["x", "x" * (WIDTH + 1)])
