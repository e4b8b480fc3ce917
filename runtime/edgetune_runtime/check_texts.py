"""Everyday sentences on which forms and precisions of a graph are compared."""

from __future__ import annotations

from importlib.resources import files


def check_texts() -> list[str]:
    """32 sentences of many lengths, without labels."""
    lines = files("edgetune_runtime").joinpath("check_texts.txt").read_text(encoding="utf-8")
    return lines.splitlines()
