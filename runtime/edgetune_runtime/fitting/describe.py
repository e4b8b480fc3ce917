"""A task without labelled texts: its head is made from the features of label descriptions.

A text gets the label with the closest descriptions, by the cosine of their features, as in zero-shot classification
with sentence embeddings (Yin et al. 2019, "Benchmarking Zero-shot Text Classification"). It works best with backbones
that were trained for sentence embeddings.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgetune_runtime import contract, files
from edgetune_runtime.arrays import Array, unit_length
from edgetune_runtime.errors import DataError
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.fitting.descriptions import NAMES, NONE, Describing, Descriptions, descriptions_of
from edgetune_runtime.fitting.draft import fitted_draft, new_draft
from edgetune_runtime.fitting.label_set import label_set
from edgetune_runtime.fitting.linear import Head, head_tensors
from edgetune_runtime.kinds import probabilities
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task
from edgetune_runtime.text import TextEncoder

METHOD = "described"

TEMPLATES = ("{}", "This is about {}.", "This text is about {}.", "It has to do with {}.")
"""Templates for descriptions; the features of a description are the mean over these."""

_INSIDE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]{3}|[^\x00-\x7f]{2}")
"""A name with a match may mean something: three letters, or two characters of another script."""

_SHARPNESS = 20.0
"""Factor from cosines to logits: the cosines of related texts' sentence embeddings differ by only a few hundredths."""


@dataclass(frozen=True)
class About:
    """Descriptions of a task's labels, used together with its rows.

    Attributes:
        descriptions: descriptions of at least two labels.
        by_name: whether they are the labels' own names, which may be codes, instead of descriptions that somebody
            wrote.
    """

    descriptions: Descriptions
    by_name: bool = False

    @property
    def title(self) -> str:
        """Its name for people."""
        return "label names" if self.by_name else "descriptions"


def about_labels(given: Describing, draft: Task) -> About | None:
    """The descriptions of a task's labels, for a task that also has rows; `None` if there are none.

    Raises:
        DataError: they are not descriptions, or do not fit the task.
    """
    if given is None or (isinstance(given, str) and given == NONE):
        return None
    if isinstance(given, str) and given == NAMES:
        named = _named(draft.labels)
        return About(named, by_name=True) if _takes_descriptions(draft) and len(named) > 1 else None
    found = descriptions_of(given)
    check_descriptions(found, draft)
    return About(found)


def _named(labels: Sequence[str]) -> dict[str, list[str]]:
    """The labels whose names contain words, with these words; without labels that differ only in digits."""
    words = {label: found for label in labels if (found := _words_of(label))}
    without_digits = Counter(map(_letters, words.values()))
    return {label: [found] for label, found in words.items() if without_digits[_letters(found)] == 1}


def _words_of(label: str) -> str:
    """A label's name as words, such as "card lost" for `card_lost` and `cardLost`; empty if it looks like a code."""
    kept = "".join(one if one.isalnum() or unicodedata.category(one)[0] == "M" else " " for one in label)
    words = " ".join(_INSIDE.sub(" ", kept).split())
    return words if _WORD.search(words) else ""


def _letters(words: str) -> str:
    return "".join(one for one in words.casefold() if not one.isdecimal())


def _takes_descriptions(draft: Task) -> bool:
    return draft.kind is SINGLE_LABEL and not draft.pairs


def new_described(
    facts: BackboneFacts,
    encoder: TextEncoder,
    name: str,
    descriptions: Descriptions,
    template: str = contract.TEXT_SLOT,
    max_length: int = contract.DEFAULT_MAX_LENGTH,
) -> Task:
    """The draft of a described task, with one label per text. Raises the same errors as `Engine.describe`."""
    descriptions = descriptions_of(descriptions)
    labels = label_set([*descriptions], [], SINGLE_LABEL)
    draft = new_draft(
        facts, encoder, name=files.check_task_name(name), labels=labels, kind=SINGLE_LABEL, pairs=False,
        template=template, max_length=max_length, method=METHOD,
    )  # fmt: skip
    return fitted_draft(encoder, draft)


def described(
    draft: Task, descriptions: Descriptions, features: Callable[[Sequence[str]], Array], texts: Sequence[str] = ()
) -> Task:
    """The task with a head made from descriptions.

    Args:
        draft: the task without its head; its labels are the described ones, one per text.
        descriptions: at least one for each label.
        features: computes features of texts as the task reads them. Shape: [texts, hidden].
        texts: unlabelled texts. If given, the mean of their features is subtracted before cosines are computed, and the
            labels are made equally likely on them (contextual calibration, Zhao et al. 2021). This is right if the
            labels are about equally frequent.

    Raises:
        DataError: a label has no description, or an empty one.
    """
    descriptions = descriptions_of(descriptions)
    if set(descriptions) != set(draft.labels) or not all(map(_has_words, descriptions.values())):
        raise DataError(
            f"there are descriptions for {', '.join(sorted(descriptions))}, and the labels are "
            f"{', '.join(draft.labels)}: expected at least one word for each"
        )
    made = features(lines(draft.labels, descriptions))
    if len(texts):
        read = features(texts).astype(np.float64)
        middle = read.mean(axis=0)
        length = float(np.linalg.norm(read - middle, axis=1).mean())
        weight = described_head(draft.labels, descriptions, made - middle, length).weight
        logits = (read - middle) @ weight.T
        prior = probabilities(logits, 1.0).mean(axis=0)
        head = Head(weight, -weight @ middle - np.log(np.maximum(prior, 1e-12)))
    else:
        head = described_head(draft.labels, descriptions, made)
    return dataclasses.replace(draft, tensors={**draft.tensors, **head_tensors(head)})


def check_descriptions(descriptions: Descriptions, draft: Task) -> None:
    """Raise `DataError` unless descriptions can be combined with the labelled rows of a task.

    Not every label needs one.
    """
    if not _takes_descriptions(draft):
        came = "pairs of texts" if draft.pairs else f"a task of the kind '{draft.kind_name}'"
        raise DataError(f"descriptions came for {came}: expected none; they are for tasks with one label per text")
    unknown = [label for label in descriptions if label not in draft.labels]
    if unknown:
        raise DataError(
            f"there are descriptions of {', '.join(unknown)}, but the labels are {', '.join(draft.labels)}: write the "
            f"label as the data has it"
        )
    empty = [label for label, listed in descriptions.items() if not _has_words(listed)]
    if empty:
        raise DataError(f"the description of '{empty[0]}' is empty: expected at least one word, or no description")


def undescribed(labels: Sequence[str], descriptions: Descriptions) -> list[str]:
    """What people should know about labels without a description: one line, or none."""
    others = [label for label in labels if label not in descriptions]
    return [f"no description of {', '.join(others)}: only rows tell of it"] if others else []


def lines(labels: Sequence[str], descriptions: Descriptions) -> list[str]:
    """The texts whose features `described_head` needs."""
    own = [one for label in labels for one in descriptions.get(label, ())]
    return [template.format(one) for one in own for template in TEMPLATES]


def described_head(
    labels: Sequence[str], descriptions: Descriptions, features: Array, length: float | None = None
) -> Head:
    """A head whose logits are the cosines of texts and descriptions times `_SHARPNESS`.

    Args:
        labels: the task's labels. A label without a description is as close to every text as the described labels are
            on average.
        descriptions: descriptions of at least two of the labels.
        features: features of the `lines`.
        length: average length of the features of a text; by default that of `features`.

    Shape:
        features: [lines, hidden]
    """
    found, prototypes = iter(features.astype(np.float64)), {}
    for place, label in enumerate(labels):
        own = [next(found) for _ in range(len(descriptions.get(label, ())) * len(TEMPLATES))]
        if own:
            prototypes[place] = unit_length(unit_length(np.stack(own)).mean(axis=0))
    near = np.stack([*prototypes.values()])
    weight = np.zeros((len(labels), features.shape[1]))
    weight[[*prototypes]] = near - near.mean(axis=0)
    usual = float(np.linalg.norm(features, axis=1).mean()) if length is None else length
    return Head(weight * _SHARPNESS / max(usual, 1e-9), np.zeros(len(labels)))


def _has_words(listed: Sequence[str]) -> bool:
    return bool(listed) and all(one.strip() for one in listed)
