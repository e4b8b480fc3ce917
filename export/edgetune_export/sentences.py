"""How a sentence-transformers model reads texts: its pooling, and the words before a text.

https://sbert.net/docs/package_reference/sentence_transformer/models.html. The files are `modules.json`, the files that
it names, and `config_sentence_transformers.json`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from edgetune_export.checkpoint import Checkpoint, kind_of, modules_of, note

_CONFIG = "config_sentence_transformers.json"
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
"""Pooling of sentence-transformers → ours."""

_OLD_MODE = "pooling_mode_"
_OLD_NAMES = {"cls_token": "cls", "mean_tokens": "mean", "weightedmean_tokens": "weightedmean"}


def usual_pooling(checkpoint: Checkpoint) -> str | None:
    """The pooling of a sentence-transformers model; `None` for other models, or if the pooling is not supported.

    Other processing steps, which a task has to do itself, are reported on stderr.

    Raises:
        BackboneError: one of its files is damaged.
    """
    root = dataclasses.replace(checkpoint, subfolder="")
    modules = modules_of(root)
    left = [kind_of(module) for module in modules if kind_of(module) not in ("Transformer", "Pooling", "Normalize")]
    if left:
        note(
            f"the modules {', '.join(left)} behind the transformer of {root.model} are not used: a task reads its "
            f"features"
        )
    _say_prompts(root)
    paths = [str(module.get("path", "")) for module in modules if kind_of(module) == "Pooling"]
    if not paths:
        return None
    config = root.read_json(f"{paths[0]}/config.json")
    modes = _modes(config)
    if not modes:
        return None
    found = _POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if found is None:
        note(f"{root.model} was trained to read texts by the pooling {' and '.join(modes)}, which edgetune has not")
    elif config.get("include_prompt") is False:
        note(f"{root.model} was trained to leave a prompt out of its pooling, which edgetune does not")
    return found


def _modes(config: dict[str, Any]) -> list[str]:
    """The enabled poolings; there should be only one."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return [str(one) for one in mode] if isinstance(mode, list) else [str(mode)]
    named = [name.removeprefix(_OLD_MODE) for name, on in config.items() if name.startswith(_OLD_MODE) and on is True]
    return [_OLD_NAMES.get(name, name) for name in named]


def _say_prompts(root: Checkpoint) -> None:
    prompts = root.read_json(_CONFIG).get("prompts")
    told = {str(name): text for name, text in prompts.items() if text} if isinstance(prompts, dict) else {}
    if told:
        first = next(iter(told.values()))
        listed = ", ".join(f"{name} {text!r}" for name, text in told.items())
        note(
            f"{root.model} was trained with words before its texts ({listed}), which are no part of a task unless its "
            f"template has them: such as `template` {first + '{text}'!r}"
        )
