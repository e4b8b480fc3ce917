"""Parts: the tensors that a task adds to the backbone, described as data.

A new part is an entry in `PARTS` plus its training code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgetune_runtime import contract


class Sized(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Its shape."""


@dataclass(frozen=True)
class Part:
    """Tensors that belong together and have a common length.

    Attributes:
        name: its unique name in code.
        title: its name for people, shared by similar parts at other places.
        tensors: names of its bank inputs. A task file stores all or none of them, without the tasks dimension.
        length: the dimension that varies from task to task.
        side: the side on which it is padded to the length of other tasks' parts.
        mask: the bank input that is 1 for real entries and 0 for padding; `None` if zero padding has no effect.
        requires: the requirement that a reader must support; `None` if edgetune 0.1 supports it.
    """

    name: str
    title: str
    tensors: tuple[str, ...]
    length: str
    side: Literal["left", "right"] = "right"
    mask: str | None = None
    requires: str | None = None

    def length_of(self, tensors: Mapping[str, Sized]) -> int:
        """Its length in a task's tensors; 0 if the task does not have it."""
        first = self.tensors[0]
        if first not in tensors:
            return 0
        return int(tensors[first].shape[contract.TASK_TENSORS[first].index(self.length)])


SOFT_PROMPT = Part(
    "soft prompt", "prompt", (contract.PROMPT_EMBEDDINGS,), "prompt", side="left", mask=contract.PROMPT_MASK
)
"""Embeddings before the text's embeddings (prompt tuning). Padded on the left, so that a prompt is next to its text."""

PREFIX = Part("prefix", "prefix", (contract.PREFIX_KEYS, contract.PREFIX_VALUES), "prefix", mask=contract.PREFIX_MASK)
"""Keys and values before those of the text in every layer (prefix tuning, P-tuning v2)."""

LOW_RANK = {
    site: Part(
        f"low rank on {site}",
        "low-rank",
        names,
        contract.rank(site),
        requires="part:low-rank",
    )
    for site, names in contract.LOW_RANK_INPUTS.items()
}
"""x·down·up in parallel to a linear layer (LoRA, Hu et al. 2021), by site. The scale is multiplied in."""

UNITS = Part(
    "units", "units", (contract.UNIT_READ, contract.UNIT_BIAS, contract.UNIT_WRITE), "units", requires="part:units"
)
"""relu(x·read + bias)·write in parallel to each feed-forward (parallel adapters, He et al. 2022)."""

HEAD = Part("head", "head", (contract.HEAD_WEIGHT, contract.HEAD_BIAS), "labels")
"""The linear layer from features to logits. Every task has one."""

PARTS: dict[str, Part] = {part.name: part for part in (SOFT_PROMPT, PREFIX, *LOW_RANK.values(), UNITS, HEAD)}


def lengths_of(tensors: Mapping[str, Sized]) -> dict[str, int]:
    """The dimensions that vary from task to task, read from a task's tensors."""
    return {part.length: part.length_of(tensors) for part in PARTS.values()}


def titled_lengths(tensors: Mapping[str, Sized]) -> dict[str, int]:
    """Lengths of a task's parts except its head, by title; the longest of parts with the same title."""
    found: dict[str, int] = {}
    for part in PARTS.values():
        if part is not HEAD and (length := part.length_of(tensors)):
            found[part.title] = max(length, found.get(part.title, 0))
    return found
