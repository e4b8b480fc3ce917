"""Check that a PEFT LORA adapter is exactly x·A·B in parallel to linear layers."""

from __future__ import annotations

from edgetune.peft_adapters.files import Adapter
from edgetune_runtime.errors import TaskError

_READ = frozenset(
    (
        "alpha_pattern",
        "base_model_name_or_path",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "task_type",
        "use_rslora",
    )
)
"""Settings that are converted."""

_WITHOUT_EFFECT = frozenset(
    (
        "auto_mapping",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
    )
)
"""Settings without effect here: they describe how A and B were trained, or which layers have them (the tensors show
that)."""

_PLAIN = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal", "mica"),
}
"""Settings that are also plain with these values, not only if they are empty."""

_OWN_WEIGHTS = "the model's own weights are changed too"
_REASONS = {
    "alora_invocation_tokens": "it begins in the middle of a text",
    "bias": "the model's own biases are changed too",
    "corda_config": _OWN_WEIGHTS,
    "init_lora_weights": _OWN_WEIGHTS,
    "kasa_config": _OWN_WEIGHTS,
    "layer_replication": "layers of the model are repeated",
    "loftq_config": "the model's own weights are quantized too",
    "lora_bias": "B has biases, which a task's low rank has not",
    "lora_ga_config": _OWN_WEIGHTS,
    "target_parameters": "it changes parameters that are not those of linear layers",
    "trainable_token_indices": "the model's own embeddings are changed too",
    "use_dora": "the model's own weights are scaled too (DoRA)",
}


def check_plain(adapter: Adapter) -> None:
    """Raise `TaskError` if a setting shows that the adapter does, or may do, more than a task's low rank."""
    for name, value in adapter.settings.items():
        if not value or name in _READ or name in _WITHOUT_EFFECT:
            continue
        if value in _PLAIN.get(name, ()):
            continue
        reason = _REASONS.get(name, "a task's low rank does nothing of that kind")
        raise TaskError(
            f"{adapter.origin} is LORA with {name} {value!r}: {reason}; expected plain LORA, train it again without, "
            f"or merge it into the model with PEFT and train a task on that"
        )
