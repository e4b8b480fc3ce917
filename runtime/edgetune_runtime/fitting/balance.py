"""How unevenly labels are spread over rows: remarks about it, and the class weights that compensate for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.by_kind import FITTINGS, Measure, fitting_of
from edgetune_runtime.fitting.class_weight import BALANCED, NONE, ClassWeight
from edgetune_runtime.kinds import Kind, Target
from edgetune_runtime.kinds.single_label import SINGLE_LABEL

RARE_SHARE = 0.2
"""A label is rare if it has fewer training rows than this times the even share, rows / labels."""

FEW_TRAINING_ROWS = 8
"""A label with fewer rows than this teaches little."""

FEW_DEV_ROWS = 30
"""With fewer rows than this, a single answer changes accuracy by more than three points."""

FEW_DEV_ROWS_OF_A_RARE_LABEL = 5

_MOST_NAMED = 4


class Spread:
    """The number of rows of each of a task's labels.

    Args:
        labels: the task's labels; each has at least one training row.
        train: targets of the training rows.
        dev: targets of the development rows, which choose the epoch.
        kind: the kind of answer.
    """

    def __init__(
        self,
        labels: Sequence[str],
        train: Sequence[Target],
        dev: Sequence[Target],
        kind: Kind = SINGLE_LABEL,
    ) -> None:
        self.kind = kind
        self.labels = tuple(labels)
        counts = [Counter(label for target in targets for label in kind.named(target)) for targets in (train, dev)]
        self.train, self.dev = ({label: count[label] for label in self.labels} for count in counts)
        self.rows, self.dev_rows = len(train), len(dev)

    @property
    def rare(self) -> list[str]:
        """Labels with few training rows compared with the others (`RARE_SHARE`), rarest first.

        Empty if the kind has no measure for rare labels.
        """
        if fitting_of(self.kind).measure_if_rare is None:
            return []
        even = sum(self.train.values()) / len(self.labels)
        return self._ascending(label for label, count in self.train.items() if count < RARE_SHARE * even)

    @property
    def measure(self) -> Measure:
        """The measure that chooses the epoch."""
        fitting = fitting_of(self.kind)
        if fitting.measure_if_rare is not None and self.rare:
            return fitting.measure_if_rare
        return fitting.measure

    def weights(self, wanted: ClassWeight) -> Array | None:
        """Weight of a training row of each label; 1 on average over the rows, so that learning rates mean the same.

        "balanced" gives the same weights as scikit-learn's `compute_class_weight("balanced")`: rows / (labels · rows of
        the label). `None` if all rows count the same.

        Shape:
            output: [labels]

        Raises:
            DataError: a weight is not a finite number above 0, or `wanted` is an unknown word.
        """
        if wanted == NONE:
            return None
        if not fitting_of(self.kind).weighs_classes:
            weighed = ", ".join(name for name, fitting in FITTINGS.items() if fitting.weighs_classes)
            raise DataError(
                f"class weights came for a task of the kind '{self.kind.name}': expected none; they are for "
                f"{weighed} tasks"
            )
        counts = np.array([self.train[label] for label in self.labels], np.float64)
        if isinstance(wanted, str):
            if wanted != BALANCED:
                raise DataError(f"the class weight is '{wanted}': expected {BALANCED}, {NONE}, or a number for labels")
            return counts.sum() / (len(counts) * counts)
        given = np.array([wanted.get(label, 1.0) for label in self.labels], np.float64)
        if not (np.isfinite(given).all() and (given > 0).all()):
            raise DataError(f"class weights are {dict(wanted)!r:.200}: expected finite numbers above 0")
        return given * counts.sum() / (given * counts).sum()

    def remarks(self, weighted: bool, epochs: int = 0) -> list[str]:
        """What people should know about these rows before they trust the trained task; one line each.

        Args:
            weighted: whether class weights are used.
            epochs: number of epochs that development rows choose from; 0 if no epoch is chosen.
        """
        rare, rows, dev_rows = self.rare, self.rows, self.dev_rows
        found = []
        if rare:
            chosen = f": the epoch is chosen by {self.measure.name}" if epochs else ""
            hint = "" if weighted else "; try `class_weight` balanced"
            found.append(
                f"the classes are uneven: {self._counted(rare, self.train)} of {rows:,} training rows, where an even "
                f"share is {rows / len(self.labels):,.0f}{chosen}{hint}"
            )
        few = self._ascending(
            # If a kind has no labels in its data, its one label has no rows.
            label
            for label, count in self.train.items()
            if 0 < count < FEW_TRAINING_ROWS and label not in rare
        )
        if few:
            found.append(
                f"{self._counted(few, self.train)} of {rows:,} training rows: a label with fewer than "
                f"{FEW_TRAINING_ROWS} teaches little; add rows"
            )
        scarce = self._ascending(label for label in rare if self.dev[label] < FEW_DEV_ROWS_OF_A_RARE_LABEL)
        coarse = "choose the epoch coarsely; name more with `dev`"
        if epochs > 1 and scarce:
            found.append(f"{self._counted(scarce, self.dev)} of {dev_rows:,} development rows, which {coarse}")
        elif epochs > 1 and dev_rows < FEW_DEV_ROWS:
            measure = fitting_of(self.kind).measure.name
            each = f" ({100 / dev_rows:.1f} points of accuracy each)" if measure == "accuracy" else ""
            found.append(f"{dev_rows:,} development rows{each} {coarse}")
        return found

    def _counted(self, labels: Sequence[str], counts: Mapping[str, int]) -> str:
        """`fraud has 3`, `fraud has 3, abuse 5`; of many labels the rest is given as a number."""
        first, *others = [f"{label} {{}}{counts[label]:,}" for label in labels[:_MOST_NAMED]]
        rest = len(labels) - _MOST_NAMED
        more = [f"and {rest:,} more labels about as few"] if rest > 0 else []
        return ", ".join([first.format("has "), *(other.format("") for other in others), *more])

    def _ascending(self, labels: Iterable[str]) -> list[str]:
        return sorted(labels, key=lambda label: (self.train[label], label))


def row_weights(weights: Array | None, targets: Array) -> Array | None:
    """Weight of each row, given the weight of each label; with `None` all rows count the same.

    Shape:
        weights: [labels]
        targets: [rows, numbers]; the first number is the label's index
        output: [rows]
    """
    return None if weights is None else weights[targets[:, 0].astype(np.int64)]


def check_class_weight(wanted: ClassWeight, spreads: Sequence[Spread]) -> None:
    """Raise `DataError` unless each label with a weight is a label of some task."""
    known = {label for spread in spreads for label in spread.labels}
    unknown = [] if isinstance(wanted, str) else sorted(set(wanted) - known)
    if unknown:
        raise DataError(
            f"there are class weights for {', '.join(unknown)}, but the labels are {', '.join(sorted(known))}: "
            f"write the label as the data has it"
        )
