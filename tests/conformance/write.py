"""Write the data of this folder with the current code: `python tests/conformance/write.py`. See README.md.

Models are tiny and seeded, so the same versions of the libraries write the same bytes. When the format is extended, add
a task or a text, and write everything again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, BertForPreTraining, PreTrainedTokenizerFast

from edgetune.training import prompts
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.loading import language_model_class
from edgetune_runtime import Engine, Task, contract, files, task_file
from edgetune_runtime.arrays import Array
from edgetune_runtime.candidates import Candidates, numbered
from edgetune_runtime.kinds import KINDS, Read, Result
from edgetune_runtime.text import Text, Tokens

HERE = Path(__file__).parent
BUNDLES = HERE / "bundle"
REFUSED = HERE / "refused"

Tensors = dict[str, Array]

EXACT = 1e-4
"""Tolerance for fp32 logits."""

ROUNDED = 0.05
"""Tolerance for int8 logits. If an activation is between two rounding steps, the last bits of earlier results
decide."""

# ---- tokenizers with fixed vocabularies: trained ones depend on the trainer's version ----

CORPUS = """
the lamp is broken and screen stays black thank you this works very well where my parcel it was charged twice
please send money back to account today good great someone wrote because news
"""
WORDS = CORPUS.split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SIGNS = ".,:;?!'\"„“–()[]{}_0123456789"


def word_pieces() -> tuple[Tokenizer, dict[str, str]]:
    """BERT's kind, with a start, an end and a mask token, and segments of pairs."""
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    pieces = [*names.values(), *WORDS, *LETTERS, *SIGNS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece(_numbered(pieces), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer, names


def byte_pairs() -> tuple[Tokenizer, dict[str, str]]:
    """GPT-2's kind, without special tokens around a text, so that an empty one has no token at all."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    pieces = [*names.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for word in WORDS:
        made = "Ġ"
        for letter in word[:4]:
            merges += [(made, letter)] * (made + letter not in pieces)
            pieces += [made + letter] * (made + letter not in pieces)
            made += letter
    tokenizer = Tokenizer(models.BPE(_numbered(pieces), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, names


def unigrams() -> tuple[Tokenizer, dict[str, str]]:
    """T5's kind, with an end token behind each text."""
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    pieces = dict.fromkeys((*names.values(), "▁", *(f"▁{word}" for word in WORDS), *LETTERS, *SIGNS))
    scores = [(piece, 0.0 if piece in names.values() else -10.0 / len(piece)) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer, names


def _numbered(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


# ---- models ----


def save_model(folder: Path, architecture: str, tokenizer: Tokenizer, names: dict[str, str], **sizes: Any) -> None:
    """Save a tiny seeded model as transformers does."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **sizes, vocab_size=tokenizer.get_vocab_size())
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 1
    # With the pooler and the head of the masked language model, as BERT was published.
    language_model = language_model_class(architecture).from_config
    model = BertForPreTraining(config) if architecture == "bert" else language_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1 / parameter.shape[-1] ** 0.5)
            else:  # norms stay near 1, biases near 0
                parameter += torch.randn_like(parameter) / 10
    model.save_pretrained(folder)


def load(folder: Path) -> Backbone:
    """The backbone; an encoder with the layers of classifiers, of which a real checkpoint has one at most."""
    backbone = load_backbone(str(folder))
    if backbone.architecture == "bert":
        torch.manual_seed(1)
        hidden = backbone.sizes.hidden
        for pooling in contract.OWN_CLASSIFIER:
            backbone.transforms[pooling] = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh()).requires_grad_(False)
            backbone.poolings += (pooling,)
    return backbone


# ---- tasks ----

THREE = ("bad", "good", "neutral")
UNICODE = ("größe", "赤い 😀", "a,b;c\"d'\\", " spaced ", "عربي")


def made(
    backbone: Backbone,
    name: str,
    pooling: str,
    labels: Sequence[str] = THREE,
    prompt: int = 0,
    prefix: int = 0,
    ranks: Mapping[str, int] = MappingProxyType({}),
    units: int = 0,
    **more: Any,
) -> Task:
    """A task of random numbers; `ranks` by site."""
    random = np.random.default_rng([*name.encode()])
    rows = KINDS[more.get("kind_name", "single-label")].head_rows(len(labels))
    lengths = {"prompt": prompt, "prefix": prefix, "labels": rows, "units": units}
    lengths |= {contract.rank(site): length for site, length in ranks.items()}
    names = [contract.HEAD_WEIGHT, contract.HEAD_BIAS]
    names += [name for site in ranks for name in (contract.down(site), contract.up(site))]
    names += contract.UNIT_INPUTS if units else ()
    names += [contract.PROMPT_EMBEDDINGS] if prompt else []
    names += [contract.PREFIX_KEYS, contract.PREFIX_VALUES] if prefix else []
    return Task(
        **{
            "name": name,
            "labels": tuple(labels),
            "backbone_sha256": backbone.facts.sha256_for(pooling),
            "tensors": {
                tensor: random.normal(0, 0.4, backbone.sizes.of(contract.TASK_TENSORS[tensor], **lengths)).astype("f4")
                for tensor in names
            },
            "method": "random",
            "base_model": backbone.name,
            "pooling": pooling,
            "position_offset": backbone.position_offset(prompt + prefix),
            **more,
        }
    )


MULTI: dict[str, Any] = {"kind_name": "multi-label"}
SCORE: dict[str, Any] = {"kind_name": "score", "labels": ("score",)}
PAIRS: dict[str, Any] = {"pairs": True}
ENTITIES: dict[str, Any] = {"kind_name": "tokens", "graph_inputs": (contract.SPANS,)}


def encoder_tasks(backbone: Backbone) -> Iterator[Task]:
    yield made(backbone, "head-cls", "cls", ("no", "yes"), temperature=0.5)
    yield made(backbone, "prompt-mean", "mean", prompt=3, max_length=8)
    yield made(backbone, "prefix-last", "last", prefix=4, template="Someone wrote: {text}, today.", max_length=16)
    yield made(backbone, "both-pooler", "pooler", prompt=2, prefix=3, temperature=1.75)
    yield made(backbone, "own-classifier", "classifier", prompt=2)
    yield made(backbone, "own-classifier-mean", "classifier_mean", prefix=2, max_length=12)
    yield made(backbone, "words-mask", "mask", template="{text} it was {mask}.", max_length=14)
    yield made(backbone, "mask-cut-off", "mask", template="{text} it was {mask}.", max_length=4)
    yield made(backbone, "behind-prefix", "mean", prefix=2, position_offset=2, metrics={"dev_accuracy": 0.875})
    yield made(backbone, "unicode", "mean", UNICODE, template="„{text}“ – größe 😀 ", max_length=24)
    yield made(backbone, "tags", "mean", prefix=2, thresholds=(0.3, 0.5, 0.75), **MULTI)
    yield made(backbone, "tags-by-half", "cls", ("one",), temperature=2.0, **MULTI)
    yield made(backbone, "stars", "last", prompt=2, **SCORE)
    joined = {**PAIRS, "graph_inputs": (contract.TOKEN_TYPE_IDS,)}
    yield made(backbone, "pair", "cls", max_length=14, **joined)
    yield made(backbone, "pair-pooler", "pooler", prompt=2, prefix=1, **MULTI, **joined)
    yield made(backbone, "pair-slots", "mean", template="{text} because {text_pair}!", max_length=14, **PAIRS)
    turned = "{text_pair}? {mask}, {text}"
    yield made(backbone, "pair-mask", "mask", template=turned, max_length=15, **MULTI, **PAIRS)
    yield made(backbone, "pair-stars", "mean", prefix=2, **SCORE, **joined)
    yield made(backbone, "low-rank", "mean", ranks={"query": 2, "value": 3})
    yield made(backbone, "units", "cls", prompt=2, units=3, **MULTI)
    every = dict.fromkeys(("query", "key", "value", "output", "widen", "narrow"), 1)
    yield made(backbone, "pair-all-parts", "mean", prefix=2, ranks=every, units=2, **joined)
    yield made(backbone, "names", "mean", ("place", "who"), temperature=1.5, max_length=20, **ENTITIES)
    yield made(backbone, "names-first", "cls", ("who",), prompt=2, template="news: {text}!", max_length=18, **ENTITIES)
    yield made(backbone, "names-windows", "mean", prefix=2, long_texts="windows", stride=4, max_length=14, **ENTITIES)
    both = {**PAIRS, **ENTITIES, "graph_inputs": (contract.TOKEN_TYPE_IDS, contract.SPANS)}
    yield made(backbone, "names-pair", "last", max_length=20, **both)
    asked = {**both, "kind_name": "spans", "labels": ("answer",), "long_texts": "windows"}
    yield made(backbone, "questions", "mean", temperature=1.5, max_length=20, stride=5, **asked)
    yield made(backbone, "questions-last", "last", prefix=2, max_length=18, stride=3, **asked)
    yield made(backbone, "questions-ends", "ends", max_length=22, stride=4, **asked)
    yield made(backbone, "with-a-note", "mean", ("no", "yes"), unknown={"note": 'für später: \x7f"\\/\u2028 😀'})


def decoder_tasks(backbone: Backbone) -> Iterator[Task]:
    yield made(backbone, "head-last", "last")
    yield made(backbone, "prompt-last", "last", prompt=3, temperature=1.5)
    yield made(backbone, "prefix-mean", "mean", ("no", "yes"), prefix=2, template="Q: {text} A:", max_length=12)
    yield made(backbone, "both-cls", "cls", prompt=2, prefix=3)
    yield with_source(backbone, made(backbone, "prompt-as-prefix", "last", prompt=4))
    yield made(backbone, "tags", "last", prefix=2, **MULTI)
    yield made(backbone, "pair-slots", "last", template="{text}\n{text_pair}\nSo:", max_length=20, **SCORE, **PAIRS)
    yield made(backbone, "names", "last", ("place", "who"), template="Q: {text}", **ENTITIES)
    yield made(backbone, "gate", "last", ranks={"value": 2, "gate": 2, "widen": 1})


def fused_tasks(backbone: Backbone) -> Iterator[Task]:
    yield made(backbone, "head", "last", ("no", "yes"))
    yield made(backbone, "low-rank", "last", prefix=2, ranks={"projection": 2}, units=2)
    yield made(backbone, "narrow", "mean", ranks={"projection": 1, "narrow": 2})


def encoder_decoder_tasks(backbone: Backbone) -> Iterator[Task]:
    yield made(backbone, "head", "decoder", ("no", "yes"))
    yield made(backbone, "prompt", "decoder", prompt=3, max_length=10, template="news: {text} it was")
    yield made(backbone, "prefix", "decoder", prefix=4, temperature=0.8)
    yield made(backbone, "both", "decoder", prompt=2, prefix=2, thresholds=(0.25, 0.5, 0.6), **MULTI)
    yield made(backbone, "pair", "decoder", prefix=1, max_length=13, **SCORE, **PAIRS)
    yield made(backbone, "low-rank", "decoder", prefix=2, ranks={"query": 2, "value": 2}, units=2)


def with_source(backbone: Backbone, task: Task) -> Task:
    """A task whose soft prompt is stored as its prefix, together with the prompt."""
    tensors = {name: torch.from_numpy(tensor) for name, tensor in task.tensors.items()}
    return dataclasses.replace(task, tensors=prompts.stored(backbone, tensors, task.max_length))


@dataclass(frozen=True)
class Model:
    """A bundle to write."""

    architecture: str
    tokenizer: Callable[[], tuple[Tokenizer, dict[str, str]]]
    tasks: Callable[[Backbone], Iterator[Task]]
    sizes: Mapping[str, Any]
    precisions: tuple[str, ...] = ("fp32",)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
MODELS = {
    "encoder": Model(
        "bert", word_pieces, encoder_tasks, SMALL | {"max_position_embeddings": 40}, precisions=("fp32", "int8")
    ),
    # Keys and values of two heads for four.
    "decoder": Model(
        "llama", byte_pairs, decoder_tasks, SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 48}
    ),
    # Query, key and value of one layer.
    "fused-decoder": Model(
        "gpt2",
        byte_pairs,
        fused_tasks,
        {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 32, "n_positions": 48},
    ),
    "encoder-decoder": Model(
        "t5",
        unigrams,
        encoder_decoder_tasks,
        {"d_model": 16, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 1, "d_kv": 4, "d_ff": 32}
        | {"decoder_start_token_id": 0},
    ),
}

TEXTS = (
    "",
    "good",
    "where is my parcel?",
    "it was charged twice, please send the money back to my account today",
    "  Thank you,\n\tthis works VERY well!  ",
    "Größe 42 😀 赤い: e\u0301 the lamp works 👍🏽",
    "say {text}, {mask} or {text_pair}",
    "the [MASK] is [SEP] broken </s>",
    "😀" * 13,
    "the lamp is broken and the screen stays black, " * 12,
)
"""Empty, short, long; white space, other scripts, slots, special tokens; characters of several tokens; too long."""

PAIRS_OF_TEXTS = (*zip(TEXTS, (*TEXTS[3:], *TEXTS[:3]), strict=True), (TEXTS[3], TEXTS[3]))
"""Both are too long, or one of them, or none; the last two are equally long."""

# ---- cases ----


def cases(bundle: str) -> Iterator[dict[str, Any]]:
    """The answers of a bundle, by precision, task and text."""
    for precision in MODELS[bundle].precisions:
        with Engine(BUNDLES / bundle, precision=precision, threads=1, prepare=False) as engine:
            for name in engine.task_names:
                task = engine.task(name)
                given: list[Text] = list(PAIRS_OF_TEXTS) if task.pairs else list(TEXTS)
                rows = engine.encode(given, [task] * len(given))
                logits = engine.run([(row, task) for row in rows])
                results = engine.classify(given, name)
                for text, row, values, result in zip(given, rows, logits, results, strict=True):
                    first, second = (text, None) if isinstance(text, str) else text
                    tolerance = EXACT if precision == "fp32" else ROUNDED
                    yield {
                        "bundle": bundle,
                        "precision": precision,
                        "task": name,
                        "text": first,
                        **({} if second is None else {"text_pair": second}),
                        "ids": row.ids,
                        "type_ids": row.type_ids,
                        "spans": row.spans,
                        **({"words": row.places} if row.by_piece else {}),
                        **({"more": [_window(window) for window in row.more]} if row.more else {}),
                        "truncated": row.truncated,
                        "logits": values.astype(float).tolist(),
                        "answer": result.fields(),
                        "tolerance": tolerance,
                        "clear": is_clear(values, task, row.read, result, tolerance),
                    }


def _window(tokens: Tokens) -> dict[str, Any]:
    return {"ids": tokens.ids, "type_ids": tokens.type_ids, "spans": tokens.spans, "words": tokens.places}


def is_clear(logits: Array, task: Task, read: Read, result: Result, tolerance: float) -> bool:
    """Whether all logits that differ by no more than the tolerance give the same labels."""
    if task.kind.reading is not None and task.kind.reading.or_none:
        ordered = np.sort(Candidates.of(logits, numbered(read.places)).logits)
        return bool(len(ordered) < 2 or ordered[-1] - ordered[-2] > 4 * tolerance)
    if task.kind.reading is not None:
        return _lead(logits.astype(np.float64)) > 2 * tolerance * len(logits)
    corners = itertools.product((-tolerance, tolerance), repeat=len(logits))
    answers = (task.kind.answer((logits + np.array(corner, np.float32))[None], task) for corner in corners)
    return all(_labels(answer) == _labels(result) for answer in answers)


def _lead(logits: Array) -> float:
    """The difference between the sums of the best and the second-best sequence of tags. Shape: [words, rows]."""
    if not len(logits):
        return np.inf
    rows = np.arange(logits.shape[1])
    inside = (rows % 2 == 0) & (rows > 0)
    after = np.where(~inside | (rows == rows[:, None]) | (rows == rows[:, None] + 1), 0.0, -np.inf)  # [before, row]
    ahead, behind = [np.where(inside, -np.inf, 0.0)], [np.zeros(len(rows))]
    for own in logits[:-1]:
        ahead.append(((ahead[-1] + own)[:, None] + after).max(axis=0))
    for own in logits[:0:-1]:
        behind.append((after + behind[-1] + own).max(axis=1))
    through = np.sort(np.array(ahead)[: len(logits)] + logits + np.array(behind[: len(logits)])[::-1], axis=1)
    return float((through[:, -1] - through[:, -2]).min(initial=np.inf))


def _labels(result: Result) -> dict[str, Any]:
    return {name: value for name, value in result.fields().items() if not isinstance(value, float | dict)}


# ---- invalid files ----


@dataclass(frozen=True)
class Change:
    """A change that makes a valid task invalid.

    Attributes:
        why: the reason why it is invalid.
        metadata: fields to set; the digest is recomputed.
        tensors: computes its tensors from the valid ones.
        data: changes the bytes of the file.
        task: the task and bundle to change, and the bundle that must reject it.
    """

    why: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    tensors: Callable[[Tensors], Tensors] = dict
    data: Callable[[bytes], bytes] = bytes
    task: tuple[str, str, str] = ("encoder", "head-cls", "encoder")


def labels(*names: str) -> str:
    return json.dumps(names)


def new(**fields: str) -> dict[str, str]:
    return {"format_version": "2", **fields}


def part(name: str, change: Callable[[Array], Array]) -> Callable[[Tensors], Tensors]:
    """One tensor changed."""
    return lambda tensors: tensors | {name: change(tensors[name])}


def key_twice(data: bytes) -> bytes:
    """The same file with `temperature` twice in its header."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"temperature":', b'"temperature":"9.0","temperature":', 1)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


TASKS = {
    "requires-kind": Change("requires what nobody knows", new(kind="ranking", requires='["kind:ranking"]')),
    "requires-part": Change("requires what nobody knows", new(requires='["pairs", "part:adapter"]')),
    "requires-no-list": Change("requires is no list of strings", new(requires='{"pairs": true}')),
    "unknown-kind": Change("its kind is unknown, though requires does not name it", new(kind="ranking")),
    "version-3": Change("its format version is unknown", {"format_version": "3"}),
    "version-1-kind": Change("version 1 has no field kind", {"kind": "multi-label"}),
    "version-1-requires": Change("version 1 has no field requires", {"requires": '["pairs"]'}),
    "version-1-note": Change("version 1 has no fields but its own", {"note": "for later"}),
    "damaged-tensor": Change("a byte of its last tensor differs", data=lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "damaged-field": Change(
        "a field differs from what was hashed",
        data=lambda data: data.replace(b'"temperature":"0.5"', b'"temperature":"0.9"'),
    ),
    "cut-short": Change("its last tensor is cut short", data=lambda data: data[:-4]),
    "field-twice": Change("its header has a key twice", data=key_twice),
    "another-backbone": Change("it was made for another backbone", task=("decoder", "head-last", "encoder")),
    "input-missing": Change(
        "it requires an input that the bundle's graph does not have",
        new(requires='["input:token_type_ids"]'),
        task=("decoder", "head-last", "decoder"),
    ),
    "pooling-missing": Change("its backbone does not have this pooling", {"pooling": "decoder"}),
    "pooling-unknown": Change("this pooling is unknown", {"pooling": "max"}),
    "template-without-text": Change("its template has no slot for the text", {"template": "it was"}),
    "template-text-twice": Change("its template has the text twice", {"template": "{text} {text}"}),
    "template-mask": Change("its template has a mask, which its pooling does not read", {"template": "{text} {mask}"}),
    "template-no-pair": Change(
        "it takes pairs, and its template has something but the first text, and no slot for the second",
        new(pairs="true", requires='["pairs"]', template="{text} it was"),
    ),
    "template-control": Change("its template has a control character", {"template": "{text}\x1b[2J"}),
    "labels-too-many": Change("it has more labels than the head has rows", {"labels": labels("a", "b", "c")}),
    "labels-twice": Change("it has a label twice", {"labels": labels("a", "a")}),
    "labels-one": Change(
        "one label, where single-label tasks have at least two",
        {"labels": labels("a")},
        lambda tensors: {name: tensor[:1] for name, tensor in tensors.items()},
    ),
    "score-of-two": Change("two labels, where a score has one", new(kind="score", requires='["kind:score"]')),
    "thresholds-one": Change(
        "one threshold for two labels", new(kind="multi-label", requires='["kind:multi-label"]', thresholds="[0.5]")
    ),
    "thresholds-range": Change(
        "a threshold of 1, where it has to be below",
        new(kind="multi-label", requires='["kind:multi-label"]', thresholds="[0.5, 1.0]"),
    ),
    "thresholds-single-label": Change("thresholds, which single-label tasks have not", new(thresholds="[0.5, 0.5]")),
    "pieces-pooling": Change(
        "it answers word by word, and its pooling reads the text as a whole",
        {"pooling": "pooler"},
        task=("encoder", "names", "encoder"),
    ),
    "pieces-rows": Change(
        "one label, and a head with rows for two", {"labels": labels("place")}, task=("encoder", "names", "encoder")
    ),
    "questions-single": Change(
        "it answers questions, and reads single texts", {"pairs": "false"}, task=("encoder", "questions", "encoder")
    ),
    "temperature-zero": Change("its temperature is not above 0", {"temperature": "0.0"}),
    "temperature-nan": Change("its temperature is not finite", {"temperature": "nan"}),
    "length-zero": Change("its longest text has no token", {"max_length": "0"}),
    "offset-negative": Change("its text begins at a negative position", {"position_offset": "-1"}),
    "offset-too-large": Change("it leaves no position for text", {"position_offset": "40"}),
    "name-path": Change("its name is a path", {"task": "../head-cls"}),
    "tensor-float16": Change(
        "a tensor is not float32", tensors=part("head_bias", lambda bias: bias.astype(np.float16))
    ),
    "tensor-nan": Change("a tensor has numbers that are not finite", tensors=part("head_bias", lambda bias: bias / 0)),
    "tensor-large": Change("a tensor has numbers past a million", tensors=part("head_bias", lambda bias: bias * 1e9)),
    "tensor-shape": Change(
        "its head does not have the backbone's width", tensors=part("head_weight", lambda weight: weight[:, :-1])
    ),
    "tensor-missing": Change("it has no head_bias", tensors=lambda tensors: {"head_weight": tensors["head_weight"]}),
    "tensor-unknown": Change(
        "it has a tensor that is unknown", tensors=lambda tensors: tensors | {"lora": tensors["head_bias"]}
    ),
    "tensor-half-of-low-rank": Change(
        "it reads without writing",
        tensors=lambda tensors: tensors | {"query_down": np.zeros((2, 16, 1), np.float32)},
    ),
    "tensor-half": Change(
        "it has keys without values",
        tensors=lambda tensors: tensors | {"prefix_keys": np.zeros((2, 4, 1, 4), np.float32)},
    ),
}
"""File → how it differs from a valid one."""


def refused_task(change: Change) -> bytes:
    bundle, name, _ = change.task
    data = (BUNDLES / bundle / files.task_file(name)).read_bytes()
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    task = Task.from_bytes(data, name)
    with np.errstate(all="ignore"):
        tensors = change.tensors(dict(task.tensors))
    if change.metadata or change.tensors is not dict:
        del metadata["sha256"]
        metadata |= change.metadata
        data = written(metadata | {"sha256": task_file.digest(metadata, tensors)}, tensors)
    return change.data(data)


def written(metadata: Mapping[str, str], tensors: Tensors) -> bytes:
    """A safetensors file, as specified in docs/format.md."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body = b""
    for name, tensor in sorted(tensors.items()):
        dtype = {"float32": "F32", "float16": "F16"}[tensor.dtype.name]
        raw = np.ascontiguousarray(tensor).tobytes()
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


Record = dict[str, Any]


def put(value: object, *keys: str) -> Callable[[Record], None]:
    """Sets a field of a record."""

    def change(record: Record) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


MANIFESTS: Mapping[str, tuple[str, Callable[[Record], object]]] = {
    "requires": ("requires what nobody knows", put(["graph:blocks"], "requires")),
    "version-3": ("its format version is unknown", put(3, "format_version")),
    "version-text": ("its format version is no integer", put("2", "format_version")),
    "input-unknown": (
        "its graph takes an input that nobody knows",
        put({"dtype": "int64", "dims": ["batch"]}, "inputs", "row_hints"),
    ),
    "input-missing": (
        "its graph lacks an input that every graph has",
        lambda record: record["inputs"].pop("task_index"),
    ),
    "input-dims": ("an input has other dimensions", put(["batch", "ends", "spans"], "inputs", "spans", "dims")),
    "input-type": ("an input has another type", put("int32", "inputs", "input_ids", "dtype")),
    "pooling-unknown": ("a pooling is unknown", put(["mean", "max"], "poolings")),
    "pooling-none": ("it has no pooling", put([], "poolings")),
    "mask-without-token": ("it has the pooling mask and no mask token", put("", "mask_token")),
    "size-more": ("it has a size that is unknown", put(16, "sizes", "depth")),
    "size-zero": ("a size is 0", put(0, "sizes", "hidden")),
    "graphs-none": ("it has no graph", put({}, "graphs")),
    "variant-elsewhere": (
        "a variant has another path than its graph's",
        put("onnx/model_q4_light.onnx", "graphs", "fp32", "variants", "light"),
    ),
    "variant-missing": (
        "a precision lacks a variant that the bundle has",
        lambda record: record["graphs"]["fp32"]["variants"].pop("full"),
    ),
    "variant-input-unknown": (
        "a variant takes an input that nobody knows",
        put({"dtype": "float32", "dims": ["tasks"]}, "variants", "light", "inputs", "scale"),
    ),
    "graph-elsewhere": (
        "a graph has another path than its precision's",
        put("onnx/model_q4.onnx", "graphs", "fp32", "file"),
    ),
    "weights-elsewhere": (
        "weights have another path than their graph's",
        put("onnx/other.data", "graphs", "fp32", "data"),
    ),
    "file-above": ("a file lies outside of the bundle", put("0" * 64, "files", "../tokenizer.json")),
    "digest-short": ("a digest is no SHA-256", put("0" * 63, "files", "tokenizer.json")),
    "field-missing": ("a field is missing", lambda record: record.pop("max_positions")),
}
"""File → why the manifest is rejected, and how it differs from the encoder's."""


def write_refused() -> list[dict[str, str]]:
    """Write the files. Returns the reason for each."""
    REFUSED.mkdir()
    told = []
    for name, change in TASKS.items():
        file = f"{name}{files.TASK_SUFFIX}"
        (REFUSED / file).write_bytes(refused_task(change))
        told.append({"file": file, "bundle": change.task[2], "why": change.why})
    for name, (why, edit) in MANIFESTS.items():
        record = json.loads((BUNDLES / "encoder" / files.MANIFEST).read_bytes())
        for graph in record["graphs"].values():
            graph["parity"] = {}
        edit(record)
        file = f"manifest-{name}.json"
        (REFUSED / file).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
        told.append({"file": file, "why": why})
    return told


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    for folder in (BUNDLES, REFUSED):
        shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, model in MODELS.items():
            save_model(Path(folder) / name, model.architecture, *model.tokenizer(), **model.sizes)
            backbone = load(Path(folder) / name)
            export_bundle(
                backbone, BUNDLES / name, precisions=model.precisions, tasks=list(model.tasks(backbone)), max_drop=1
            )
    # The name of a task is that of its file, whatever its contents say.
    tasks = BUNDLES / "encoder" / files.TASKS
    shutil.copyfile(tasks / "both-pooler.safetensors", tasks / "renamed.safetensors")
    write_lines(HERE / "cases.jsonl", (case for name in MODELS for case in cases(name)))
    write_lines(REFUSED / "refused.jsonl", write_refused())


if __name__ == "__main__":
    main()
