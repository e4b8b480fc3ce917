"""The result of training: the task that is kept, the rows that judged it, and its quality."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from edgetune.evaluation import Evaluation
from edgetune.training.batches import examples_of
from edgetune.training.epochs import Epoch, best
from edgetune.training.options import CONTRASTIVE
from edgetune.training.outcomes import Outcome
from edgetune.training.rungs import HEAD_ALONE, Rung, choose
from edgetune.training.seeds import SeedSpread
from edgetune.training.setup import Setup, TaskData
from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import fitting_of, loss_of
from edgetune_runtime.fitting.finish import finished
from edgetune_runtime.fitting.head import can_be_judged
from edgetune_runtime.kinds import Figures
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class TrainingReport:
    """The result of training.

    Attributes:
        task: the task that was kept.
        recipe: the recipe, "contrastive" or "epochs".
        rung: the kept candidate: `HEAD_ALONE`, or a head of the trained prompt.
        errors: candidate → its mean error on the held-out rows: the share of wrong answers or, if an answer is not one
            label, the loss.
        trained_parameters: number of trained parameters, over all tasks of the training run; for only a head, those of
            the head.
        backbone_parameters: number of the backbone's parameters, which are all unchanged.
        epochs: the results of each epoch on development data; empty for other recipes.
        chosen_by: name of the measure that chose this task's epoch, such as "accuracy".
        judged_by: the rows that judged it: "dev" for development rows, "cv" for cross-validation on training rows.
        evaluation: its answers to these rows and their quality; `None` if each label had only one row, so that no row
            was held out.
        loss: the loss of these answers, averaged like the measure; 0 without answers.
        spread: the spread of its rows over its labels.
        seconds: duration of training, with all seeds.
        seeds: the spread over several seeds; `None` with one seed, or if no row was held out.
    """

    task: Task
    recipe: str
    rung: str
    errors: dict[str, float]
    trained_parameters: int
    backbone_parameters: int
    epochs: list[Epoch]
    chosen_by: str
    judged_by: str
    evaluation: Evaluation | None
    loss: float
    spread: Spread
    seconds: float = 0.0
    seeds: SeedSpread | None = None

    @property
    def figures(self) -> Figures | None:
        """The task's figures on the rows that judged it."""
        return None if self.evaluation is None else self.evaluation.figures

    @property
    def usual(self) -> str:
        """The figure that usually chooses epochs for this kind of answer, such as "accuracy"."""
        return fitting_of(self.task.kind).measure.figure


def report_of(
    setup: Setup, place: int, one: TaskData, outcome: Outcome, lone: tuple[Rung, Array | None] | None, recipe: str
) -> TrainingReport:
    """The report for one task after training with one seed.

    Args:
        setup: the setup of the training run.
        place: index of the task.
        one: the task's data.
        outcome: the outcome of training.
        recipe: the recipe.
        lone: a head without a prompt, and which training rows it can judge, if it may be kept.
    """
    spread, dev = setup.spreads[place], setup.own("dev", place)
    fitting, examples = fitting_of(spread.kind), examples_of(spread.kind, dev or setup.own("train", place))
    targets = examples.numbers
    rungs, judged = outcome.rungs[place], None
    if lone is not None:
        rungs, judged = [*rungs, lone[0]], lone[1]
    if judged is None:
        judged = np.full(len(targets), True) if dev else can_be_judged(fitting, targets, examples.groups)
    own = [dataclasses.replace(rung, logits=rung.logits[judged]) for rung in rungs]
    weights = setup.row_weights(place, targets[judged])
    chosen, errors = choose(own, fitting, targets[judged], weights, recipe == CONTRASTIVE)
    judged_by = "dev" if dev else "cv"
    task, evaluation, loss = dataclasses.replace(chosen.draft, tensors=chosen.tensors), None, 0.0
    if judged.any():
        left = examples.only(judged)
        task, figures = finished(chosen.draft, chosen.tensors, chosen.logits, left, judged_by)
        if outcome.history and chosen.name != HEAD_ALONE:
            by = f"dev_{spread.measure.figure}"
            chosen_by = {by: figures.values[spread.measure.figure], "best_epoch": best(outcome.history).number}
            task = dataclasses.replace(task, metrics={**task.metrics, **chosen_by})
        rows = [row for row, yes in zip(one.dev or one.train, examples.whole(judged), strict=True) if yes]
        evaluation = Evaluation.of_logits(task, rows, left.by_text(chosen.logits), left.reads, "fp32")
        loss = loss_of(spread.kind, chosen.logits / task.temperature, targets[judged], spread.measure)
    return TrainingReport(
        task=task,
        recipe=recipe,
        rung=chosen.name,
        errors=errors,
        trained_parameters=task.num_parameters
        if chosen.name == HEAD_ALONE
        else sum(one.numel() for one in setup.tuner.parameters() if one.requires_grad),
        backbone_parameters=sum(one.numel() for one in setup.tuner.backbone.parameters()),
        epochs=outcome.history,
        chosen_by=spread.measure.name,
        judged_by=judged_by,
        evaluation=evaluation,
        loss=loss,
        spread=spread,
    )
