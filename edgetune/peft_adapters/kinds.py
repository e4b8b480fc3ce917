"""The adapter types that can be converted. A new type is an entry here, and a module that reads and writes it."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters.change import Change
from edgetune.peft_adapters.low_rank import LowRank
from edgetune.peft_adapters.virtual_tokens import VirtualTokens
from edgetune_runtime.parts import LOW_RANK, PREFIX, SOFT_PROMPT


@dataclass(frozen=True)
class Row:
    """A PEFT adapter type.

    Attributes:
        method: its name in tasks.
        kind: the class that reads it.
    """

    method: str
    kind: type[Change]


CHANGES = {
    peft.PROMPT_TUNING: Row("prompt", VirtualTokens),
    peft.P_TUNING: Row("p-tuning", VirtualTokens),
    peft.PREFIX_TUNING: Row("prefix", VirtualTokens),
    peft.MULTITASK_PROMPT_TUNING: Row("multitask", VirtualTokens),
    peft.LORA: Row("lora", LowRank),
}
"""PEFT's types that can be converted to tasks."""

WRITERS: dict[str, type[Change]] = {
    SOFT_PROMPT.name: VirtualTokens,
    PREFIX.name: VirtualTokens,
    **{part.name: LowRank for part in LOW_RANK.values()},
}
"""A task's part → the class that writes it as an adapter."""
