"""Which training options exclude or imply each other, on the command line and in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetune.training.options import CONTRASTIVE, EPOCHS, METHODS, PREFIX, PROMPTING, parse_parts
from edgetune_runtime.errors import DataError

_IN_EPOCHS = ("epochs", "patience", "head_learning_rate")
_BEGINNING = ("init", "init_text", "prompt_length")


def with_implied(given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields of `TrainingOptions`, and the fields that they imply.

    Raises:
        DataError: two fields exclude each other.
    """
    found = dict(given)
    in_epochs = [name for name in _IN_EPOCHS if found.get(name) is not None]
    if in_epochs:
        if found.get("recipe") == CONTRASTIVE:
            raise DataError(f"{_named(in_epochs)} came with `recipe` '{CONTRASTIVE}', which has no epochs")
        found["recipe"] = EPOCHS
    if found.get("parts") is not None and "method" in found:
        raise DataError("`parts` came with `method`: expected one of them")
    parts = _part_names(found)
    about_prompts = [name for name in _BEGINNING if name in found and not set(parts) & set(PROMPTING)]
    if about_prompts:
        raise DataError(
            f"{_named(about_prompts)} came with {' and '.join(parts)} alone: expected a prompt or a prefix with them"
        )
    if found.get("parts") is not None and "prompt_length" in found:
        raise DataError("`prompt_length` came with `parts`, which have their own lengths")
    beginning = [name for name in _BEGINNING if name in found]
    if found.get("init_from") is not None and beginning:
        raise DataError(f"{_named(beginning)} came with `init_from`, which gives the prompt and its length")
    if found.get("parts") is None and any(found[name] not in (None, "") for name in beginning):
        found.setdefault("method", PREFIX)
    if found.get("init_text"):
        if found.get("init", "text") != "text":
            raise DataError(f"`init_text` came with `init` '{found['init']}': expected one of them")
        found["init"] = "text"
    elif found.get("init") == "text":
        raise DataError("`init` 'text' came without `init_text`: expected the text that the prompt begins as")
    if found.get("train_head") is False and not found.get("label_words"):
        raise DataError("`train_head` came without `label_words`: expected the words that the head stays as")
    return found


def _part_names(given: Mapping[str, Any]) -> list[str]:
    """The requested parts. Invalid values are reported where they are parsed."""
    parts, method = given.get("parts"), given.get("method")
    if isinstance(parts, str):
        parts = parse_parts(parts)
    if not isinstance(parts, Mapping):
        parts = METHODS.get(method, {}) if isinstance(method, str) else {}
    return list(parts) or [PROMPTING[0]]


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
