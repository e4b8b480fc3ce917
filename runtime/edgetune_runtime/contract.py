"""The contract between the exported graph, the task files and the engine: names, shapes and values allowed.

A graph takes the text (`TEXT_INPUTS`), a *bank* of tasks (`BANK_INPUTS`) and, for each text, the row of the
bank that it uses (`task_index`). Every bank input has a default of one task with nothing in it, so a graph
runs bare, and onnxruntime's native adapters can bind to each name. A graph has some of these inputs; the bundle's
manifest lists them. docs/format.md has the whole format.

Shape letters: batch, sequence = texts and their tokens; spans = stretches of a text that features are read from, each
with two ends; tasks = rows of the bank; prompt, prefix = lengths (0 allowed); embedding, hidden, layers, kv_heads,
head_dim = sizes of the backbone; labels = most labels of any task.
`layers` counts the times that attention is called in one forward: an encoder-decoder's prefix goes to its encoder,
then for each layer of its decoder to the self- and the cross-attention.

Texts are padded on the right and prompts on the left, so that a prompt and its text always touch: backbones whose
attention goes by distance in the row then answer alike whatever a row is batched with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

FORMAT_VERSIONS = (1, 2)
"""Versions of the bundle and task file formats that can be read. 1 is edgetune 0.1's.

Version 2 lists what a reader must know under `requires`, and may have fields that a reader can ignore. A task that
needs nothing new is still written as version 1.
"""

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
SPANS = "spans"
TASK_INDEX = "task_index"
PROMPT_EMBEDDINGS = "prompt_embeddings"
PROMPT_MASK = "prompt_mask"
PREFIX_KEYS = "prefix_keys"
PREFIX_VALUES = "prefix_values"
PREFIX_MASK = "prefix_mask"
POSITION_OFFSET = "position_offset"
POOLING = "pooling"
HEAD_WEIGHT = "head_weight"
HEAD_BIAS = "head_bias"

LOGITS = "logits"
FEATURES = "features"


@dataclass(frozen=True)
class GraphInput:
    """One input of the graph: its element type and its dimensions by name."""

    dtype: str
    dims: tuple[str, ...]


TEXT_INPUTS: dict[str, GraphInput] = {
    INPUT_IDS: GraphInput("int64", ("batch", "sequence")),
    ATTENTION_MASK: GraphInput("int64", ("batch", "sequence")),
    TOKEN_TYPE_IDS: GraphInput("int64", ("batch", "sequence")),
    SPANS: GraphInput("int64", ("batch", "spans", "ends")),
    TASK_INDEX: GraphInput("int64", ("batch",)),
}

BANK_INPUTS: dict[str, GraphInput] = {
    PROMPT_EMBEDDINGS: GraphInput("float32", ("tasks", "prompt", "embedding")),
    PROMPT_MASK: GraphInput("int64", ("tasks", "prompt")),
    PREFIX_KEYS: GraphInput("float32", ("tasks", "layers", "kv_heads", "prefix", "head_dim")),
    PREFIX_VALUES: GraphInput("float32", ("tasks", "layers", "kv_heads", "prefix", "head_dim")),
    PREFIX_MASK: GraphInput("int64", ("tasks", "prefix")),
    POSITION_OFFSET: GraphInput("int64", ("tasks",)),
    POOLING: GraphInput("int64", ("tasks",)),
    HEAD_WEIGHT: GraphInput("float32", ("tasks", "labels", "hidden")),
    HEAD_BIAS: GraphInput("float32", ("tasks", "labels")),
}

INPUTS: dict[str, GraphInput] = {**TEXT_INPUTS, **BANK_INPUTS}

REQUIRED_INPUTS = (INPUT_IDS, ATTENTION_MASK, TASK_INDEX, HEAD_WEIGHT, HEAD_BIAS)
"""Inputs that every graph has."""

INPUTS_OF_0_1 = (
    INPUT_IDS,
    ATTENTION_MASK,
    TASK_INDEX,
    PROMPT_EMBEDDINGS,
    PROMPT_MASK,
    PREFIX_KEYS,
    PREFIX_VALUES,
    PREFIX_MASK,
    POSITION_OFFSET,
    POOLING,
    HEAD_WEIGHT,
    HEAD_BIAS,
)
"""Inputs of the graphs that edgetune 0.1 wrote. They read one span per text, which `pooling` chooses."""


def outputs(inputs: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Outputs of a graph with these inputs, and their dimensions by name."""
    spans = () if is_first_generation(inputs) else ("spans",)
    return {LOGITS: ("batch", *spans, "labels"), FEATURES: ("batch", *spans, "hidden")}


def is_first_generation(inputs: Collection[str]) -> bool:
    """Whether a graph with these inputs is one of edgetune 0.1's, which pools by itself."""
    return set(inputs) == set(INPUTS_OF_0_1)


PROMPT_SOURCE = "prompt_source"

TASK_TENSORS: dict[str, tuple[str, ...]] = {
    name: spec.dims[1:] for name, spec in BANK_INPUTS.items() if spec.dtype == "float32"
} | {PROMPT_SOURCE: ("prefix", "embedding")}
"""Tensors of a task file and their dimensions. What the bank has of whole numbers is made when it is stacked.

`prompt_source` is no input of the graph: it is the soft prompt that a causal backbone's prefix was computed from,
kept so that a training can begin where this one ended.
"""

POOLINGS = ("cls", "mean", "last", "mask", "decoder", "pooler")
"""Where a text's features are read. The graph's input `pooling` is a place in this tuple; it chooses the layers that
features pass through ("mask", "pooler"), and in graphs of edgetune 0.1 the tokens too.

cls, mean, last: at the first token, as the mean over all tokens, at the last token. mask: at the template's mask
token, through the layers between the backbone and its vocabulary (masked language models). decoder: at the first
step of the decoder (encoder-decoders, which have no other). pooler: at the first token of all, a soft prompt's if
there is one, through the layer that BERT's sequence classifiers read it through (BERT, ALBERT).
"""

TRANSFORMS = ("mask", "pooler")
"""Poolings whose features pass through layers behind the backbone. A graph without them has no input `pooling`."""

TEXT_SLOT = "{text}"
TEXT_PAIR_SLOT = "{text_pair}"
MASK_SLOT = "{mask}"

CUT, WINDOWS = "cut", "windows"
LONG_TEXTS = (CUT, WINDOWS)
"""What is done with a text that is longer than its task reads."""

DEFAULT_MAX_LENGTH = 256
"""Tokens of a text (special tokens included) that are read when a task does not say otherwise."""


@dataclass(frozen=True)
class BackboneSizes:
    """Sizes of a backbone that fix the shapes of prompts and heads."""

    embedding: int
    hidden: int
    layers: int
    kv_heads: int
    head_dim: int

    def shape(self, name: str, **lengths: int) -> tuple[int, ...]:
        """Shape of the bank input `name`, the dynamic dimensions taken from `lengths`."""
        return self.of(BANK_INPUTS[name].dims, **lengths)

    def of(self, dims: Iterable[str], **lengths: int) -> tuple[int, ...]:
        """Sizes of named dimensions, the dynamic ones taken from `lengths`."""
        sizes = {**vars(self), **lengths}
        return tuple(sizes[dim] for dim in dims)


_FIXED_DIMS = (*(size.name for size in fields(BackboneSizes)), "ends")
DYNAMIC_DIMS = tuple(dict.fromkeys(dim for spec in INPUTS.values() for dim in spec.dims if dim not in _FIXED_DIMS))
"""Dimensions that a run may choose; the others are fixed by the backbone."""
