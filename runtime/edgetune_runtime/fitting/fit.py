"""Fit a task to labelled texts with the engine that will answer: a head on its features, in its precision."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune_runtime import contract, files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.balance import Spread, check_class_weight, row_weights
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.class_weight import NONE, ClassWeight, class_weight_of
from edgetune_runtime.fitting.describe import About, about_labels, described_head, lines, undescribed
from edgetune_runtime.fitting.descriptions import NAMES, Describing
from edgetune_runtime.fitting.draft import fitted_draft, new_draft
from edgetune_runtime.fitting.examples import Examples
from edgetune_runtime.fitting.finish import finished
from edgetune_runtime.fitting.head import fit_head
from edgetune_runtime.fitting.join import trust_of, with_descriptions
from edgetune_runtime.fitting.label_set import label_set
from edgetune_runtime.fitting.linear import FIT_METHOD, head_tensors
from edgetune_runtime.fitting.rows import LabelledRows, labelled_rows
from edgetune_runtime.kinds import Figures, Kind, Read
from edgetune_runtime.parts import HEAD
from edgetune_runtime.task import Task

if TYPE_CHECKING:
    from edgetune_runtime.engine import Engine


@dataclass(frozen=True, repr=False)
class FitReport:
    """The result of a fit.

    Attributes:
        task: the task.
        cross_validated: quality in cross-validation; `None` if no row could be held out.
        judged: whether each text could be held out. Shape: [texts].
        reads: these texts as they were read.
        held_out: logits of these texts, from heads that were fitted without them. Shape: for each [labels]; if the kind
            has a `reading`, [pieces, rows of the head].
        strength: the chosen inverse penalty on the squared weight.
        description_share: share of the head that comes from descriptions, from 0 to 1; 0 without descriptions.
        about: the label descriptions that were used, or the labels' own names; `None` for neither.
        precision: the precision of the features.
        rows: number of rows.
        remarks: what people should know about these rows, one line each.
        seconds: duration of the fit.
    """

    task: Task
    cross_validated: Figures | None
    judged: Array
    reads: Sequence[Read]
    held_out: Sequence[Array]
    strength: float
    description_share: float
    about: About | None
    precision: str
    rows: int
    remarks: list[str]
    seconds: float

    def __repr__(self) -> str:
        measured = {} if self.cross_validated is None else self.cross_validated.values
        shown = ", ".join(f"{figure} {value:.3f}" for figure, value in measured.items()) or "nothing"
        return f"<FitReport: task {self.task.name}, {self.precision}, {self.rows:,} rows, cross-validated {shown}>"


def fit(
    engine: Engine,
    texts: Iterable[Any],
    labels: Iterable[Any],
    name: str,
    *,
    kind: Kind | str | None = None,
    class_weight: ClassWeight = NONE,
    descriptions: Describing = NAMES,
    from_task: Task | None = None,
    pooling: str | None = None,
    template: str = contract.TEXT_SLOT,
    max_length: int = contract.DEFAULT_MAX_LENGTH,
    long_texts: str = contract.CUT,
    stride: int = 32,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> FitReport:
    """Fit a task, without adding it to the engine. Arguments and errors are those of `Engine.fit`."""
    began = time.monotonic()
    files.check_task_name(name)
    class_weight = class_weight_of(class_weight)
    rows = labelled_rows(texts, labels, kind)
    for place, text in enumerate(rows.texts):
        if not all(part.strip() for part in ((text,) if isinstance(text, str) else text)):
            raise DataError(f"text {place} is empty: add the text, or take the row out")
    named = label_set(rows.targets, [], rows.kind)
    if len(named) > len(rows.targets):
        raise DataError(
            f"{len(rows.targets):,} rows came with {len(named):,} different labels: expected at least one row for each"
        )
    if from_task is None:
        new = new_draft(
            engine.bundle.facts, engine.encoder, name=name, labels=named, kind=rows.kind, pairs=rows.pairs,
            pooling=pooling, template=template, max_length=max_length, long_texts=long_texts, stride=stride,
            method=FIT_METHOD,
        )  # fmt: skip
        new = fitted_draft(engine.encoder, new)
    else:
        new = _beside(from_task, name, named, rows)
    fitting = fitting_of(rows.kind)
    spread = Spread(named, rows.targets, [], rows.kind)
    check_class_weight(class_weight, [spread])
    weights = spread.weights(class_weight)
    about = about_labels(descriptions, new)
    reads, features = engine.read_texts(rows.texts, new, progress)
    examples = Examples.of(rows.kind, rows.targets, reads, named)
    targets = examples.numbers
    by_row = row_weights(weights, targets)
    found = fit_head(fitting, features, targets, new.head_rows, by_row, seed, examples.groups)
    if about is not None:
        described = described_head(named, about.descriptions, engine.features(lines(named, about.descriptions), new))
        found = with_descriptions(fitting, found, described, features, targets, by_row, trust_of(about))
    judged, held_out = found.judged, examples.only(found.judged)
    tensors = {**new.tensors, **head_tensors(found.head)}
    task, cross_validated = dataclasses.replace(new, tensors=tensors), None
    if judged.any():
        task, cross_validated = finished(new, tensors, found.held_out[judged], held_out, "cv")
    return FitReport(
        task=task,
        cross_validated=cross_validated,
        judged=examples.whole(judged),
        reads=held_out.reads,
        held_out=held_out.by_text(found.held_out[judged]),
        strength=found.strength,
        description_share=found.share,
        about=about,
        precision=engine.precision,
        rows=len(rows.texts),
        remarks=[
            *spread.remarks(class_weight != NONE),
            *([] if about is None or about.by_name else undescribed(named, about.descriptions)),
            *examples.remarks,
        ],
        seconds=time.monotonic() - began,
    )


def _beside(origin: Task, name: str, labels: tuple[str, ...], rows: LabelledRows) -> Task:
    """A draft that reads texts as another task does, with the same prompt."""
    if origin.pairs != rows.pairs:
        raise DataError(
            f"task '{origin.name}' reads {'pairs of texts' if origin.pairs else 'single texts'}, and these are "
            f"{'pairs' if rows.pairs else 'single texts'}: expected what it reads"
        )
    if len(contract.reads(origin.pooling)) > 1:
        raise DataError(
            f"no head can be fitted behind task '{origin.name}', whose pooling '{origin.pooling}' reads each word "
            f"twice: expected a task with another pooling"
        )
    parts = {name: tensor for name, tensor in origin.tensors.items() if name not in HEAD.tensors}
    return dataclasses.replace(
        origin, name=name, labels=labels, kind_name=rows.kind.name, tensors=parts, temperature=1.0, thresholds=(),
        metrics={}, unknown={},
    )  # fmt: skip
