"""What training makes of labelled texts: development data held out, and the set of labels."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from edgetune.data.labelled import LabelledText
from edgetune_runtime import strict
from edgetune_runtime.errors import DataError
from edgetune_runtime.task import LONGEST_LABEL, MOST_LABELS

DEV_SHARE = 0.1


def split_dev(rows: Sequence[LabelledText], seed: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """Hold out a tenth of each label's rows as development data; labels of one row stay in training.

    Raises:
        DataError: no label has the two rows that a split needs.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_label[row.label].append(place)
    held_out: set[int] = set()
    generator = random.Random(seed)
    for label in sorted(by_label):
        places = by_label[label]
        if len(places) > 1:
            held_out.update(generator.sample(places, max(1, round(len(places) * DEV_SHARE))))
    if not held_out:
        raise DataError(
            f"{len(rows)} rows with a label each are too few to hold out development data: add rows, or name "
            f"some with --eval-data"
        )
    train = [row for place, row in enumerate(rows) if place not in held_out]
    return train, [rows[place] for place in sorted(held_out)]


def label_set(train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> tuple[str, ...]:
    """The labels of the training data, sorted.

    Raises:
        DataError: there are fewer than two, more than a task can hold, or one is no text that a task can hold; or
            the development data has others.
    """
    labels = sorted({row.label for row in train})
    if len(labels) < 2:
        raise DataError(f"the training data has only the label '{labels[0]}': expected at least two different labels")
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"the training data has {len(labels):,} different labels: expected at most {MOST_LABELS:,}; name the "
            f"column that has them with --label-column"
        )
    for label in labels:
        try:
            strict.plain_text(label, LONGEST_LABEL)
        except ValueError as error:
            raise DataError(f"the training data has the label {label!r:.60}: {error}; call it otherwise") from error
    bare: dict[str, str] = {}
    for label in labels:
        other = bare.setdefault(label.strip(" \"'"), label)
        if other != label:
            raise DataError(
                f"the training data has the labels {other!r} and {label!r}, which differ only in spaces or quotes: "
                f"write them alike"
            )
    unknown = sorted({row.label for row in dev} - set(labels))
    if unknown:
        raise DataError(
            f"the development data has labels that the training data has not: {', '.join(unknown)}; "
            f"training has {', '.join(labels)}"
        )
    return tuple(labels)
