"""Labelled texts for training: files, or a data set of the Hugging Face hub."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetune_runtime import strict
from edgetune_runtime.errors import DataError, MissingPackageError
from edgetune_runtime.rows import LABEL_COLUMN, TEXT_COLUMN, LabelledText, labelled, read_labelled
from edgetune_runtime.task import LONGEST_LABEL, MOST_LABELS

DEV_SHARE = 0.1


def read_data(source: str, text_column: str = TEXT_COLUMN, label_column: str = LABEL_COLUMN) -> list[LabelledText]:
    """Read labelled texts.

    Args:
        source: a `.jsonl` or `.csv` file, or `NAME[:SPLIT]`, a data set of the hub or a folder that holds one
            (the split is "train" where none is named).
        text_column: name of the column with the texts.
        label_column: name of the column with the labels.

    Raises:
        DataError: there is no such data, or it lacks a column or rows.
        MissingPackageError: a data set was named and `datasets` is not installed.
    """
    path = Path(source)
    if path.is_file() or path.suffix in (".jsonl", ".json", ".ndjson", ".csv"):
        return read_labelled(path, text_column, label_column)
    return _read_data_set(source, text_column, label_column)


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
    unknown = sorted({row.label for row in dev} - set(labels))
    if unknown:
        raise DataError(
            f"the development data has labels that the training data has not: {', '.join(unknown)}; "
            f"training has {', '.join(labels)}"
        )
    return tuple(labels)


def _read_data_set(source: str, text_column: str, label_column: str) -> list[LabelledText]:
    try:
        import datasets
    except ImportError as error:
        if not Path(source.partition(":")[0]).exists() and "/" not in source:
            raise DataError(
                f"there is no file {source}: expected a .jsonl or .csv file, or a data set of the hub "
                f"(for which: pip install 'edgetune[hub]')"
            ) from error
        raise MissingPackageError("datasets", "hub") from error
    name, _, split = source.partition(":")
    try:
        loaded = datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"the data {source} cannot be read ({reason}): expected a .jsonl or .csv file, or a data set of "
            f"the hub as NAME[:SPLIT]"
        ) from error
    names = getattr(loaded.features.get(label_column), "names", None)

    def record(row: dict[str, Any]) -> dict[str, Any]:
        label = row.get(label_column)
        if not names or not isinstance(label, int):
            return row
        if not 0 <= label < len(names):
            raise DataError(
                f"{source} has a row with the label {label}, which means unlabelled: choose a labelled split, as "
                f"NAME:SPLIT"
            )
        return {**row, label_column: names[label]}

    rows = [
        labelled(record(row), f"{source}, row {place}", text_column, label_column) for place, row in enumerate(loaded)
    ]
    if not rows:
        raise DataError(f"{source} has no rows: expected one labelled text a row")
    return rows
