"""Training options: each field is also an option of `edgetune train`. Nothing here needs PyTorch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune_runtime import contract, files
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.class_weight import BALANCED, NONE, ClassWeight
from edgetune_runtime.fitting.descriptions import NAMES, Describing

if TYPE_CHECKING:
    from edgetune_runtime.task import Task

AUTO, CONTRASTIVE, EPOCHS = RECIPES = ("auto", "contrastive", "epochs")
"""Training recipes; `recipes.recipe_of` chooses one for "auto". contrastive: train a prompt with pairs of texts, then
fit a head; for few rows. epochs: train prompt and head with the loss of the kind of answer, in passes over the rows."""

NO, BF16, FP16 = "no", "bf16", "fp16"
"""Mixed precision, besides `AUTO`."""

LabelWords = Mapping[str, Sequence[str]]
"""Label → words that a language model would predict for it."""

PART_NAMES = ("prompt", "prefix", "low-rank", "units")
"""Trainable parts; `methods.TRAININGS` defines how they are trained."""

METHODS: dict[str, dict[str, int | None]] = {
    "prefix": {"prefix": None},
    "prefix-mlp": {"prefix": None},
    "p-tuning-v2": {"prefix": None},
    "prompt": {"prompt": None},
    "prompt-residual": {"prompt": None},
    "p-tuning-mlp": {"prompt": None},
    "p-tuning-lstm": {"prompt": None},
    "lora": {"low-rank": 8},
    "units": {"units": 16},
    "strong": {"low-rank": 8, "units": 16},
}
"""Method → the parts that it trains and their lengths; `None` means the prompt length.

p-tuning-v2 is the same as prefix, named after the paper that introduced prefixes for classification.
"""

PROMPTING = ("prompt", "prefix")
"""Parts that come before a text's tokens."""

PREFIX = "prefix"
"""The default method for prompts."""

STRONG = "strong"
"""The method that comes closest to fine-tuning all weights."""

PROMPT_LENGTH = 20

ADDED = ("low-rank", "units")
"""Parts that are added in parallel to linear layers. They learn faster, and need the backbone's dropout against
overfitting."""

INITS = ("data", "vocabulary", "random", "labels", "text")
"""Initial values of a prompt: tokens of the training texts, common tokens of the vocabulary, random numbers, the
repeated names of the labels, or a text from the user."""


def parse_label_words(items: Sequence[str]) -> LabelWords | None:
    """Parse label words from the command line; `None` if there are none. Raises the same errors as `parse_words`."""
    return parse_words(items, "label_words") if items else None


def parse_descriptions(items: Sequence[str]) -> Describing:
    """Parse label descriptions from the command line: `names`, `none`, or `label=text,text…`, once per label.

    Raises the same errors as `parse_words`.
    """
    if len(items) == 1 and items[0] in (NAMES, NONE):
        return items[0]
    return parse_words(items, "descriptions") if items else NAMES


def parse_words(items: Sequence[str], parameter: str) -> LabelWords:
    """Parse words of labels from the command line: `label=word,word…`, once per label.

    Args:
        items: the values of an option.
        parameter: name of the option's parameter.

    Raises:
        DataError: an item has another form, a label or a word occurs twice, or there is only one label.
    """
    words: dict[str, list[str]] = {}
    for item in items:
        label, separator, listed = item.partition("=")
        found = [word.strip() for word in listed.split(",") if word.strip()]
        if not (separator and label and found) or label in words:
            raise DataError(f"`{parameter}` {item!r} is not LABEL=WORD[,WORD…], one a label: write positive=great,good")
        words[label] = found
    if len(words) == 1:
        raise DataError(f"`{parameter}` for the label '{next(iter(words))}' alone: expected at least two labels")
    listed_words = [word for found in words.values() for word in found]
    twice = sorted({word for word in listed_words if listed_words.count(word) > 1})
    if twice:
        raise DataError(f"`{parameter}` has {', '.join(twice)} more than once: expected each word for one label")
    return words


def parse_class_weight(items: Sequence[str]) -> ClassWeight:
    """Parse class weights from the command line: `none`, `balanced`, or `label=number`, once per label.

    Raises:
        DataError: an item has another form, or different forms are mixed.
    """
    if not items:
        return NONE
    if len(items) == 1 and items[0] in (NONE, BALANCED):
        return items[0]
    weights: dict[str, float] = {}
    for item in items:
        label, _, number = item.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (label and math.isfinite(weight) and weight > 0) or label in weights:
            raise DataError(
                f"`class_weight` {item!r}: expected {NONE} or {BALANCED} alone, or LABEL=NUMBER with a number above "
                f"0, once for each label"
            )
        weights[label] = weight
    return weights


def parse_parts(text: str) -> dict[str, int]:
    """Parse parts and their lengths from the command line: `part:length,part:length…`.

    Raises:
        DataError: they have another form, or a part does not exist.
    """
    found: dict[str, int] = {}
    for item in text.split(","):
        name, _, length = item.strip().partition(":")
        if name not in PART_NAMES or name in found or not length.isdecimal() or int(length) < 1:
            raise DataError(
                f"`parts` {item.strip()!r}: expected PART:LENGTH with a length from 1, each part once; parts are "
                f"{', '.join(PART_NAMES)}"
            )
        found[name] = int(length)
    return found


def _load_task(path: str) -> Task:
    from edgetune_runtime.task import Task

    return Task.load(Path(path))


_EPOCHS, _EPOCHS_OF_ADDED = 10, 4
_DROPOUT_OF_ADDED = 0.1


def option(default: Any, help_text: str, **how: Any) -> Any:
    """A field that is an option; `edgetune.cli.fields` describes `how`."""
    return field(default=default, metadata={"help": help_text, **how})


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        method: one of `METHODS`, or "auto", for which `methods.chosen` chooses one.
        parts: part in `PART_NAMES` → its length, instead of the method's parts.
        prompt_length: number of tokens of the prompt or prefix; `None` is `PROMPT_LENGTH`. 0 trains only the head.
        init: initial value of the prompt, one of `INITS`.
        init_text: the text for the init "text".
        init_from: a task from which the prompt starts, and also the head if the labels are the same.
        template: the text around each text.
        label_words: label → words from which the head starts.
        train_head: whether to train the head; false keeps the label words as they are.
        max_length: maximum number of tokens per text, including special tokens and template.
        long_texts: "cut" to drop the end of a longer text, "windows" to read all of it in parts.
        stride: number of tokens by which windows overlap.
        recipe: one of `RECIPES`.
        epochs: number of passes over the training data; the best one on development data is kept. `None` uses the
            method's default.
        patience: number of epochs without improvement after which training stops; `None` never stops early.
        batch_size: texts per step.
        keep_prompt: whether what was trained is kept even if a head without a prompt is better on held-out rows.
        class_weight: how much a row of each label counts in the loss: "none" for all the same, "balanced" for all
            labels the same, or label → weight, 1 if it is not named. Development data is judged without weights.
        descriptions: label → what people would say that it is about, for some or all labels of one task. Heads are
            joined with one that is made of them; held-out rows choose how much each counts. "names" takes the labels'
            own names, if they have words; "none" learns from the rows alone.
        learning_rate: of the parts; each part's own if `None`.
        head_learning_rate: of the head; if `None`, a small one with other parts and a larger one alone.
        dropout: share of the backbone's hidden numbers that training leaves out; the method's own if `None`.
        pooling: where features are read, one of the backbone's; if `None`, its usual one, or at the mask.
        positions_behind_prompt: whether a text's positions begin behind the prompt on an encoder too, as PEFT's do;
            else they begin at 0 there, or where those of `init_from` do.
        seed: of everything random.
        seeds: how often it trains, with `seed` and those that follow; the best on held-out rows is kept.
        mixed_precision: "bf16" multiplies by frozen weights in bf16 on a CPU, and uses autocast on a GPU; "fp16" uses
            autocast on a GPU; "no" uses fp32; "auto" is "bf16" on CPUs that are faster with it, and "no" otherwise.
        load_in: what the backbone's large weights are in memory, "fp32" or "bf16".
        gradient_checkpointing: whether each layer runs again in the backward pass, instead of keeping what it made.
    """

    method: str = option(
        AUTO,
        "What to train. prefix (also called p-tuning-v2), prefix-mlp: keys and values in every layer. lora: low-rank "
        "changes of query and value. units: a few more units in parallel with each feed-forward. strong: lora and "
        "units. The others: embeddings before the text. auto: strong on encoders; prefix on other models, if rows are "
        "few, or if you give an option that only prompts have.",
        choices=(AUTO, *METHODS),
    )
    parts: Mapping[str, int] | None = option(
        None,
        "Parts to train together and their lengths, instead of a method, such as prefix:16,low-rank:8,units:16. "
        f"Parts: {', '.join(PART_NAMES)}.",
        metavar="PART:LENGTH[,…]",
        parse=parse_parts,
    )
    prompt_length: int | None = option(
        None, f"Tokens of the prompt or prefix; 0 trains the head alone. [default: {PROMPT_LENGTH}]", least=0
    )
    init: str = option(
        "data",
        "Beginning of the prompt: tokens of the training texts, common tokens, random numbers, the names of the "
        "labels, or --init-text.",
        choices=INITS,
    )
    init_text: str = option("", "Text that the prompt begins as.")
    init_from: Task | None = option(None, "Task file of the same backbone that the prompt begins as.", parse=_load_task)
    template: str = option(
        contract.TEXT_SLOT,
        "Words around a text. {text} is the text, {text_pair} the second text of a pair, {mask} the place where a "
        "masked language model answers.",
    )
    label_words: LabelWords | None = option(
        None,
        "Words that a language model would say for a label; repeat it for each label.",
        metavar="LABEL=WORD[,WORD...]",
        parse_all=parse_label_words,
    )
    train_head: bool = option(
        True, "Train only the prompt; the label words stay as they are.", unset="--fixed-label-words"
    )
    max_length: int = option(
        contract.DEFAULT_MAX_LENGTH, "Most tokens of a text that are read, including the template's.", least=4
    )
    long_texts: str = option(
        contract.CUT,
        "How to read a longer text. cut: drop its end. windows: read all of it in overlapping parts and average their "
        "answers.",
        flag="--long",
        choices=contract.LONG_TEXTS,
    )
    stride: int = option(32, "Tokens by which windows overlap.", least=0)
    recipe: str = option(
        AUTO,
        "How to learn. contrastive, for few rows: train the prompt with pairs of texts, then fit a head. epochs: pass "
        "over the rows many times. auto: choose by the number of rows per label.",
        choices=RECIPES,
    )
    epochs: int | None = option(
        None,
        "Passes over the data; implies --recipe epochs. "
        f"[default: {_EPOCHS}; {_EPOCHS_OF_ADDED} with low rank or units; more if rows are few]",
        least=1,
    )
    patience: int | None = option(
        None, "End the training after this many epochs without a better one. [default: never]", least=1
    )
    batch_size: int = option(32, "Texts per step.", least=1)
    keep_prompt: bool = option(
        False,
        "Keep the trained prompt even if a head without it (as 'edgetune fit' makes it) is better on held-out rows.",
    )
    class_weight: ClassWeight = option(
        NONE,
        "How much a row counts in training. none: all rows count the same. balanced: all labels count the same, "
        "however many rows they have. LABEL=NUMBER: its rows count so much, others 1; repeatable. [default: none]",
        metavar="none|balanced|LABEL=NUMBER",
        parse_all=parse_class_weight,
    )
    descriptions: Describing = option(
        NAMES,
        "What a label is about, in your own words; repeat it for each label. It helps if you have few rows: held-out "
        "rows choose how much descriptions count. names: the labels' own names, if they have words. none: learn from "
        "the rows alone. [default: names]",
        flag="--describe",
        metavar="names|none|LABEL=TEXT[,TEXT...]",
        parse_all=parse_descriptions,
    )
    learning_rate: float | None = option(
        None, "Learning rate of the prompt. [default: by method]", flag="--lr", above=0.0
    )
    head_learning_rate: float | None = option(
        None,
        "Learning rate of the head, in epochs. [default: 0.001; 0.002 with low rank or units; 0.01 alone]",
        flag="--head-lr",
        above=0.0,
    )
    dropout: float | None = option(
        None,
        "Dropout of the backbone in training: the share of hidden numbers that are left out at random. "
        f"[default: 0; {_DROPOUT_OF_ADDED} with low rank or units]",
        least=0.0,
        below=1.0,
    )
    pooling: str | None = option(
        None,
        "Where features are read. [default: at {mask} if the template has one; otherwise mean for encoders, last for "
        "decoders, decoder for encoder-decoders]",
        choices=contract.POOLINGS,
    )
    positions_behind_prompt: bool = option(
        False,
        "Let an encoder's text begin after the prompt, as in PEFT. 'tasks export-peft' needs this for prompts and "
        "prefixes of encoders; decoders always do it.",
    )
    seed: int = option(0, "Seed of all random numbers. The same seed gives the same file.", least=0)
    seeds: int = option(
        1,
        "How many times to train, with --seed and the numbers after it. The task that is best on held-out rows is "
        "kept, and the spread of all is shown.",
        least=1,
    )
    mixed_precision: str = option(
        AUTO,
        "Mixed precision of training. bf16: on a CPU, multiply by the frozen weights in bf16; on a GPU, use autocast. "
        "fp16: the same, on a GPU only. no: use fp32. auto: bf16 on a CPU with instructions for it (AVX512-BF16 or "
        "AMX), and no on others. Evaluation is always in fp32 on a CPU.",
        choices=(AUTO, NO, BF16, FP16),
    )
    load_in: str = option(
        "fp32",
        "Format of the backbone's weights in memory. bf16 takes half as much; weights that are stored in fp32 are "
        "rounded. What is trained is fp32.",
        choices=("fp32", "bf16"),
    )
    gradient_checkpointing: bool = option(
        False,
        "Run each layer again in the backward pass instead of keeping its results. This takes less memory and more "
        "time, and gives the same task.",
    )

    @property
    def lengths(self) -> dict[str, int]:
        """The parts that are trained in addition to the head, and their lengths."""
        given = self._of_method if self.parts is None else self.parts
        prompt_length = PROMPT_LENGTH if self.prompt_length is None else self.prompt_length
        found = {name: prompt_length if length is None else length for name, length in given.items()}
        return {name: length for name, length in found.items() if length}

    @property
    def title(self) -> str:
        """The name of the training method in the task."""
        given = self._of_method if self.parts is None else self.parts
        method = PREFIX if self.method == AUTO else self.method
        return method if given.keys() == self._of_method.keys() else "+".join(given)

    @property
    def _of_method(self) -> Mapping[str, int | None]:
        """The parts of the method; "auto" counts as a prefix until a method is chosen."""
        return METHODS[PREFIX if self.method == AUTO else self.method]

    @property
    def adds(self) -> bool:
        """Whether any trained part is added in parallel to linear layers."""
        return not self.lengths.keys().isdisjoint(ADDED)

    @property
    def passes(self) -> int:
        """Number of passes over the training data."""
        return self.epochs or (_EPOCHS_OF_ADDED if self.adds else _EPOCHS)

    @property
    def backbone_dropout(self) -> float:
        """Dropout rate in the backbone during training."""
        return self.dropout if self.dropout is not None else _DROPOUT_OF_ADDED * self.adds

    def stamp(self) -> dict[str, Any]:
        """The options as JSON, to identify a training run.

        Options that do not affect the task are omitted.
        """
        given = dataclasses.replace(self, init_from=None)
        origin = None if self.init_from is None else files.sha256(self.init_from.to_bytes())
        stamp = {**asdict(given), "init_from": origin}
        del stamp["gradient_checkpointing"]
        return stamp
