"""The contract between the exported graph, the task files and the engine: names, shapes and values allowed.

A graph takes the text (`TEXT_INPUTS`), a *bank* of tasks (`BANK_INPUTS`) and, for each text, the row of the
bank that it uses (`task_index`). Every bank input has a default of one task with nothing in it, so a graph
runs bare, and onnxruntime's native adapters can bind to each name. A graph has some of these inputs; the bundle's
manifest lists them. docs/format.md has the whole format.

Shape letters: batch, sequence = texts and their tokens; spans = stretches of a text that features are read from, each
with two ends; tasks = rows of the bank; prompt, prefix, units, and a rank for each site = lengths (0 allowed);
labels = most labels of any task; the others are sizes of the backbone (`BackboneSizes`).
`layers` counts the times that attention is called in one forward: an encoder-decoder's prefix goes to its encoder,
then for each layer of its decoder to the self- and the cross-attention. `feed_forwards` counts these.

A bundle has its graph in a few variants, which share one copy of the weights. The base takes prompts and prefixes;
others take more parts, and cost more to run. Each text runs in the least that takes what its task has (`VARIANTS`).

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
"""Linear layer of a backbone → how many there are, what they read, and what they give.

`projection` makes query, key and value at once (GPT-2, ModernBERT). A feed-forward widens and narrows; one that is
gated has a `gate` beside `widen`, or both in one, and then `widened_width` is twice the `inner_width`.
"""

ATTENTION_SITES = ("query", "key", "value", "projection", "output")
FEED_FORWARD_SITES = ("gate", "widen", "narrow")


def down(site: str) -> str:
    """Name of the bank input that reads at a site: x·down·up is added to what the linear layer makes of x."""
    return f"{site}_down"


def up(site: str) -> str:
    """Name of the bank input that writes at a site."""
    return f"{site}_up"


def rank(site: str) -> str:
    """Name of the dimension between `down` and `up`."""
    return f"{site}_rank"


LOW_RANK_INPUTS = {site: (down(site), up(site)) for site in SITES}
"""Linear layer of a backbone → names of its low rank's bank inputs."""

UNIT_INPUTS = (UNIT_READ, UNIT_BIAS, UNIT_WRITE)
"""Names of the units' bank inputs."""

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


PART_INPUTS = frozenset((*UNIT_INPUTS, *(name for names in LOW_RANK_INPUTS.values() for name in names)))
"""Inputs of parts that the base does not take."""

BASE_INPUTS = tuple(name for name in INPUTS if name not in PART_INPUTS)
"""Inputs that the base takes, if the backbone has what they are for."""

BASE = "base"

VARIANTS: dict[str, frozenset[str]] = {
    BASE: frozenset(),
    "light": frozenset(
        (*(name for site in ("query", "value", "projection") for name in LOW_RANK_INPUTS[site]), *UNIT_INPUTS)
    ),
    "full": PART_INPUTS,
}
"""Variant of a graph → which of `PART_INPUTS` it takes beside the base's, from the cheapest on."""


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

POOLINGS = ("cls", "mean", "last", "mask", "decoder", "pooler", "classifier", "classifier_mean")
"""Where a text's features are read. The graph's input `pooling` is a place in this tuple; it chooses the layers that
features pass through (`TRANSFORMS`), and in graphs of edgetune 0.1 the tokens too.

cls, mean, last: at the first token, as the mean over all tokens, at the last token. mask: at the template's mask
token, through the layers between the backbone and its vocabulary (masked language models). decoder: at the first
step of the decoder (encoder-decoders, which have no other). pooler: at the first token of all, a soft prompt's if
there is one, through the layer that BERT's sequence classifiers read it through (BERT, ALBERT). classifier,
classifier_mean: at the first token, or as the mean, through the layers of the checkpoint's own classifier that stand
before its last one.
"""

OWN_CLASSIFIER = ("classifier", "classifier_mean")
"""Poolings through layers of one fine-tuned checkpoint, which have a fingerprint of their own."""

TRANSFORMS = ("mask", "pooler", *OWN_CLASSIFIER)
"""Poolings whose features pass through layers behind the backbone. A graph without them has no input `pooling`."""

TRANSFORMED_SPANS = 2
"""The most spans of a text that features pass through layers for: such a pooling has one, which engines feed twice."""

OF_PIECES = ("mean", "cls", "last")
"""Poolings of kinds that answer piece by piece: the mean over a piece's tokens, its first token, its last one."""

ENDS = "ends"
"""Pooling of answers to questions: a piece's first token for "it begins here", its last one for "it ends here"."""

NAMED_POOLINGS = (*OWN_CLASSIFIER, ENDS)
"""Poolings that a task says that it requires: edgetune 0.1 does not know them."""

_READS = {ENDS: ("cls", "last")}


def reads(pooling: str) -> tuple[str, ...]:
    """What a pooling reads of a piece: one of `POOLINGS`, or one for each row of the head."""
    return _READS.get(pooling, (pooling,))


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
    """Sizes of a backbone that fix the shapes of parts and heads; 0 where it has no such thing.

    Attributes:
        embedding: of a token that is fed.
        hidden: of a token's features.
        layers: attention calls.
        kv_heads: heads of keys and values.
        head_dim: numbers of one of them.
        feed_forwards: feed-forward layers.
        width: what linear layers read and give of a token between attention and feed-forward.
        query_width, key_width, projection_width: what projections give: of the query, of keys or values, of all three.
        widened_width, inner_width: what a feed-forward widens to, and what it narrows from.
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
        """Shape of the bank input `name`, the dynamic dimensions taken from `lengths`."""
        return self.of(BANK_INPUTS[name].dims, **lengths)

    def of(self, dims: Iterable[str], **lengths: int) -> tuple[int, ...]:
        """Sizes of named dimensions, the dynamic ones taken from `lengths`."""
        sizes = {**vars(self), **lengths}
        return tuple(sizes[dim] for dim in dims)


_FIXED_DIMS = (*(size.name for size in fields(BackboneSizes)), "ends")
DYNAMIC_DIMS = tuple(dict.fromkeys(dim for spec in INPUTS.values() for dim in spec.dims if dim not in _FIXED_DIMS))
"""Dimensions that a run may choose; the others are fixed by the backbone."""
