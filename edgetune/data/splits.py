"""Hold out development data from labelled texts."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

from edgetune.data.labelled import LabelledText
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Kind

DEV_SHARE = 0.1


def split_dev(rows: Sequence[LabelledText], seed: int, kind: Kind) -> tuple[list[LabelledText], list[LabelledText]]:
    """Hold out a tenth of the rows as development data. Every label stays in training.

    Args:
        rows: labelled texts.
        seed: the same seed holds out the same rows.
        kind: the kind of their targets. With one label per text, a tenth of each label's rows is held out, and at least
            one if there are two. With several labels or entities, the same as far as possible, rare labels first. With
            scores, a tenth that is spread evenly over the scores.

    Raises:
        DataError: there are too few rows.
    """
    target = type(rows[0].target) if rows else str
    held_out = _DRAWS[target](rows, random.Random(seed), kind)
    if not held_out:
        raise DataError(
            f"{len(rows)} rows{' with a label each' * (target is str)} are too few to hold out development data: add "
            f"rows, or name some with `dev`"
        )
    train = [row for place, row in enumerate(rows) if place not in held_out]
    return train, [rows[place] for place in sorted(held_out)]


def _draw_by_label(rows: Sequence[LabelledText], generator: random.Random, kind: Kind) -> set[int]:
    by_label: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_label[str(row.target)].append(place)
    held_out: set[int] = set()
    for label in sorted(by_label):
        places = by_label[label]
        if len(places) > 1:
            held_out.update(generator.sample(places, _tenth(len(places))))
    return held_out


def _draw_by_labels(rows: Sequence[LabelledText], generator: random.Random, kind: Kind) -> set[int]:
    """Draw rows that contain about a tenth of each label's rows; rare labels choose first.

    This is the iterative stratification of Sechidis et al. (2011) for two parts, of which the second is the remainder.
    Rows whose labels are all still needed are preferred. A label's last training row is never held out.
    """
    own = [kind.named(row.target) for row in rows]
    named = [labels or ("",) for labels in own]  # "no label" counts as a label
    by_label: dict[str, list[int]] = defaultdict(list)
    for place, labels in enumerate(named):
        for label in labels:
            by_label[label].append(place)
    room = {label: len(places) - 1 for label, places in by_label.items()}
    wanted = {label: _tenth(len(places)) if len(places) > 1 else 0 for label, places in by_label.items()}
    held_out: set[int] = set()
    for label in sorted(by_label, key=lambda label: (len(by_label[label]), label)):
        places = generator.sample(by_label[label], len(by_label[label]))
        for limit in (wanted, room):
            for place in places:
                if wanted[label] <= 0:
                    break
                if place not in held_out and all(limit[other] > 0 and room[other] > 0 for other in named[place]):
                    held_out.add(place)
                    for other in named[place]:
                        wanted[other] -= 1
                        room[other] -= 1
    return held_out


def _draw_over_scores(rows: Sequence[LabelledText], generator: random.Random, kind: Kind) -> set[int]:
    """Split the sorted scores into equal stretches, and draw one row from each."""
    if len(rows) < 2:
        return set()
    ordered = sorted(range(len(rows)), key=lambda place: (rows[place].target, place))
    parts = _tenth(len(rows))
    ends = [len(rows) * part // parts for part in range(parts + 1)]
    return {generator.choice(ordered[start:stop]) for start, stop in pairwise(ends)}


def _tenth(number: int) -> int:
    return max(1, round(number * DEV_SHARE))


_DRAWS: dict[type, Callable[[Sequence[LabelledText], random.Random, Kind], set[int]]] = {
    str: _draw_by_label,
    tuple: _draw_by_labels,
    float: _draw_over_scores,
}
"""Type of a target → how rows are drawn."""
