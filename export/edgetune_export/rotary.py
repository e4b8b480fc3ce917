"""Fix rotary positions that depend on the longest text of a batch at their values for texts of usual length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

_DEPENDS_ON_LENGTH = ("dynamic", "longrope")


def hold_frequencies(model: nn.Module, config: PreTrainedConfig) -> int | None:
    """Keep the frequencies of rotary positions at their values up to the length of pre-training.

    Beyond that length they change with the longest text of a batch (`dynamic`, `longrope`): one text would affect the
    answers of the others, and a prompt's stored keys would not match the text after it.

    Returns:
        The number of positions up to which the model itself computes the same; `None` if its frequencies never change.
    """
    limits = []
    for parameters in _parameters(config):
        if parameters.get("rope_type") == "longrope":
            limits.append(int(parameters["original_max_position_embeddings"]))
        elif parameters.get("rope_type") in _DEPENDS_ON_LENGTH:
            limits.append(int(config.max_position_embeddings))
    if not limits:
        return None
    for module in model.modules():
        kinds: Any = getattr(module, "rope_type", None)
        if isinstance(kinds, str):
            module.rope_type = _held(kinds)  # type: ignore[assignment]
        elif isinstance(kinds, dict):
            module.rope_type = {layer: _held(kind) for layer, kind in kinds.items()}  # type: ignore[assignment]
    return min(limits)


def _held(kind: str) -> str:
    return "default" if kind in _DEPENDS_ON_LENGTH else kind


def _parameters(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """The rotary parameters: of all layers, or per layer type."""
    found = getattr(config, "rope_parameters", None) or {}
    return [found] if "rope_type" in found else [each for each in found.values() if isinstance(each, dict)]
