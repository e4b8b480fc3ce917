"""A backbone's features are those of the original model, in transformers' own attention, for every family.

The original is `AutoModel` of the same checkpoint with "eager" attention, without any code of edgetune.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import save_tokenizer
from test_graph import MORE, SMALL, session, tiny_backbone
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from edgetune.training import prompts
from edgetune_export import attention, load_backbone, passes
from edgetune_export.backbone import Backbone
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER, FAMILIES
from edgetune_export.graph import to_onnx, with_default_bank
from edgetune_export.loading import language_model_class
from edgetune_export.weights import Weights
from edgetune_runtime import contract
from edgetune_runtime.errors import BackboneError

CLOSE = 1e-4
VOCABULARY = 200
FIRST_WORD = 6  # after the special tokens
ROPE = {"rope_theta": 10000.0}
WINDOWED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
BIDIRECTIONAL = {"use_bidirectional_attention": True, "layer_types": ["full_attention"] * 2}


@dataclass(frozen=True)
class Model:
    """A tiny model: an architecture, and its additional configuration."""

    architecture: str
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = (
            f"{key}={value.get('rope_type') or 'both' if isinstance(value, dict) else value}"
            for key, value in self.more.items()
        )
        return "-".join((self.architecture, *told)).replace(" ", "")


FAMILY_DEFAULTS = [Model(architecture) for architecture in sorted(FAMILIES)]
VARIANTS = [
    Model("albert", {"num_hidden_groups": 2, "inner_group_num": 2}),
    Model("bert", {"is_decoder": True}),
    Model("bert", {"chunk_size_feed_forward": 4}),
    Model("bert", {"type_vocab_size": 3, "hidden_act": "relu", "pad_token_id": 5}),
    Model("deberta-v2", {"relative_attention": False, "position_biased_input": True, "type_vocab_size": 2}),
    Model("deberta-v2", {"share_att_key": False, "pos_att_type": ["p2c"], "norm_rel_ebd": "none"}),
    Model("deberta-v2", {"position_buckets": -1, "max_relative_positions": 24, "pos_att_type": ["c2p"]}),
    Model("electra", {"is_decoder": True, "embedding_size": 32}),
    Model("distilbert", {"sinusoidal_pos_embds": True}),
    Model("roberta", {"pad_token_id": 5, "is_decoder": True}),
    Model("modernbert", {"local_attention": 8, "global_attn_every_n_layers": 2}),
    Model("modernbert", {"local_attention": 8, "layer_types": ["sliding_attention"] * 2, "norm_bias": True}),
    Model("gemma3_text", BIDIRECTIONAL),
    Model("gemma3_text", {**WINDOWED, "use_bidirectional_attention": True}),
    Model("gemma3_text", {"layer_types": ["full_attention"] * 2, "query_pre_attn_scalar": 4}),
    Model("gemma2", {"query_pre_attn_scalar": 4, "attn_logit_softcapping": None}),
    Model("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    Model("gpt2", {"scale_attn_weights": False}),
    Model("gpt2", {"reorder_and_upcast_attn": True, "n_inner": 24}),
    Model("gpt_neox", {"use_parallel_residual": False}),
    Model("gpt_neox", {"attention_bias": False, "rotary_pct": 0.5}),
    Model("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, **ROPE}}),
    Model("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, **ROPE}, "max_position_embeddings": 40}),
    Model(
        "llama",
        {
            "rope_parameters": {
                **{"rope_type": "longrope", "factor": 4.0, **ROPE},
                **{"short_factor": [1.5] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 40},
            },
            "max_position_embeddings": 160,
        },
    ),
    Model(
        "llama",
        {
            "rope_parameters": {
                **{"rope_type": "llama3", "factor": 8.0, **ROPE, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
                "original_max_position_embeddings": 16,
            }
        },
    ),
    Model("llama", {"head_dim": 16, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    Model("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    Model("opt", {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    Model("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    Model("qwen3", {"use_sliding_window": True, **WINDOWED, "attention_bias": True}),
    Model("bart", {"scale_embedding": True}),
    Model("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    Model("mt5", {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}),
]
IN_ONNX = [
    Model("bert", {"is_decoder": True}),
    Model("gemma3_text", BIDIRECTIONAL),
    Model("gemma3_text", {**WINDOWED, "use_bidirectional_attention": True}),
    Model("granite_swa"),
    next(model for model in VARIANTS if model.more.get("rope_parameters", {}).get("rope_type") == "dynamic"),
    next(model for model in VARIANTS if model.more.get("rope_parameters", {}).get("rope_type") == "longrope"),
    Model("modernbert", {"local_attention": 8, "global_attn_every_n_layers": 2}),
    Model("qwen3", {"use_sliding_window": True, **WINDOWED}),
]
ROWS = ([40], [40, 7, 23, 1])
"""Lengths of the texts of a batch: beyond every window of eight; alone, and padded."""


def save(model: Model, folder: Path, tokenizer: Path) -> None:
    """Save a tiny model of random weights, with a pooler if the family has one, and a tokenizer."""
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    sizes = {**SMALL, **MORE.get(model.architecture, {}), "vocab_size": VOCABULARY}
    config = AutoConfig.for_model(model.architecture, **{**sizes, **model.more})
    pools = model.architecture in CLASSIFIES_THROUGH_POOLER and not config.to_dict().get("is_decoder")
    whole = (AutoModelForPreTraining if pools else language_model_class(model.architecture)).from_config(config)
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.3)
    whole.save_pretrained(folder)


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right, and their mask. Shape: both [rows, longest]."""
    return tuple(  # type: ignore[return-value]
        nn.utils.rnn.pad_sequence([torch.tensor(row) for row in given], batch_first=True)
        for given in (rows, [[1] * len(row) for row in rows])
    )


def span(pooling: str, length: int) -> tuple[int, int]:
    """The span that a pooling reads for a text without a prompt."""
    return {"cls": (0, 1), "pooler": (0, 1), "last": (length - 1, length)}.get(pooling, (0, length))


@dataclass
class Pair:
    """Edgetune's backbone and the original model, of one checkpoint."""

    folder: Path

    @cached_property
    def original(self) -> Any:
        return AutoModel.from_pretrained(self.folder, attn_implementation="eager").eval()

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(str(self.folder))

    @torch.no_grad()
    def expected(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pooling → features of the original model."""
        config = self.original.config
        ids, mask = padded(rows)
        padding = 0 if config.pad_token_id is None else config.pad_token_id
        inputs = {"input_ids": torch.where(mask.bool(), ids, torch.tensor(padding)), "attention_mask": mask}
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.full((len(rows), 1), config.decoder_start_token_id)
            return {"decoder": self.original(**inputs).last_hidden_state[:, 0]}
        output = self.original(**inputs)
        texts = [hidden[: len(row)] for hidden, row in zip(output.last_hidden_state, rows, strict=True)]
        features = {
            "cls": torch.stack([text[0] for text in texts]),
            "mean": torch.stack([text.mean(dim=0) for text in texts]),
            "last": torch.stack([text[-1] for text in texts]),
        }
        if "pooler" in self.backbone.poolings:
            features["pooler"] = output.pooler_output
        return features

    def inputs(self, rows: Sequence[Sequence[int]], pooling: str, **tensors: Tensor) -> dict[str, Tensor]:
        """The inputs of edgetune's forward, for a task with or without tensors."""
        ids, mask = padded(rows)
        lengths = {"prompt": 0, "prefix": 0}
        for name, value in tensors.items():
            lengths["prompt" if name == contract.PROMPT_EMBEDDINGS else "prefix"] = value.shape[-2]
        bank = {
            name: torch.zeros(
                self.backbone.sizes.shape(name, tasks=1, labels=1, **lengths), dtype=getattr(torch, spec.dtype)
            )
            for name, spec in contract.BANK_INPUTS.items()
            if name in self.backbone.facts.inputs
        }
        bank |= {name: value[None] for name, value in tensors.items()}
        bank[contract.PROMPT_MASK] += 1
        bank[contract.PREFIX_MASK] += 1
        bank[contract.POSITION_OFFSET] += self.backbone.position_offset(sum(lengths.values()))
        if contract.POOLING in bank:
            bank[contract.POOLING] += contract.POOLINGS.index(pooling)
        text = {contract.INPUT_IDS: ids, contract.ATTENTION_MASK: mask}
        if contract.TOKEN_TYPE_IDS in self.backbone.inputs:
            text[contract.TOKEN_TYPE_IDS] = torch.zeros_like(ids)
        if contract.SPANS in self.backbone.inputs:
            text[contract.SPANS] = torch.tensor([[span(pooling, len(row))] for row in rows])
        return {**text, contract.TASK_INDEX: torch.zeros(len(rows), dtype=torch.int64), **bank}

    @torch.no_grad()
    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Features of each text's only span. Shape: [batch, hidden]."""
        found: Tensor = self.backbone(**inputs)[1]
        return found[:, 0]

    def texts(self, lengths: Sequence[int]) -> list[list[int]]:
        random = np.random.default_rng(len(lengths))
        return [list(random.integers(FIRST_WORD, self.original.config.vocab_size, length)) for length in lengths]


MakePair = Callable[[Model], Pair]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """Returns a model loaded by edgetune and by transformers. Not to be changed."""
    made: dict[str, Pair] = {}
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    assert save_tokenizer(tokenizer) <= VOCABULARY

    def make(model: Model) -> Pair:
        if str(model) not in made:
            folder = tmp_path_factory.mktemp("model")
            save(model, folder, tokenizer)
            made[str(model)] = Pair(folder)
        return made[str(model)]

    return make


@pytest.mark.parametrize("model", FAMILY_DEFAULTS + VARIANTS, ids=str)
def test_bare_features_are_those_of_the_original_model(model: Model, pair: MakePair) -> None:
    both = pair(model)
    for lengths in ROWS:
        rows = both.texts(lengths)
        expected = both.expected(rows)
        read = [pooling for pooling in both.backbone.poolings if pooling != "mask"]
        assert set(read) == set(expected)
        for pooling in read:
            got = both.features(both.inputs(rows, pooling))
            torch.testing.assert_close(
                got, expected[pooling], atol=CLOSE, rtol=0, msg=lambda why, p=pooling: f"{p}: {why}"
            )


ONE_STEP = [name for name, family in FAMILIES.items() if family.poolings == ("decoder",)]
"""Encoder-decoders, which read one step of their decoder and have no spans."""


@pytest.mark.parametrize("model", [model for model in FAMILY_DEFAULTS if model.architecture not in ONE_STEP], ids=str)
def test_spans_are_means_of_the_original_models_hidden_states(model: Model, pair: MakePair) -> None:
    """Several spans per text, different for each text; also with prompts before them."""
    both = pair(model)
    lengths = [30, 7, 19]
    rows = both.texts(lengths)
    spans = [[(0, n), (0, 1), (n - 1, n), (n // 2, n // 2 + 1), (n // 3, n - 2)] for n in lengths]
    ids, mask = padded(rows)
    with torch.no_grad():
        hidden = both.original(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = torch.stack(
        [
            torch.stack([text[begin:end].mean(dim=0) for begin, end in own])
            for text, own in zip(hidden, spans, strict=True)
        ]
    )
    usual = {"mean": 0, "cls": 1, "last": 2}
    assert usual.keys() <= set(both.backbone.poolings)
    for pooling, place in usual.items():
        torch.testing.assert_close(expected[:, place], both.expected(rows)[pooling], atol=CLOSE, rtol=0)
    inputs = both.inputs(rows, "mean")
    with torch.no_grad():
        (_, got) = both.backbone(**{**inputs, contract.SPANS: torch.tensor(spans)})
    torch.testing.assert_close(got, expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("model", FAMILY_DEFAULTS + VARIANTS, ids=str)
def test_segments_are_those_of_the_original_model(model: Model, pair: MakePair) -> None:
    both = pair(model)
    config = both.original.config
    assert both.backbone.has_segments == (contract.TOKEN_TYPE_IDS in both.backbone.inputs)
    if not both.backbone.has_segments:
        assert getattr(config, "type_vocab_size", 0) < 2 or model.architecture not in ("albert", "bert", "electra")
        return
    rows = both.texts([28, 7, 19])
    ids, mask = padded(rows)
    segments = (torch.arange(28)[None] >= torch.tensor([[12], [3], [18]])).long()
    length = 4
    prompt = torch.randn(length, both.backbone.sizes.embedding)
    looked_up = both.original.get_input_embeddings()(ids)
    for tensors in ({}, {contract.PROMPT_EMBEDDINGS: prompt}):
        before = prompt.expand(len(rows), -1, -1)[:, : length * len(tensors)]
        size = before.shape[1]
        places = torch.cat([torch.arange(size), torch.arange(28) + both.backbone.position_offset(size)])
        with torch.no_grad():
            hidden = both.original(
                inputs_embeds=torch.cat([before, looked_up], dim=1),
                attention_mask=torch.cat([torch.ones(len(rows), size, dtype=torch.int64), mask], dim=1),
                token_type_ids=torch.cat([torch.zeros(len(rows), size, dtype=torch.int64), segments], dim=1),
                position_ids=(places + both.backbone._first_position).expand(len(rows), -1),
            ).last_hidden_state[:, size:]
        expected = torch.stack([text[: len(row)].mean(dim=0) for text, row in zip(hidden, rows, strict=True)])
        inputs = both.inputs(rows, "mean", **tensors)
        got = both.features({**inputs, contract.TOKEN_TYPE_IDS: segments})
        torch.testing.assert_close(got, expected, atol=CLOSE, rtol=0)
        assert (got - both.features(inputs)).abs().max() > 10 * CLOSE  # they have an effect


def test_the_families_of_pairs_have_segments(pair: MakePair) -> None:
    have = {model.architecture for model in FAMILY_DEFAULTS if pair(model).backbone.has_segments}
    assert have >= {"albert", "bert", "electra"}
    assert have.isdisjoint({"distilbert", "modernbert", "gpt2", "llama", *ONE_STEP})


@pytest.mark.parametrize(
    "model", [model for model in FAMILY_DEFAULTS + VARIANTS if model.architecture not in ONE_STEP], ids=str
)
def test_a_soft_prompt_acts_as_in_the_original_model_and_as_it_is_stored_too(model: Model, pair: MakePair) -> None:
    """Embeddings before those of the text, and the stored form: their prefix, or the embeddings."""
    length, text = 6, 30
    both = pair(model)
    (row,) = both.texts([text])
    backbone, original = both.backbone, both.original
    prompt = torch.randn(length, backbone.sizes.embedding)
    places = torch.cat([torch.arange(length), torch.arange(text) + backbone.position_offset(length)])
    embeddings = torch.cat([prompt, original.get_input_embeddings()(torch.tensor(row))])[None].detach()
    mask = torch.ones(1, length + text, dtype=torch.int64)
    if model.architecture == "distilbert":  # always numbers positions along the row
        table = original.embeddings.position_embeddings
        embeddings += (table(places) - table(torch.arange(length + text)))[None].detach()
        positions = {}
    else:
        positions = {"position_ids": places[None] + backbone._first_position}
    with torch.no_grad():
        hidden = original(inputs_embeds=embeddings, attention_mask=mask, **positions).last_hidden_state
    expected = hidden[:, length:].mean(dim=1)
    tensors = {contract.PROMPT_EMBEDDINGS: prompt}
    stored = {name: torch.from_numpy(array) for name, array in prompts.stored(backbone, tensors, text).items()}
    stored.pop(contract.PROMPT_SOURCE, None)
    for form in (tensors, stored):
        got = both.features(both.inputs([row], "mean", **form))
        torch.testing.assert_close(got, expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("model", IN_ONNX, ids=str)
def test_the_graph_of_what_families_do_not_do_by_default_answers_as_the_original_model(
    model: Model, pair: MakePair
) -> None:
    both = pair(model)
    opened = session(with_default_bank(passes.optimize(to_onnx(both.backbone, Weights()), Weights()), both.backbone))
    for lengths in ROWS:
        rows = both.texts(lengths)
        for pooling, expected in both.expected(rows).items():
            feed = {name: tensor.numpy() for name, tensor in both.inputs(rows, pooling).items()}
            (got,) = opened.run([contract.FEATURES], feed)
            np.testing.assert_allclose(got[:, 0], expected.numpy(), atol=CLOSE, err_msg=pooling)
    random = torch.Generator().manual_seed(0)
    prompt = torch.randn(6, both.backbone.sizes.embedding, generator=random)
    inputs = both.inputs(both.texts([30]), "mean", **{contract.PROMPT_EMBEDDINGS: prompt})
    (got,) = opened.run([contract.FEATURES], {name: tensor.numpy() for name, tensor in inputs.items()})
    np.testing.assert_allclose(got[:, 0], both.features(inputs).numpy(), atol=CLOSE)


def test_a_bidirectional_decoder_is_an_encoder(pair: MakePair) -> None:
    """EmbeddingGemma: a prompt's own keys and values would depend on the text, so it stays a prompt."""
    both = pair(Model("gemma3_text", BIDIRECTIONAL))
    assert both.backbone.poolings == ("mean", "cls", "last")
    assert both.backbone.position_offset(6) == 0
    stored = prompts.stored(both.backbone, {contract.PROMPT_EMBEDDINGS: torch.randn(6, 32)}, 30)
    assert set(stored) == {contract.PROMPT_EMBEDDINGS}


@pytest.mark.parametrize(
    ("model", "window"),
    [
        (Model("llama"), None),
        (Model("llama", {"sliding_window": 8}), None),
        (Model("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}), 8),
        (Model("qwen2", {"use_sliding_window": False, "sliding_window": 8}), None),
        (Model("qwen3", {"use_sliding_window": True, **WINDOWED}), 8),
        (Model("gemma3_text"), 8),
        (Model("mistral"), 8),
        (Model("mistral", {"sliding_window": None}), None),
        (Model("phi3"), 8),
        (Model("gemma3_text", {"layer_types": ["full_attention"] * 2}), None),
    ],
    ids=str,
)
def test_the_window_is_what_attention_is_told(model: Model, window: int | None, pair: MakePair) -> None:
    assert pair(model).backbone.window == window


@pytest.mark.parametrize("name", ["something_new", "cu_seq_lens_q"])
def test_attention_refuses_what_it_does_not_compute(name: str) -> None:
    states = torch.zeros(1, 4, 3, 8)
    with pytest.raises(BackboneError, match=f"Module passes {name} to its attention"):
        attention.attend(nn.Module(), states, states, states, None, **{name: 30.0})
    attention.attend(
        nn.Module(), states, states, states, None, **{name: None}, position_ids=torch.arange(3), use_cache=False
    )


def test_a_number_of_its_own_is_part_of_the_fingerprint() -> None:
    """Apertus' feed-forwards have zero-dimensional parameters."""
    backbone = tiny_backbone("apertus")
    before = backbone.fingerprint()
    next(tensor for tensor in backbone.model.state_dict().values() if tensor.ndim == 0).add_(1)
    assert backbone.fingerprint() != before


def test_longer_texts_than_the_frequencies_were_held_for_are_cut(pair: MakePair) -> None:
    longrope = next(model for model in VARIANTS if model.more.get("rope_parameters", {}).get("rope_type") == "longrope")
    assert pair(longrope).backbone.max_positions == 40
