"""Check that a checkpoint is used completely: transformers would silently ignore unknown settings and tensors."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import MODEL_MAPPING, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers import __version__ as transformers_version

from edgetune_export.checkpoint import CONFIG, Checkpoint, note
from edgetune_runtime.errors import BackboneError

_COMPUTED_AS: dict[str, tuple[Any, ...]] = {
    "add_final_layer_norm": (False,),
    "alibi": (False,),
    "attention_multiplier": (1.0,),
    "embedding_multiplier": (1.0,),
    "normalize_before": (False,),
    "normalize_embedding": (True,),
    "position_embedding_type": ("absolute",),
    "residual_multiplier": (1.0,),
    "rope_interleaved": (False,),
    "static_position_embeddings": (False,),
    "use_alibi": (False,),
    "use_qk_norm": (False,),
}
"""Keys of config.json that affect a model's results → the values for which transformers still computes the same, for
architectures that do not (or no longer) know the key."""

_SAYS_NOTHING_OF_FEATURES = frozenset(GenerationConfig().to_dict()) | {
    # Settings for training, files, lengths, and heads that edgetune does not use.
    *("_name_or_path", "auto_map", "finetuning_task", "gradient_checkpointing", "task_specific_params", "torch_dtype"),
    *("add_bias_logits", "classif_dropout", "directionality", "id2label", "label2id", "num_labels", "output_past"),
    *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"),
    *("down_scale_factor", "is_llama_config", "max_position_embeddings", "n_ctx", "n_positions", "prefix"),
    *("reference_compile", "repad_logits_with_grad", "tie_weights_", "transformers.js_config", "unsloth_fixed"),
}

_PRETRAINING_HEADS: tuple[str, ...] = (
    *("cls.", "decoder.bias", "discriminator_predictions.", "embed_out.", "final_logits_bias", "generator_", "head."),
    *("lm_head.", "lm_predictions.", "mask_predictions.", "predictions.", "sop_classifier.", "vocab_"),
)
_POOLER = "pooler."
_MODELS = "transformers.models."


def check_config(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    """Compare config.json with the settings that transformers uses.

    Raises:
        BackboneError: it asks for something that transformers does not (or no longer) support for this architecture.
    """
    given = checkpoint.read_json(CONFIG)
    unused = {key: given[key] for key in _unused(given, config)}
    for key, computed in _COMPUTED_AS.items():
        if unused.get(key) is not None and unused[key] not in computed:
            raise BackboneError(
                f"{CONFIG} of {checkpoint.model} has {key} {unused[key]!r}, which transformers {transformers_version} "
                f"does not compute for '{config.model_type}' (it computes {computed[0]!r}): expected another model"
            )
    told = [f"{key} {unused[key]!r}" for key in unused if key not in _COMPUTED_AS and _says_something(key, unused[key])]
    if told:
        note(
            f"{CONFIG} of {checkpoint.model} has {', '.join(told)}, which transformers {transformers_version} does not "
            f"use for '{config.model_type}'"
        )


def _unused(given: Mapping[str, Any], config: PreTrainedConfig) -> list[str]:
    """Keys that neither the configuration's class nor the model reads, and that affect no other value."""
    kind = type(config)
    declared = {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map) | set(kind().to_dict())
    undeclared = [key for key in given if key not in declared]
    asked = _asked_by_name(kind) if undeclared else frozenset()
    return [key for key in undeclared if key not in asked and _same(kind, given, key)]


def _asked_by_name(kind: type[PreTrainedConfig]) -> frozenset[str]:
    """Names that the model's code reads from a configuration with `getattr` or `hasattr`, as in DeBERTa."""
    model = MODEL_MAPPING.get(kind, ())
    classes = model if isinstance(model, tuple) else (model,)
    modules = {own.__module__ for each in classes for own in each.__mro__ if own.__module__.startswith(_MODELS)}
    calls = (
        node
        for module in modules
        for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module])))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
    )
    names = (call.args[1] for call in calls if len(call.args) > 1 and ast.unparse(call.args[0]).endswith("config"))
    return frozenset(str(name.value) for name in names if isinstance(name, ast.Constant))


def _same(kind: type[PreTrainedConfig], given: Mapping[str, Any], key: str) -> bool:
    """Whether removing a key leaves all other values unchanged."""
    return _values(kind, given, key) == _values(kind, given, key, without=True)


def _values(kind: type[PreTrainedConfig], given: Mapping[str, Any], key: str, without: bool = False) -> dict[str, Any]:
    taken = {name: value for name, value in given.items() if not (without and name == key)}
    values: dict[str, Any] = kind.from_dict(json.loads(json.dumps(taken))).to_dict()
    return {name: value for name, value in values.items() if name != key}


def _says_something(key: str, value: Any) -> bool:
    quiet = key in _SAYS_NOTHING_OF_FEATURES or key.startswith("_") or "dropout" in key or key.endswith("_version")
    return bool(value) and not quiet


def check_report(
    checkpoint: Checkpoint, model: PreTrainedModel, report: Mapping[str, Any], with_head: bool = False
) -> None:
    """Compare the tensors in the weight files with those of the backbone.

    Args:
        checkpoint: the checkpoint.
        model: the language model that was loaded from it.
        report: the loading report of `from_pretrained`.
        with_head: whether a classifier's head is used too.

    Raises:
        BackboneError: tensors inside the backbone are missing, have another shape, or are not used.
    """
    prefixes = inside(model)
    missing = sorted(name for name in report["missing_keys"] if name.startswith(prefixes))
    if missing:
        raise BackboneError(
            f"the weights of {checkpoint.model} lack {len(missing)} tensors, the first of them {missing[0]}: the file "
            f"is not whole or belongs to another architecture; copy or download it again"
        )
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, found, expected = mismatched[0]
        raise BackboneError(
            f"the weights of {checkpoint.model} have {len(mismatched)} tensors of other shapes than {CONFIG} says, the "
            f"first of them {name}, {list(found)} where {list(expected)} is expected: copy or download both again"
        )
    unused = [_below(name, model) for name in sorted(report["unexpected_keys"])]
    core = nn.Module() if model.config.is_encoder_decoder else getattr(model, model.base_model_prefix)
    strange = [name for name, within in unused if (within or _begins_in(name, core)) and not name.startswith(_POOLER)]
    if strange:
        raise BackboneError(
            f"the weights of {checkpoint.model} have {len(strange)} tensors inside the backbone that "
            f"'{model.config.model_type}' does not use in transformers {transformers_version}, the first of them "
            f"{strange[0]}: it would compute something else; expected a model whose tensors are all used"
        )
    heads = [name for name, within in unused if not within and not name.startswith((*_PRETRAINING_HEADS, _POOLER))]
    if heads and not with_head:
        parts = dict.fromkeys(name.rpartition(".")[0] or name for name in heads)
        note(
            f"{checkpoint.model} has a head of its own ({', '.join(parts)}), which is not used: every task brings the "
            f"head that it was trained with, and a classifier's own can be made one"
        )


def inside(model: PreTrainedModel) -> tuple[str, ...]:
    """Name prefixes of the backbone's tensors; the other tensors lead from its features to the vocabulary."""
    prefix = model.base_model_prefix
    return (f"{prefix}.",) if hasattr(model, prefix) else ("encoder.", "decoder.", "shared.")


def _below(name: str, model: PreTrainedModel) -> tuple[str, bool]:
    """A tensor's name without the backbone's prefix, and whether it had the prefix."""
    for prefix in inside(model):
        if name.startswith(prefix):
            return (name, True) if prefix in ("encoder.", "decoder.", "shared.") else (name[len(prefix) :], True)
    return name, False


def _begins_in(name: str, core: nn.Module) -> bool:
    """Whether a tensor belongs to the backbone, in a checkpoint without the prefix.

    The bare model's class writes such checkpoints.
    """
    first = name.partition(".")[0]
    return first in dict(core.named_children()) or first in dict(core.named_parameters(recurse=False))
