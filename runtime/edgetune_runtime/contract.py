"""The contract between the exported graph, the task files and the engine: names, shapes and allowed values.

A graph takes the text (`TEXT_INPUTS`), a *bank* of tasks (`BANK_INPUTS`) and, for each text, the row of the
bank that it uses (`task_index`). Every bank input defaults to one empty task, so a graph also runs without a task, and
onnxruntime's native adapters can bind to each name. A graph has some of these inputs; the bundle's manifest lists them.
docs/format.md has the whole format.

Dimensions: batch, sequence = texts and their tokens; spans = stretches of a text that features are read from, each with
two ends; tasks = rows of the bank; prompt, prefix, units, and a rank for each site = lengths (0 allowed); labels = most
labels of any task; the others are sizes of the backbone (`BackboneSizes`). `layers` counts the times that attention is
called in one forward: an encoder-decoder's prefix goes to its encoder, then for each layer of its decoder to the self-
and the cross-attention. `feed_forwards` counts these.

A bundle has its graph in a few variants, which share one copy of the weights. The base takes prompts and prefixes;
others take more parts and cost more to run. Each text runs in the cheapest variant that takes its task's parts
(`VARIANTS`).

Texts are padded on the right and prompts on the left, so that a prompt is always next to its text. Backbones whose
attention depends on distance in the row then give the same answer in every batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

FORMAT_VERSIONS = (1, 2)
"""Readable versions of the bundle and task file formats. Version 1 is that of edgetune 0.1.

Version 2 lists under `requires` what a reader must support, and may have fields that a reader can ignore. A task that
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
UNIT_READ = "unit_read"
UNIT_BIAS = "unit_bias"
UNIT_WRITE = "unit_write"
HEAD_WEIGHT = "head_weight"
HEAD_BIAS = "head_bias"

LOGITS = "logits"
FEATURES = "features"


@dataclass(frozen=True)
class GraphInput:
    """One input of the graph: its element type and its dimensions by name."""

    dtype: str
    dims: tuple[str, ...]


SITES: dict[str, tuple[str, str, str]] = {
    "query": ("layers", "width", "query_width"),
    "key": ("layers", "width", "key_width"),
    "value": ("layers", "width", "key_width"),
    "projection": ("layers", "width", "projection_width"),
    "output": ("layers", "query_width", "width"),
    "gate": ("feed_forwards", "width", "widened_width"),
    "widen": ("feed_forwards", "width", "widened_width"),
    "narrow": ("feed_forwards", "inner_width", "width"),
}
"""Linear layer of a backbone → their number, their input and their output dimension.

`projection` makes query, key and value at once (GPT-2, ModernBERT). A feed-forward widens and narrows. A gated one has
a `gate` next to `widen`, or both in one layer; then `widened_width` is twice the `inner_width`.
"""

ATTENTION_SITES = ("query", "key", "value", "projection", "output")
FEED_FORWARD_SITES = ("gate", "widen", "narrow")


def down(site: str) -> str:
    """Name of the bank input that reads at a site: x·down·up is added to the linear layer's output for x."""
    return f"{site}_down"


def up(site: str) -> str:
    """Name of the bank input that writes at a site."""
    return f"{site}_up"


def rank(site: str) -> str:
    """Name of the dimension between `down` and `up`."""
    return f"{site}_rank"


LOW_RANK_INPUTS = {site: (down(site), up(site)) for site in SITES}
"""Linear layer of a backbone → names of its low-rank bank inputs."""

UNIT_INPUTS = (UNIT_READ, UNIT_BIAS, UNIT_WRITE)
"""Bank inputs of the adapter units."""

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
    **{
        name: GraphInput("float32", ("tasks", number, *dims))
        for site, (number, read, given) in SITES.items()
        for name, dims in zip(LOW_RANK_INPUTS[site], ((read, rank(site)), (rank(site), given)), strict=True)
    },
    UNIT_READ: GraphInput("float32", ("tasks", "feed_forwards", "width", "units")),
    UNIT_BIAS: GraphInput("float32", ("tasks", "feed_forwards", "units")),
    UNIT_WRITE: GraphInput("float32", ("tasks", "feed_forwards", "units", "width")),
    POSITION_OFFSET: GraphInput("int64", ("tasks",)),
    POOLING: GraphInput("int64", ("tasks",)),
    HEAD_WEIGHT: GraphInput("float32", ("tasks", "labels", "hidden")),
    HEAD_BIAS: GraphInput("float32", ("tasks", "labels")),
}

INPUTS: dict[str, GraphInput] = {**TEXT_INPUTS, **BANK_INPUTS}

REQUIRED_INPUTS = (INPUT_IDS, ATTENTION_MASK, TASK_INDEX, HEAD_WEIGHT, HEAD_BIAS)
"""Inputs of every graph."""

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
"""Inputs of the graphs that edgetune 0.1 wrote. These read one span per text, chosen by `pooling`."""


PART_INPUTS = frozenset((*UNIT_INPUTS, *(name for names in LOW_RANK_INPUTS.values() for name in names)))
"""Inputs of parts that only other variants than the base take."""

BASE_INPUTS = tuple(name for name in INPUTS if name not in PART_INPUTS)
"""Inputs that the base takes, as far as they apply to the backbone."""

BASE = "base"

VARIANTS: dict[str, frozenset[str]] = {
    BASE: frozenset(),
    "light": frozenset(
        (*(name for site in ("query", "value", "projection") for name in LOW_RANK_INPUTS[site]), *UNIT_INPUTS)
    ),
    "full": PART_INPUTS,
}
"""Graph variant → the `PART_INPUTS` that it takes in addition to the base's inputs, cheapest first."""


def outputs(inputs: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The outputs of a graph with these inputs, and the names of their dimensions."""
    spans = () if is_first_generation(inputs) else ("spans",)
    return {LOGITS: ("batch", *spans, "labels"), FEATURES: ("batch", *spans, "hidden")}


def is_first_generation(inputs: Collection[str]) -> bool:
    """Whether a graph with these inputs was written by edgetune 0.1; such a graph does its own pooling."""
    return set(inputs) == set(INPUTS_OF_0_1)


PROMPT_SOURCE = "prompt_source"

TASK_TENSORS: dict[str, tuple[str, ...]] = {
    name: spec.dims[1:] for name, spec in BANK_INPUTS.items() if spec.dtype == "float32"
} | {PROMPT_SOURCE: ("prefix", "embedding")}
"""Tensors of a task file and their dimensions. The bank's integer inputs are computed when tasks are stacked.

`prompt_source` is not an input of the graph. It is the soft prompt that a causal backbone's prefix was computed from,
stored so that a later training run can continue from it.
"""

POOLINGS = ("cls", "mean", "last", "mask", "decoder", "pooler", "classifier", "classifier_mean")
"""Where a text's features are read. The graph's input `pooling` is an index into this tuple; it selects the layers that
features pass through (`TRANSFORMS`), and in graphs of edgetune 0.1 also the tokens.

cls, mean, last: at the first token, as the mean over all tokens, at the last token. mask: at the template's mask
token, through the layers between the backbone and its vocabulary (masked language models). decoder: at the first step
of the decoder (the only pooling of encoder-decoders). pooler: at the very first token, which may belong to a soft
prompt, through the layer that BERT's sequence classifiers use (BERT, ALBERT). classifier, classifier_mean: at the first
token, or as the mean, through the layers of the checkpoint's own classifier before its last one.
"""

OWN_CLASSIFIER = ("classifier", "classifier_mean")
"""Poolings through the classifier layers of one fine-tuned checkpoint; these layers have their own fingerprint."""

TRANSFORMS = ("mask", "pooler", *OWN_CLASSIFIER)
"""Poolings whose features pass through further layers after the backbone. A graph without them has no input
`pooling`."""

TRANSFORMED_SPANS = 2
"""Maximum number of spans per text whose features pass through such layers. A pooling with layers has one span, which
engines feed twice."""

OF_PIECES = ("mean", "cls", "last")
"""Poolings for kinds that answer piece by piece: the mean over a piece's tokens, its first token, or its last token."""

ENDS = "ends"
"""Pooling for answers to questions: a piece's first token for "it begins here", its last token for "it ends here"."""

NAMED_POOLINGS = (*OWN_CLASSIFIER, ENDS)
"""Poolings that a task must list as required, because edgetune 0.1 does not know them."""

_READS = {ENDS: ("cls", "last")}


def reads(pooling: str) -> tuple[str, ...]:
    """What a pooling reads for a piece: one of `POOLINGS`, or one for each row of the head."""
    return _READS.get(pooling, (pooling,))


TEXT_SLOT = "{text}"
TEXT_PAIR_SLOT = "{text_pair}"
MASK_SLOT = "{mask}"

CUT, WINDOWS = "cut", "windows"
LONG_TEXTS = (CUT, WINDOWS)
"""How a text that is longer than its task's maximum length is read."""

DEFAULT_MAX_LENGTH = 256
"""Default maximum number of tokens per text, including special tokens."""


@dataclass(frozen=True)
class BackboneSizes:
    """Backbone sizes that determine the shapes of parts and heads; 0 if not applicable.

    Attributes:
        embedding: size of an input embedding.
        hidden: size of a token's features.
        layers: number of attention calls.
        kv_heads: number of key and value heads.
        head_dim: size of one head.
        feed_forwards: number of feed-forward layers.
        width: size of a token's vector between attention and feed-forward.
        query_width, key_width, projection_width: output size of the projection of the query, of keys or values, and of
            all three at once.
        widened_width, inner_width: size that a feed-forward widens to, and size that it narrows from.
    """

    embedding: int
    hidden: int
    layers: int
    kv_heads: int
    head_dim: int
    feed_forwards: int = 0
    width: int = 0
    query_width: int = 0
    key_width: int = 0
    projection_width: int = 0
    widened_width: int = 0
    inner_width: int = 0

    def shape(self, name: str, **lengths: int) -> tuple[int, ...]:
        """Shape of the bank input `name`, with the dynamic dimensions from `lengths`."""
        return self.of(BANK_INPUTS[name].dims, **lengths)

    def of(self, dims: Iterable[str], **lengths: int) -> tuple[int, ...]:
        """Sizes of named dimensions, with the dynamic ones from `lengths`."""
        sizes = {**vars(self), **lengths}
        return tuple(sizes[dim] for dim in dims)


_FIXED_DIMS = (*(size.name for size in fields(BackboneSizes)), "ends")
DYNAMIC_DIMS = tuple(dict.fromkeys(dim for spec in INPUTS.values() for dim in spec.dims if dim not in _FIXED_DIMS))
"""Dimensions that may differ from run to run; the backbone fixes the others."""
