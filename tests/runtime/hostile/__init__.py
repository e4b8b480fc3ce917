"""Malicious bundles and task files by name, each with part of its error message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hostile import bundles, graphs, tasks, tokenizers
from hostile.changes import Cases, Change


@dataclass(frozen=True)
class Case:
    """A change of a bundle's folder, and part of the resulting error message."""

    change: Change
    message: str


def _table(*groups: Callable[[], Cases]) -> dict[str, Case]:
    table: dict[str, Case] = {}
    for group in groups:
        for name, change, message in group():
            if name in table:
                raise LookupError(f"{name} is there twice")
            table[name] = Case(change, message)
    return table


HOSTILE = _table(
    tasks.of_bytes, tasks.of_fields, tasks.of_new_fields, tasks.of_tensors, bundles.of_manifests,
    bundles.of_requirements, bundles.of_links, bundles.of_configs, tokenizers.of_tokenizers, graphs.of_graphs,
)  # fmt: skip
"""Rejected while the bundle is read."""

HOSTILE_WHEN_RUN = _table(graphs.of_runs)
"""Rejected by the probe."""
