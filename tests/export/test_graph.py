"""The exported graph gives PyTorch's answers, for every family, both prompt types, all lengths and mixed tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from transformers import AutoConfig

from edgetune_export import attention, passes, quantize
from edgetune_export.backbone import Backbone
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER, FAMILIES
from edgetune_export.graph import to_onnx, with_default_bank
from edgetune_export.loading import from_language_model, language_model_class
from edgetune_export.weights import Weights
from edgetune_runtime import contract
from edgetune_runtime.devices import CPU
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.session import open_any

SMALL = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_CAP = {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 1,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
_SHARED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        {**_GROUPED},
        (
            *("apertus", "arcee", "cohere", "ernie4_5", "gemma", "glm", "glm4", "granite", "helium"),
            *("hunyuan_v1_dense", "hyperclovax", "internlm3", "iquestcoder", "jais2", "nanochat", "nemotron", "olmo"),
            *("olmo2", "qwen3", "seed_oss"),
        ),
    ),
    ({"num_key_value_heads": 2}, ("bitnet", "llama", "phi", "qwen2", "smollm3", "stablelm")),
    ({"num_key_value_heads": 2, "sliding_window": 8}, ("ministral3", "mistral", "phi3", "starcoder2")),
    (
        {**_GROUPED, **_WINDOW},
        ("cohere2", "cwm", "exaone4", "gemma3_text", "granite_swa", "ministral", "olmo3"),
    ),
    ({**_GROUPED, **_WINDOW, **_CAP}, ("gemma2", "vaultgemma")),
    (
        {**_BART, "decoder_start_token_id": 2},
        ("blenderbot", "blenderbot-small", "marian", "mbart", "pegasus", "plbart"),
    ),
]
MORE: dict[str, dict[str, Any]] = {
    **{architecture: sizes for sizes, architectures in _SHARED for architecture in architectures},
    "albert": {"embedding_size": 16},
    "bart": _BART,
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    "modernbert": {"cls_token_id": 0, "sep_token_id": 2, "local_attention": 16},
    "modernbert-decoder": {"cls_token_id": 0, "sep_token_id": 2, "local_attention": 16},
    "mt5": _T5,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 24},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "t5": {**_T5, "num_decoder_layers": 1},
    "umt5": _T5,
    "youtu": {
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "num_key_value_heads": 4,
    },
}
IN_FULL = (
    "bart", "bert", "deberta-v2", "gemma2", "gemma3_text", "gpt2", "llama", "modernbert", "mpnet", "roberta", "t5",
)  # fmt: skip
"""The architectures that every test run exports; their code differs from each other."""
CAPPED = ("gemma2", "vaultgemma")
"""Architectures with capped scores, which onnxruntime's fused operator does not support."""
ALL = os.environ.get("EDGETUNE_FAMILIES") == "all"
EXPORTED = sorted(FAMILIES if ALL else IN_FULL)
"""`make families` exports all of them; each export takes seconds."""
INT8_ERROR = 0.3
"""Maximum error of int8 with random weights, which are harder to quantize than trained ones."""
MASK_ID = 4
TRANSFORMS = 2
"""Products of a BERT outside its layers: from a mask token to the vocabulary, and its pooler."""
LENGTHS = [(0, 0), (1, 0), (20, 0), (0, 1), (0, 20), (4, 3)]
"""Prompt and prefix lengths."""
SPANS = 5
"""Spans of each text: the whole text, its first and last token, one and several tokens in the middle."""


def language_model(architecture: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**SMALL, **MORE.get(architecture, {})})
    model = language_model_class(architecture).from_config(config, attn_implementation=attention.IMPLEMENTATION)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def tiny_backbone(architecture: str) -> Backbone:
    pooler = torch.nn.Linear(32, 32) if architecture in CLASSIFIES_THROUGH_POOLER else None
    model = language_model(architecture)
    return from_language_model(model, architecture, b"", mask_token=("[MASK]", MASK_ID), pooler=pooler)


def feed(backbone: Backbone, prompt: int, prefix: int, tasks: int, batch: int) -> dict[str, np.ndarray]:
    """Random inputs, with rows, prompts and prefixes of unequal length, and different spans in each row."""
    random = np.random.default_rng(prompt + 100 * prefix)
    # Parts that this test does not know have the length of the prefix.
    sizes = {**dict.fromkeys(contract.DYNAMIC_DIMS, prefix), **vars(backbone.sizes)}
    sizes |= {"batch": batch, "sequence": 11, "tasks": tasks, "labels": 3}
    sizes |= {"prompt": prompt, "prefix": prefix, "spans": SPANS, "ends": 2}
    arrays = {}
    for name in backbone.inputs:
        spec = contract.INPUTS[name]
        shape = tuple(sizes[dim] for dim in spec.dims)
        arrays[name] = (
            random.normal(0, 0.5, shape).astype(np.float32) if spec.dtype == "float32" else np.ones(shape, int)
        )
    arrays[contract.INPUT_IDS] = random.integers(3, backbone.config.vocab_size, (batch, 11))
    arrays[contract.INPUT_IDS][:, 1] = MASK_ID
    arrays[contract.TASK_INDEX] = np.arange(batch)[::-1] % tasks
    for row in range(batch):
        length = 11 - 2 * row
        arrays[contract.ATTENTION_MASK][row, length:] = 0
        if contract.SPANS in arrays:
            middle = int(random.integers(1, length - 1))
            every = [(0, length), (0, 1), (length - 1, length), (middle, middle + 1), (middle // 2, middle + 1)]
            arrays[contract.SPANS][row] = every[row % len(every) :] + every[: row % len(every)]
    if contract.TOKEN_TYPE_IDS in arrays:
        arrays[contract.TOKEN_TYPE_IDS] = random.integers(0, 2, (batch, 11))
    for row in range(tasks):
        arrays[contract.PROMPT_MASK][row, : min(prompt, row)] = 0
        if contract.POOLING in arrays:
            arrays[contract.POOLING][row] = contract.POOLINGS.index(backbone.poolings[row % len(backbone.poolings)])
        arrays[contract.PREFIX_MASK][row, max(0, prefix - row) :] = 0
        arrays[contract.POSITION_OFFSET][row] = backbone.position_offset(max(0, prompt + prefix - 2 * row))
    return arrays


def text_of(arrays: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """The inputs for one row's text alone, at its own length."""
    length = int(arrays[contract.ATTENTION_MASK][row].sum())
    text = {name: arrays[name][row : row + 1] for name in contract.TEXT_INPUTS if name in arrays}
    return {
        name: array[:, :length] if "sequence" in contract.INPUTS[name].dims else array for name, array in text.items()
    }


def one_span(arrays: dict[str, np.ndarray], begin: int, end: int) -> dict[str, np.ndarray]:
    """The same with one span for every row."""
    rows = len(arrays[contract.INPUT_IDS])
    return {**arrays, contract.SPANS: np.full((rows, 1, 2), [begin, end])}


def torch_outputs(backbone: Backbone, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        logits, features = backbone(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    return logits.numpy(), features.numpy()


def count_operators(model: onnx.ModelProto, operator: str) -> int:
    return sum(node.op_type == operator for node in model.graph.node)


def weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def count_products(model: onnx.ModelProto) -> int:
    """Number of products with weights; the products of pooling and head have only inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in weights for node in model.graph.node)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    return open_any(model.SerializeToString(), CPU, 1)


@pytest.mark.parametrize("architecture", EXPORTED)
def test_graph_equals_pytorch(architecture: str) -> None:
    """For every variant; other parts have the length of the prefix. Also int8 and mixed batches."""
    backbone = tiny_backbone(architecture)
    whole = passes.optimize(to_onnx(backbone, Weights()), Weights())
    for variant, lengths in (("full", LENGTHS), ("light", LENGTHS[-2:]), ("base", LENGTHS[-1:])):
        inputs = backbone.facts.inputs_of(variant)
        model = passes.without_parts(copy_of(whole), set(backbone.inputs).difference(inputs))
        fused = 0 if architecture in CAPPED else backbone.sizes.layers
        assert count_operators(model, "MultiHeadAttention") == fused
        assert count_operators(model, "Softmax") == backbone.sizes.layers - fused
        assert [value.name for value in model.graph.input] == inputs
        if variant == "base":
            compare_int8_with_pytorch(backbone, model)
        opened = session(with_default_bank(model, backbone))
        compare_with_pytorch(backbone, opened, inputs, lengths)
        if variant == "full":
            compare_mixed_with_alone(backbone, opened)


def compare_with_pytorch(
    backbone: Backbone, opened: ort.InferenceSession, taken: Collection[str], lengths: list[tuple[int, int]]
) -> None:
    for prompt, prefix in lengths:
        for tasks, batch in ((1, 1), (5, 5)):  # five for five poolings
            arrays = feed(backbone, prompt, prefix, tasks, batch)
            arrays = {name: array for name, array in arrays.items() if name in taken}
            got = opened.run([contract.LOGITS, contract.FEATURES], arrays)
            for mine, expected in zip(got, torch_outputs(backbone, arrays), strict=True):
                np.testing.assert_allclose(mine, expected, atol=1e-4, err_msg=f"{prompt=} {prefix=} {tasks=}")


def compare_mixed_with_alone(backbone: Backbone, opened: ort.InferenceSession) -> None:
    """A mixed batch gives the same answers as its rows alone, also with narrow windows and relative positions.

    This works because prompts are padded on the left.
    """
    arrays = feed(backbone, 6, 5, 4, 5)
    (together,) = opened.run([contract.LOGITS], arrays)
    for row in range(5):
        task = arrays[contract.TASK_INDEX][row : row + 1]
        single = {name: arrays[name][task] for name in contract.BANK_INPUTS if name in arrays}
        prompt, prefix = (int(single[name].sum()) for name in (contract.PROMPT_MASK, contract.PREFIX_MASK))
        for name in (contract.PROMPT_EMBEDDINGS, contract.PROMPT_MASK):
            single[name] = single[name][:, single[name].shape[1] - prompt :]
        for name in (contract.PREFIX_KEYS, contract.PREFIX_VALUES):
            single[name] = single[name][:, :, :, :prefix]
        single[contract.PREFIX_MASK] = single[contract.PREFIX_MASK][:, :prefix]
        text = {**text_of(arrays, row), contract.TASK_INDEX: np.zeros(1, int)}
        (alone,) = opened.run([contract.LOGITS], {**single, **text})
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


def compare_int8_with_pytorch(backbone: Backbone, model: onnx.ModelProto) -> None:
    """int8 loads, accepts a text after a prefix and stays close."""
    opened = session(with_default_bank(quantize.int8(model, Weights()), backbone))
    arrays = {name: array for name, array in feed(backbone, 0, 6, 1, 1).items() if name in inputs_of(model)}
    (got,) = opened.run([contract.FEATURES], arrays)
    assert 0 < relative_error(got, torch_outputs(backbone, arrays)[1]) < INT8_ERROR


def inputs_of(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in model.graph.input}


SITES = {
    "fused": {"projection", "output", "widen", "narrow"},
    "gated": {"query", "key", "value", "output", "gate", "widen", "narrow"},
    "distances": {"value", "output", "widen", "narrow"},  # query and key project distances, too
    "latent": {"output"},
    "plain": {"query", "key", "value", "output", "widen", "narrow"},
}
SHAPES = {
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neox", "modernbert", "persimmon", "phi3"), "fused"),
    **dict.fromkeys(
        (
            *(
                "apertus",
                "arcee",
                "biogpt",
                "glm",
                "glm4",
                "jais2",
                "modernbert-decoder",
                "nanochat",
                "nemotron",
                "opt",
            ),
            *("phi", "starcoder2"),
        ),
        "plain",
    ),
    **dict.fromkeys(("eurobert", "gte", "mt5", "nomic_bert", "ultrabert", "umt5"), "gated"),
    "deberta-v2": "distances",
    "youtu": "latent",
}
"""Exceptions: usually encoders are plain, and decoders gated."""
FEED_FORWARDS = {
    **{name: 4 for name, family in FAMILIES.items() if family.language_model == "text2text-generation"},
    "t5": 3,
    "youtu": 0,
}
"""Number of feed-forwards, for an encoder-decoder of both; others have two, or none that is found."""


@pytest.mark.parametrize("architecture", sorted(FAMILIES))
def test_the_layers_that_parts_enter_are_found(architecture: str) -> None:
    backbone = tiny_backbone(architecture)
    shape = SHAPES.get(architecture, "gated" if FAMILIES[architecture].causal else "plain")
    assert backbone.sites.keys() == SITES[shape]
    for name, site in backbone.sites.items():
        in_attention = name in contract.ATTENTION_SITES
        number = backbone.sizes.layers if in_attention else FEED_FORWARDS.get(architecture, 2)
        assert len(site.modules) == number
        assert not in_attention or len({id(one) for one in site.modules}) == (1 if architecture == "albert" else number)
    assert backbone.sizes.feed_forwards == FEED_FORWARDS.get(architecture, 2)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_the_base_costs_what_it_would_without_other_parts(architecture: str) -> None:
    """Node by node, except for a number that the exporter may compute twice."""
    backbone = tiny_backbone(architecture)
    lacking = set(backbone.inputs) & contract.PART_INPUTS
    base = passes.without_parts(passes.optimize(to_onnx(backbone, Weights()), Weights()), lacking)
    backbone.sites = {}
    never_had = passes.optimize(to_onnx(backbone, Weights()), Weights())
    assert never_had.graph.input == base.graph.input
    for operator in ("MatMul", "Gemm", "Relu", "Gather", "Split", "Reshape"):
        assert count_operators(base, operator) == count_operators(never_had, operator)
    assert len(base.graph.node) <= len(never_had.graph.node) + 1


def test_parts_that_lead_elsewhere_cannot_be_left_out() -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "down"], ["low"]),
        onnx.helper.make_node("MatMul", ["low", "up"], ["more"]),
        onnx.helper.make_node("Mul", ["x", "more"], ["y"]),
    ]
    model = graph_of(nodes, {}, {"x": [1, 4], "down": [4, "rank"], "up": ["rank", 4]})
    with pytest.raises(BackboneError, match=r"cannot do without \['down', 'up'\]: Mul takes what they make"):
        passes.without_parts(model, {"down", "up"})


def family_table() -> list[str]:
    """The table of docs/backbones.md, with everything that `test_graph_equals_pytorch` checks."""
    lines = ["| architecture | soft prompt | prefix | features are read |", "|---|---|---|---|"]
    read: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for architecture in sorted(FAMILIES):
        read[tiny_backbone(architecture).poolings].append(architecture)
    for poolings, members in read.items():
        prompt = "stored as a prefix" if FAMILIES[members[0]].causal else "yes"
        lines.append(f"| {', '.join(f'`{name}`' for name in members)} | {prompt} | yes | {', '.join(poolings)} |")
    return lines


def test_the_page_has_the_table_of_this_test() -> None:
    page = (Path(__file__).parents[2] / "docs/backbones.md").read_text(encoding="utf-8")
    table = "\n".join(family_table())
    assert table in page, f"docs/backbones.md should have\n{table}"


def test_every_pooling_equals_transformers_and_runs_bare() -> None:
    whole, pooler = language_model("bert"), torch.nn.Linear(32, 32)
    backbone = from_language_model(language_model("bert"), "bert", b"", ("[MASK]", MASK_ID), pooler=pooler)
    opened = session(with_default_bank(to_onnx(backbone, Weights()), backbone))
    arrays = feed(backbone, 0, 0, 1, 4)
    names = (contract.INPUT_IDS, contract.ATTENTION_MASK, contract.TOKEN_TYPE_IDS)
    text = {name: arrays[name] for name in names}
    hidden = whole.bert(**{name: torch.from_numpy(array) for name, array in text.items()}).last_hidden_state
    lengths = text[contract.ATTENTION_MASK].sum(axis=1)
    one = np.ones(4, int)
    read = {"cls": (one * 0, one), "mean": (one * 0, lengths), "last": (lengths - 1, lengths), "mask": (one, one + 1)}
    read["pooler"] = read["cls"]
    spans = {pooling: np.stack(ends, axis=-1)[:, np.newaxis] for pooling, ends in read.items()}
    expected = {
        "cls": hidden[:, 0],
        "mean": torch.stack([row[:length].mean(dim=0) for row, length in zip(hidden, lengths, strict=True)]),
        "last": torch.stack([row[length - 1] for row, length in zip(hidden, lengths, strict=True)]),
        "mask": whole.cls.predictions.transform(hidden[:, 1]),
        "pooler": pooler(hidden[:, 0]).tanh(),
    }
    assert set(expected) == set(backbone.poolings)
    for pooling, features in expected.items():
        chosen = {contract.POOLING: np.array([contract.POOLINGS.index(pooling)]), contract.SPANS: spans[pooling]}
        (got,) = opened.run([contract.FEATURES], {**text, contract.TASK_INDEX: np.zeros(4, int), **chosen})
        np.testing.assert_allclose(got[:, 0], features.detach().numpy(), atol=1e-4, err_msg=pooling)
    every = {contract.SPANS: np.concatenate([spans[pooling] for pooling in ("mean", "cls", "last")], axis=1)}
    (bare,) = opened.run([contract.FEATURES], {**text, contract.TASK_INDEX: np.zeros(4, int), **every})
    for place, pooling in enumerate(("mean", "cls", "last")):
        np.testing.assert_allclose(bare[:, place], expected[pooling].detach().numpy(), atol=1e-4)
    chosen = {contract.POOLING: np.array([contract.POOLINGS.index("pooler")]), **every}
    (behind,) = opened.run([contract.FEATURES], {**text, contract.TASK_INDEX: np.zeros(4, int), **chosen})
    through = pooler(expected["mean"]).tanh().detach().numpy()
    np.testing.assert_allclose(behind[:, 0], through, atol=1e-4)
    np.testing.assert_array_equal(behind[:, 2], bare[:, 2], "words beyond the first do not wait for the pooler")


def test_an_encoder_decoder_answers_as_transformers_does_at_the_first_step() -> None:
    """Only prompt embeddings before the encoder's text, like `inputs_embeds` in transformers."""
    for architecture in ("t5", "bart"):
        whole = language_model(architecture)
        backbone = from_language_model(language_model(architecture), architecture, b"")
        arrays = feed(backbone, 5, 0, 1, 3)
        # BART counts positions along the row; in edgetune the task defines where its text begins.
        arrays[contract.POSITION_OFFSET][:] = 5
        embeds = torch.cat(
            [
                torch.from_numpy(arrays[contract.PROMPT_EMBEDDINGS]).expand(3, -1, -1),
                whole.get_input_embeddings()(torch.from_numpy(arrays[contract.INPUT_IDS])),
            ],
            dim=1,
        )
        mask = torch.from_numpy(np.concatenate([np.ones((3, 5), int), arrays[contract.ATTENTION_MASK]], axis=1))
        start = torch.full((3, 1), whole.config.decoder_start_token_id)
        with torch.no_grad():
            words = whole(inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=start).logits[:, 0]
        weights, biases = backbone.vocabulary.rows([7, 9, 11], backbone.sizes.hidden)
        arrays[contract.HEAD_WEIGHT], arrays[contract.HEAD_BIAS] = weights[None].numpy(), biases[None].numpy()
        np.testing.assert_allclose(torch_outputs(backbone, arrays)[0][:, 0], words[:, [7, 9, 11]].numpy(), atol=1e-4)


@pytest.mark.parametrize("architecture", [name for name in FAMILIES if FAMILIES[name].language_model == "fill-mask"])
def test_features_at_a_mask_lead_to_the_words_that_the_language_model_says(architecture: str) -> None:
    whole = language_model(architecture)
    backbone = from_language_model(language_model(architecture), architecture, b"", mask_token=("[MASK]", MASK_ID))
    arrays = one_span(feed(backbone, 0, 0, 1, 3), 1, 2)
    arrays.pop(contract.TOKEN_TYPE_IDS, None)
    arrays[contract.POOLING][:] = contract.POOLINGS.index("mask")
    weights, biases = backbone.vocabulary.rows(range(3, 60), backbone.sizes.hidden)
    arrays[contract.HEAD_WEIGHT], arrays[contract.HEAD_BIAS] = weights[None].numpy(), biases[None].numpy()
    with torch.no_grad():
        words = whole(
            input_ids=torch.from_numpy(arrays[contract.INPUT_IDS]),
            attention_mask=torch.from_numpy(arrays[contract.ATTENTION_MASK]),
        ).logits
    np.testing.assert_allclose(torch_outputs(backbone, arrays)[0][:, 0], words[:, 1, 3:60].numpy(), atol=1e-4)


def test_a_head_whose_last_layer_is_not_the_vocabulary_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeBERTa's newer head multiplies with the embeddings after its output layer."""
    monkeypatch.setitem(MORE, "deberta-v2", {**MORE["deberta-v2"], "legacy": False})
    backbone = tiny_backbone("deberta-v2")
    assert backbone.vocabulary is None
    assert backbone.poolings == ("mean", "cls", "last")


def test_passes_change_no_answer_and_do_their_work() -> None:
    backbone = tiny_backbone("bert")
    plain = to_onnx(backbone, Weights())
    before = plain.SerializeToString()
    optimized = passes.optimize(plain, Weights())
    layers = backbone.sizes.layers
    assert count_products(onnx.ModelProto.FromString(before)) == 6 * layers + TRANSFORMS
    assert count_products(optimized) == 4 * layers + TRANSFORMS  # query, key and value are one
    reshapes = count_operators(onnx.ModelProto.FromString(before), "Reshape")
    assert count_operators(optimized, "Reshape") < reshapes - 3 * layers
    arrays = feed(backbone, 2, 3, 2, 3)
    outputs = [
        session(model).run([contract.LOGITS], arrays)[0] for model in (onnx.ModelProto.FromString(before), optimized)
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)


def test_reshapes_that_copy_sizes_from_their_input_are_left_alone() -> None:
    """A 0 in a reshape's shape copies a size from its input, so such a reshape cannot use an earlier input."""
    shapes = {"first": np.array([4, 6]), "second": np.array([0, 2, 3])}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Reshape", ["x", "first"], ["y"]),
            onnx.helper.make_node("Reshape", ["y", "second"], ["z"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 12])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [4, 2, 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in shapes.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    x = np.arange(24, dtype=np.float32).reshape(2, 12)
    (z,) = session(passes.collapse_reshapes(model)).run(None, {"x": x})
    np.testing.assert_array_equal(z, x.reshape(4, 2, 3))


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], inputs: dict[str, list[int | str]]
) -> onnx.ModelProto:
    """A graph with float inputs; the output of its last node is its output."""
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_idle_reshapes_are_dropped_and_others_stay() -> None:
    backbone = tiny_backbone("bert")
    plain = passes.collapse_reshapes(to_onnx(backbone, Weights()))
    dropped = passes.drop_idle_reshapes(copy_of(plain))
    assert count_operators(dropped, "Reshape") <= count_operators(plain, "Reshape") - 6 * backbone.sizes.layers
    assert count_operators(dropped, "Reshape") >= 2  # the bank's keys and values
    arrays = feed(backbone, 2, 3, 2, 3)
    expected, got = (session(model).run([contract.LOGITS], arrays)[0] for model in (plain, dropped))
    np.testing.assert_array_equal(got, expected)


def test_rows_of_the_bank_are_gathered() -> None:
    backbone = tiny_backbone("bert")
    plain = to_onnx(backbone, Weights())
    gathered = passes.gather_rows(copy_of(plain))
    assert count_operators(plain, "GatherND") >= 9
    assert count_operators(gathered, "GatherND") == 0
    arrays = feed(backbone, 2, 3, 4, 5)
    expected, got = (session(model).run([contract.LOGITS], arrays)[0] for model in (plain, gathered))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("architecture", ["bert", "gemma3_text", *(["llama", "t5"] if ALL else [])])
def test_standard_attention_answers_as_the_fused_operator_does(architecture: str) -> None:
    backbone = tiny_backbone(architecture)
    plain = with_default_bank(passes.optimize(to_onnx(backbone, Weights()), Weights()), backbone)
    standard = passes.standard_attention(copy_of(plain))
    attentions = [node for node in standard.graph.node if node.op_type == "Attention"]
    heads = [{each.name: each.i for each in node.attribute}["kv_num_heads"] for node in attentions]
    assert heads == [backbone.sizes.kv_heads] * backbone.sizes.layers
    opened = session(plain), session(standard)
    for prompt, prefix in LENGTHS:
        arrays = feed(backbone, prompt, prefix, 4, 5)
        expected, got = (each.run([contract.LOGITS], arrays)[0] for each in opened)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_channels_are_smoothed_where_some_are_far_larger_and_the_answer_stays() -> None:
    random = np.random.default_rng(0)
    for gain, smoothed in (([1, 1.2, 0.9, 8], True), ([1, 1.2, 0.9, 1.1], False)):
        constants = {
            "gain": np.array(gain, np.float32),
            "shift": np.array([0, 0.1, 0, -1], np.float32),
            "weight": random.normal(size=(4, 6)).astype(np.float32),
        }
        nodes = [
            onnx.helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["normal"]),
            onnx.helper.make_node("MatMul", ["normal", "weight"], ["product"], name="product"),
            onnx.helper.make_node("ReduceSum", ["normal"], ["sum"]),
            onnx.helper.make_node("Add", ["product", "sum"], ["y"]),
        ]
        plain = graph_of(nodes, constants, {"x": ["batch", 4]})
        changed = quantize.smooth_channels(copy_of(plain), Weights())
        assert count_operators(changed, "Mul") == smoothed
        x = random.normal(size=(3, 4)).astype(np.float32)
        expected, got = (session(model).run(None, {"x": x})[0] for model in (plain, changed))
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["Gelu", "Relu", "Identity"])
def test_a_scale_for_each_token_keeps_small_tokens_beside_large_ones(activation: str) -> None:
    random = np.random.default_rng(0)
    constants = {"weight": random.normal(size=(48, 16)).astype(np.float32)}
    nodes = [
        onnx.helper.make_node(activation, ["x"], ["active"]),
        onnx.helper.make_node("MatMul", ["active", "weight"], ["y"], name="product"),
    ]
    plain = graph_of(nodes, constants, {"x": ["batch", "sequence", 48]})
    changed = quantize.quantize_by_token(copy_of(plain), ["product"], Weights())
    assert count_operators(changed, "MatMul") == 0
    size = np.array([[[1], [300], [1], [0]], [[2], [1], [1], [1]]], np.float32)
    x = random.normal(size=(2, 4, 48)).astype(np.float32) * size
    expected, got = (session(model).run(None, {"x": x})[0] for model in (plain, changed))
    for row in range(2):
        for token in range(4):
            if size[row, token] == 0:
                np.testing.assert_allclose(got[row, token], 0, atol=1e-6)
            else:
                assert relative_error(got[row, token], expected[row, token]) < 0.02
            (alone,) = session(changed).run(None, {"x": x[row : row + 1, token : token + 1]})
            np.testing.assert_allclose(alone[0, 0], got[row, token], rtol=1e-5, atol=1e-5)


def test_int8_quantizes_what_it_says_and_stays_close() -> None:
    backbone = tiny_backbone("bert")
    fp32 = passes.optimize(to_onnx(backbone, Weights()), Weights())
    int8 = quantize.int8(fp32, Weights())
    layers = backbone.sizes.layers
    # Query with key and value, output, widening; and narrowing, with a scale for each token.
    assert count_operators(int8, "MatMulInteger") == 3 * layers + TRANSFORMS
    assert count_operators(int8, "MatMulIntegerToFloat") == layers
    assert count_products(int8) == 0
    assert count_operators(int8, "Attention") == layers
    assert count_products(fp32) == 4 * layers + TRANSFORMS  # the given model is unchanged
    arrays = feed(backbone, 0, 6, 2, 1)
    exact, close = (session(model).run([contract.FEATURES], arrays)[0] for model in (fp32, int8))
    assert 0 < relative_error(close, exact) < 0.1


def test_int8_quantizes_gpt2_too() -> None:
    """Its layers are exported as Gemm."""
    backbone = tiny_backbone("gpt2")
    int8 = quantize.int8(passes.optimize(to_onnx(backbone, Weights()), Weights()), Weights())
    layers = backbone.sizes.layers
    assert count_operators(int8, "MatMulInteger") == 3 * layers
    assert count_operators(int8, "MatMulIntegerToFloat") == layers
    assert count_products(int8) == 0


@pytest.mark.parametrize(("architecture", "products"), [("albert", 4), ("bert", 4), ("gpt2", 4), ("llama", 7)])
def test_q4_quantizes_every_layers_products_is_small_and_close(architecture: str, products: int) -> None:
    """Products in a layer: query, key and value (one product if they have biases), output, and the feed-forward's."""
    backbone = tiny_backbone(architecture)
    fp32 = passes.optimize(to_onnx(backbone, Weights()), Weights())
    assert count_products(fp32) >= products * backbone.sizes.layers
    q4 = quantize.q4(onnx.ModelProto.FromString(fp32.SerializeToString()), Weights())
    once = count_products(fp32) - products * backbone.sizes.layers  # ALBERT widens its embeddings
    assert count_operators(q4, "MatMulNBits") == products * backbone.sizes.layers + once
    assert count_products(q4) == 0
    assert weight_bytes(q4) < 0.65 * weight_bytes(fp32)  # tiny embeddings stay in fp32
    arrays = feed(backbone, 0, 6, 2, 1)
    exact, close = (session(model).run([contract.FEATURES], arrays)[0] for model in (fp32, q4))
    assert 0 < np.linalg.norm(close - exact) / np.linalg.norm(exact) < 0.25


def test_a_row_of_q4_answers_in_a_batch_as_alone() -> None:
    backbone = tiny_backbone("bert")
    opened = session(quantize.q4(passes.optimize(to_onnx(backbone, Weights()), Weights()), Weights()))
    arrays = feed(backbone, 0, 6, 4, 5)
    (together,) = opened.run([contract.FEATURES], arrays)
    for row in range(5):
        (alone,) = opened.run([contract.FEATURES], {**arrays, **text_of(arrays, row)})
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


def test_quantizing_leaves_the_process_its_logging() -> None:
    """The 4-bit quantizer's module configures the root logger on import."""
    program = (
        "import logging\n"
        "import numpy as np\n"
        "import onnx\n"
        "from edgetune_export import quantize\n"
        "from edgetune_export.weights import Weights\n"
        "product = onnx.helper.make_node('MatMul', ['x', 'w'], ['y'], name='product')\n"
        "weight = onnx.numpy_helper.from_array(np.ones((32, 2), np.float32), 'w')\n"
        "graph = onnx.GraphProto(node=[product], initializer=[weight], output=[onnx.ValueInfoProto(name='y')])\n"
        "assert len(quantize.q4(onnx.ModelProto(graph=graph), Weights()).graph.initializer) == 3\n"
        "assert not logging.root.handlers and logging.root.level == logging.WARNING\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_quantized_embeddings_are_rows_of_int8() -> None:
    random = np.random.default_rng(0)
    table = random.normal(0, 1, (5000, 8)).astype(np.float32) * np.linspace(0.1, 9, 5000, dtype=np.float32)[:, None]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "g",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    size = model.ByteSize()
    quantized = quantize.quantize_embeddings(model, Weights())
    ids = np.array([0, 17, 4999, 17])
    (rows,) = session(quantized).run(None, {"ids": ids})
    bound = np.abs(table[ids]).max(axis=1, keepdims=True) / 254 + 1e-6
    assert (np.abs(rows - table[ids]) <= bound).all()
    assert quantized.ByteSize() < 0.4 * size
