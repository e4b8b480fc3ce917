"""Tiny models wrapped by PEFT, and their logits."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TEXTS, save_tokenizer
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from edgetune.peft_adapters import Adapter, import_task
from edgetune_export import Backbone
from edgetune_runtime import Task
from edgetune_runtime.text import TextEncoder

LENGTH, LABELS, MAX_LENGTH = 5, 3, 40
WORDS = {"up": ["good"], "down": ["broken", "black"]}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "albert": {"embedding_size": 16},
    "roberta": {},
    "electra": {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    "llama": {"num_key_value_heads": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 24},
    "gemma3_text": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
    },
}
LANGUAGE_MODELS = {
    "CAUSAL_LM": (AutoModelForCausalLM, ("gpt2", "llama", "opt", "gemma3_text")),
    "FEATURE_EXTRACTION": (AutoModelForMaskedLM, ("bert", "albert", "roberta", "electra", "distilbert", "modernbert")),
    "SEQ_2_SEQ_LM": (AutoModelForSeq2SeqLM, ("t5", "bart")),
}
POOLED = ("bert", "albert")
"""Encoders whose sequence classifiers add only a linear layer."""
ROWS = [(family, kind) for family in FAMILIES for kind, (_, having) in LANGUAGE_MODELS.items() if family in having]
ROWS += [(family, "SEQ_CLS") for family in FAMILIES if family not in ("t5", "bart")]

Folder = Callable[[str], Path]
Load = Callable[[str], Backbone]


def models_in(root: Path) -> Folder:
    """A function that saves a tiny random language model of a family in a folder, once."""

    @functools.cache
    def make(family: str) -> Path:
        path = root / f"tiny-{family}"
        vocabulary = save_tokenizer(path)
        config = AutoConfig.for_model(family, vocab_size=vocabulary, **{**SMALL, **FAMILIES[family]})
        kind = next(auto for auto, having in LANGUAGE_MODELS.values() if family in having)
        if family in POOLED:
            kind = AutoModelForPreTraining  # with its pooler
        torch.manual_seed(0)
        model = kind.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(path)
        return path

    return make


def auto(task_type: str, folder: Path) -> Any:
    """The model that PEFT wraps."""
    if task_type != "SEQ_CLS":
        return LANGUAGE_MODELS[task_type][0].from_pretrained(folder)
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=LABELS)


def token_rows(backbone: Backbone, task: Task) -> list[torch.Tensor]:
    encoder = TextEncoder(backbone.tokenizer_json, backbone.max_positions, backbone.mask_token)
    return [torch.tensor([row.ids]) for row in encoder.encode(TEXTS, [task] * len(TEXTS))]


def peft_logits(model: PeftModel, backbone: Backbone, task: Task, task_type: str, method: str) -> np.ndarray:
    """PEFT's logits of the labels, each text alone."""
    encoder = TextEncoder(backbone.tokenizer_json, backbone.max_positions)
    ids = {word: encoder.ids(f" {word}") for words in WORDS.values() for word in words}
    assert all(len(found) == 1 for found in ids.values())
    rows = []
    for tokens in token_rows(backbone, task):
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if method == "MULTITASK_PROMPT_TUNING":
            inputs["task_ids"] = torch.tensor([1])
        if task_type == "SEQ_2_SEQ_LM":
            start = torch.tensor([[model.config.decoder_start_token_id]])
            # PEFT's multitask forward looks at labels alone and puts the decoder's start before them.
            inputs["labels" if method == "MULTITASK_PROMPT_TUNING" else "decoder_input_ids"] = start
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        if task_type == "SEQ_CLS":
            rows.append(logits.numpy())
            continue
        place = {"CAUSAL_LM": -1, "SEQ_2_SEQ_LM": 0}.get(task_type)
        if place is None:
            place = tokens[0].tolist().index(4) + (0 if method in ("PREFIX_TUNING", "LORA") else LENGTH)
        rows.append(np.array([logits[place, [ids[word][0] for word in words]].mean() for words in WORDS.values()]))
    return np.stack(rows)


def imported(backbone: Backbone, out: Path, method: str, task_type: str) -> Task:
    arguments: dict[str, Any] = {"max_length": MAX_LENGTH}
    if task_type != "SEQ_CLS":
        arguments["words"] = WORDS
        arguments["template"] = "{text} it was {mask}" if task_type == "FEATURE_EXTRACTION" else "{text} it was"
    if method == "MULTITASK_PROMPT_TUNING":
        arguments["peft_task"] = 1
    return import_task(backbone, Adapter.load(out), "mood", **arguments)


def logits_of_export(folder: Path, out: Path, backbone: Backbone, task: Task) -> np.ndarray:
    """The logits of PEFT's model with the exported folder, for each text alone."""
    config = json.loads((out / "adapter_config.json").read_text())
    base = auto("SEQ_CLS", folder) if config["task_type"] == "SEQ_CLS" else AutoModel.from_pretrained(folder)
    model = PeftModel.from_pretrained(base, out).eval()
    rows = []
    for tokens in token_rows(backbone, task):
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        with torch.no_grad():
            if config["task_type"] == "SEQ_CLS":
                rows.append(model(**inputs).logits[0].numpy())
                continue
            if task.pooling == "decoder":
                inputs["decoder_input_ids"] = torch.tensor([[base.config.decoder_start_token_id]])
            hidden = model(**inputs).last_hidden_state[0]
        if task.pooling != "decoder" and config["peft_type"] == "PROMPT_TUNING":
            hidden = hidden[LENGTH:]
        pooled = {"cls": hidden[0], "decoder": hidden[0], "last": hidden[-1], "mean": hidden.mean(dim=0)}[task.pooling]
        head = load_file(out / "head.safetensors")
        rows.append((head["weight"] @ pooled + head["bias"]).numpy())
    return np.stack(rows)


def table_of(
    columns: Sequence[str],
    rows: Sequence[tuple[str, str]],
    outcome: Callable[[str, str, str], str],
    reasons: Mapping[str, str],
) -> str:
    """The table of docs/peft-tables.md: what can be imported by family and task type.

    `outcome` returns the reason if not.
    """
    lines = ["| model | task type | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    marks = {"": "yes"} | {reason: f"no ({place})" for place, reason in enumerate(reasons, 1)}
    for family, task_type in rows:
        cells = " | ".join(marks[outcome(column, family, task_type)] for column in columns)
        lines.append(f"| {family} | {task_type} | {cells} |")
    return "\n".join([*lines, "", *(f"{place}. {text}." for place, text in enumerate(reasons.values(), 1))])
