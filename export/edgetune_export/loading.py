"""Load a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.tasks import TasksManager
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from edgetune_export import attention
from edgetune_export.backbone import Backbone
from edgetune_export.checkpoint import Checkpoint, find_checkpoint, note
from edgetune_export.completeness import check_config, check_report, inside
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER, FAMILIES
from edgetune_export.language_model import MaskTransform, OneStep, Pooler, take_vocabulary
from edgetune_export.own_attention import let_attend
from edgetune_export.own_head import OwnHead, has_own_head, load_classifier, read_own_head, reading_of
from edgetune_export.quiet import quiet
from edgetune_export.sentences import usual_pooling
from edgetune_export.stored import half_precision_of, kept_as
from edgetune_export.tokenizer import check_embedded, exported_tokenizer, usable_mask_token
from edgetune_runtime.errors import BackboneError, EdgetuneError, MissingPackageError

FP32, BF16, STORED = LOAD_IN = ("fp32", "bf16", "stored")
"""Types of large weights in memory."""

_NO_CODE = {"trust_remote_code": False}
"""Without it, transformers asks on stdin whether to run a checkpoint's code."""


def load_backbone(model: str, with_head: bool = False, load_in: str = FP32) -> Backbone:
    """Load a frozen backbone.

    Unused tensors and settings are rejected if they belong to the backbone, and otherwise reported on stderr.

    Args:
        model: a local folder, a `.gguf` file, or a hub id.
        with_head: whether to load a classifier's head too.
        load_in: type of its large weights in memory: "fp32"; "stored", which leaves bf16 and fp16 as they are; or
            "bf16", which also rounds fp32 weights to bf16, for training. It always computes in fp32, and its
            fingerprint is the same.

    Raises:
        BackboneError: it cannot be found or loaded, its architecture is not supported, its files do not match, or
            `load_in` is unknown.
        MissingPackageError: the model is a `.gguf` file and `gguf` is not installed.
    """
    if load_in not in LOAD_IN:
        raise BackboneError(f"`load_in` {load_in!r}: expected one of {', '.join(LOAD_IN)}")
    if Path(model).suffix == ".gguf" and find_spec("gguf") is None:
        raise MissingPackageError("gguf", "gguf")
    with quiet(), ExitStack() as kept:
        checkpoint = _or_backbone_error(model, find_checkpoint, {"model": model})
        config = _or_backbone_error(model, AutoConfig.from_pretrained, {**checkpoint.source, **_NO_CODE})
        if config.model_type not in FAMILIES:
            raise BackboneError(
                f"{model} has the architecture '{config.model_type}', which is not supported: expected one of "
                f"{', '.join(sorted(FAMILIES))}"
            )
        check_config(checkpoint, config)
        if load_in != FP32:
            kept.enter_context(kept_as(_or_backbone_error(model, half_precision_of, {"checkpoint": checkpoint})))
        loaded, report = _load_weights(checkpoint, config.model_type)
        takes_head = with_head and has_own_head(config, report["unexpected_keys"])
        check_report(checkpoint, loaded, report, takes_head)
        # Masked language models omit the pooler, which only some weights contain.
        pools = config.model_type in CLASSIFIES_THROUGH_POOLER and any("pooler" in k for k in report["unexpected_keys"])
        pooler = None
        if pools:
            pooler = _or_backbone_error(
                model, AutoModel.from_pretrained, {**checkpoint.source, **_NO_CODE, "dtype": torch.float32}
            ).pooler
        own_head = None
        # The graph always includes the layers before the head's last one, so that such tasks can be added later.
        reading = reading_of(config) if has_own_head(config, report["unexpected_keys"]) else None
        if reading is not None and (with_head or reading.layers):
            source = {"checkpoint": checkpoint, "of": reading.of}
            classifier = _or_backbone_error(model, load_classifier, source)
            own_head = read_own_head(config, classifier, reading)
        tokenizer = _or_backbone_error(model, AutoTokenizer.from_pretrained, {**checkpoint.source, **_NO_CODE})
    if not getattr(tokenizer, "is_fast", False):
        raise BackboneError(f"{model} has no fast tokenizer: expected a tokenizer.json next to the weights")
    tokenizer_json = exported_tokenizer(checkpoint, tokenizer)
    embeddings = loaded.get_input_embeddings().num_embeddings
    check_embedded(checkpoint, tokenizer_json, embeddings)
    backbone = from_language_model(
        loaded,
        _name(model),
        tokenizer_json,
        mask_token=usable_mask_token(tokenizer_json, tokenizer, embeddings),
        has_vocabulary=all(name.startswith(inside(loaded)) for name in report["missing_keys"]),
        pooler=pooler,
        own_head=own_head,
        pooling=usual_pooling(checkpoint),
    )
    if load_in == BF16 and backbone.round_weights():
        note(
            f"the weights of {model} are rounded to bf16 to train on; the task fits the bundle of the weights as they "
            f"are stored"
        )
    return backbone


def _load_weights(checkpoint: Checkpoint, architecture: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    options = {
        "attn_implementation": attention.IMPLEMENTATION,
        "dtype": torch.float32,
        # With chunks, lengths would have to be multiples of the chunk size; their only use is to save memory.
        "chunk_size_feed_forward": 0,
        # Otherwise transformers rejects them without naming one.
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    load = language_model_class(architecture).from_pretrained
    loaded: tuple[PreTrainedModel, dict[str, Any]] = _or_backbone_error(
        checkpoint.model, load, {**checkpoint.source, **options}
    )
    return loaded


def from_language_model(
    model: PreTrainedModel,
    name: str,
    tokenizer_json: bytes,
    mask_token: tuple[str, int] | None = None,
    has_vocabulary: bool = True,
    pooler: nn.Module | None = None,
    own_head: OwnHead | None = None,
    pooling: str | None = None,
) -> Backbone:
    """The backbone of a language model that was loaded with edgetune's attention. The model is taken apart.

    Args:
        model: a model of the class `language_model_class`.
        name: its name.
        tokenizer_json: the contents of its `tokenizer.json`.
        mask_token: its tokenizer's mask token with its id, if there is one.
        has_vocabulary: whether the layers that lead to the vocabulary are trained.
        pooler: the model's pooler, if its weights have one (BERT, ALBERT).
        own_head: the checkpoint's own head, if it is a classifier.
        pooling: the pooling that it was trained with, if known; otherwise the default of its family is used.
    """
    config = model.config
    let_attend(model)
    # Some models name a layer with another purpose (DeBERTa's newer head).
    layer, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    has_vocabulary = has_vocabulary and len(layer.weight) == embeddings.num_embeddings
    core = OneStep(model) if config.is_encoder_decoder else getattr(model, model.base_model_prefix)
    vocabulary = take_vocabulary(model) if has_vocabulary else None
    fills_masks = has_vocabulary and FAMILIES[config.model_type].language_model == "fill-mask"
    transforms: dict[str, nn.Module] = {}
    if fills_masks and mask_token is not None:
        transforms["mask"] = MaskTransform(model)
    if pooler is not None:
        transforms["pooler"] = Pooler(pooler)
    if own_head is not None and own_head.layers is not None:
        transforms[own_head.pooling] = own_head.layers
    return Backbone(core, config, name, tokenizer_json, mask_token, transforms, vocabulary, own_head, pooling)


def language_model_class(architecture: str) -> Any:
    """The class that loads an architecture with its vocabulary."""
    return TasksManager.get_model_class_for_task(FAMILIES[architecture].language_model, model_type=architecture)


def _name(model: str) -> str:
    path = Path(model).resolve()
    if not path.exists():
        return model
    # Python packages keep their weights in a folder "model", which is not a useful name.
    return path.parent.name if path.name == "model" else path.name


def _or_backbone_error(model: str, load: Callable[..., Any], source: dict[str, Any]) -> Any:
    try:
        return load(**source)
    except EdgetuneError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not Path(model).exists():
            reason = f"there is no such folder here, and from the hub: {reason}"
        raise BackboneError(
            f"the model {model} cannot be loaded ({reason}): expected a folder with config.json, weights and "
            f"tokenizer, a .gguf file, or the id of a model on the hub"
        ) from error
