"""Parts: what a task brings to the backbone, as data. A new part is a row in `PARTS` and what trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgetune_runtime import contract


class Sized(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Its sizes."""


@dataclass(frozen=True)
class Part:
    """Tensors that belong together and have one length.

    Attributes:
        name: what it is called here; each has its own.
        title: what people call it, and others like it at other places.
        tensors: names of its bank inputs, which a task file stores without the tasks dimension; all or none of them.
        length: the dimension that varies from task to task.
        side: where it is filled up beside longer ones of other tasks.
        mask: the bank input that is 1 where it is present; `None` if what is filled up is zero and so does nothing.
        requires: what a reader must know to run it; `None` for what edgetune 0.1 could do.
    """

    name: str
    title: str
    tensors: tuple[str, ...]
    length: str
    side: Literal["left", "right"] = "right"
    mask: str | None = None
    requires: str | None = None

    def length_of(self, tensors: Mapping[str, Sized]) -> int:
        """Its length among a task's tensors; 0 if the task does not have it."""
        first = self.tensors[0]
        if first not in tensors:
            return 0
        return int(tensors[first].shape[contract.TASK_TENSORS[first].index(self.length)])


SOFT_PROMPT = Part(
    "soft prompt", "prompt", (contract.PROMPT_EMBEDDINGS,), "prompt", side="left", mask=contract.PROMPT_MASK
)
"""Embeddings before the text's (prompt tuning). Filled up on the left, so that a prompt and its text touch."""

PREFIX = Part("prefix", "prefix", (contract.PREFIX_KEYS, contract.PREFIX_VALUES), "prefix", mask=contract.PREFIX_MASK)
"""Keys and values before the text's in every layer (prefix tuning, P-tuning v2)."""

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
"""x·down·up beside a linear layer (LoRA, Hu et al. 2021), by its site. A scale is multiplied in."""

UNITS = Part(
    "units", "units", (contract.UNIT_READ, contract.UNIT_BIAS, contract.UNIT_WRITE), "units", requires="part:units"
)
"""relu(x·read + bias)·write beside each feed-forward (parallel adapters, He et al. 2022)."""

HEAD = Part("head", "head", (contract.HEAD_WEIGHT, contract.HEAD_BIAS), "labels")
"""The linear layer from features to logits. Every task has one."""

PARTS: dict[str, Part] = {part.name: part for part in (SOFT_PROMPT, PREFIX, *LOW_RANK.values(), UNITS, HEAD)}


def lengths_of(tensors: Mapping[str, Sized]) -> dict[str, int]:
    """The dimensions that vary from task to task, as a task's tensors have them."""
    return {part.length: part.length_of(tensors) for part in PARTS.values()}


def titled_lengths(tensors: Mapping[str, Sized]) -> dict[str, int]:
    """Lengths of the parts of a task but its head, by what people call them; the longest of those called alike."""
    found: dict[str, int] = {}
    for part in PARTS.values():
        if part is not HEAD and (length := part.length_of(tensors)):
            found[part.title] = max(length, found.get(part.title, 0))
    return found
