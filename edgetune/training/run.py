"""One training, whole: its recipe, the task files, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from edgetune.data.labelled import say
from edgetune.data.sources import Note
from edgetune.data.splits import split_dev
from edgetune.evaluation import Evaluation
from edgetune.training import checkpoints, prompts
from edgetune.training.batches import DivergedError, text_features, text_targets
from edgetune.training.described import Described
from edgetune.training.epochs import Epoch, best
from edgetune.training.few import train_few
from edgetune.training.options import AUTO, CONTRASTIVE, METHODS, TrainingOptions
from edgetune.training.recipes import recipe_of
from edgetune.training.rungs import HEAD_ALONE, Rung, choose
from edgetune.training.setup import Setup, TaskData, fit_first_heads, set_up
from edgetune.training.trainer import train_by_epochs
from edgetune_export.backbone import Backbone
from edgetune_runtime import files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.class_weight import BALANCED, NONE
from edgetune_runtime.fitting.finish import finished
from edgetune_runtime.fitting.head import can_be_judged, fit_head
from edgetune_runtime.fitting.join import with_descriptions
from edgetune_runtime.fitting.linear import FIT_METHOD, Head, head_tensors
from edgetune_runtime.kinds import Figures
from edgetune_runtime.parts import HEAD, PARTS
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        task: the task that was kept.
        recipe: how it was trained, "contrastive" or "epochs".
        rung: what was kept: `HEAD_ALONE`, or which head of the trained prompt.
        errors: what could have been kept → its mean error on the rows that it was judged by: the share of wrong answers
            or, if an answer is not one label, the loss.
        trained_parameters: numbers that were trained, of all tasks of the training together; of a head alone, its own.
        backbone_parameters: numbers of the backbone, none of which changed.
        epochs: what development data says of each epoch; none if it was not trained so.
        chosen_by: name of the measure of this task by which the epoch was chosen, such as "accuracy".
        judged_by: what it was judged by: "dev" for development rows, "cv" for training rows held out in turn.
        evaluation: its answers to these, and how good they are; `None` if each label had one row, so that none was held
            out.
        spread: how its rows are spread over its labels.
        seconds: time that training took.
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
    spread: Spread
    seconds: float

    @property
    def figures(self) -> Figures | None:
        """How good the task's answers to the rows are that it was judged by."""
        return None if self.evaluation is None else self.evaluation.figures

    @property
    def usual(self) -> str:
        """The figure that epochs are usually chosen by for this kind of answer, such as "accuracy"."""
        return fitting_of(self.task.kind).measure.figure


def train(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    options: TrainingOptions,
    resume: bool = False,
    note: Note = say,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[TrainingReport]:
    """Train tasks and write their files: one prompt that all of them share, and a head each.

    Training runs on a GPU if PyTorch sees one; the backbone comes back to where it was. The same arguments give the
    same files, also when broken off and resumed.

    Few rows train by pairs of texts (`few.train_few`), more of them in epochs; `recipes.recipe_of` decides. The epoch
    that is kept is the best on development data by the measure of the kind of answer (`by_kind.FITTINGS`), such as
    accuracy, or by macro-F1 for a task that has a rare label (`Spread.rare`), the mean of all tasks; among equals the
    one with the least loss there. In the end each task is compared with what `edgetune fit` gives, a head without a
    prompt, and that is kept if it is better (`rungs.choose`). What the rows are too few or too uneven for, and what was
    kept, is noted.

    Args:
        backbone: the frozen backbone; none of its weights change.
        tasks: one or more. `OUT.checkpoints` beside the first one's file holds an unfinished training.
        options: how to train.
        resume: go on with the unfinished training, if there is one.
        note: receives messages for the user.
        callbacks: more of `transformers.Trainer`'s callbacks.

    Raises:
        BackboneError: label words were given, and the backbone's weights have no vocabulary.
        DataError: fewer than two labels, or labels in the development data that training has not, or class weights
            for labels that no task has or for tasks of another kind, or scores too large for a task file, or windows
            that do not move on, or a template, label words or a prompt length that do not fit the backbone, or a recipe
            that cannot train this, or too few rows to hold some out.
        EdgetuneError: an unfinished training is to be resumed with another backbone, options or data, or a file
            cannot be written, or the training diverged.
        TaskError: `init_from` is a task of another backbone or of the other kind of prompt, or the template lacks a
            slot or leaves no room for text.
    """
    for one in tasks:
        _check_files(one)
    if len({one.out for one in tasks}) < len(tasks):
        raise EdgetuneError(f"two tasks would go to the same file among {', '.join(str(one.out) for one in tasks)}")
    if options.init_from is not None:
        options = dataclasses.replace(options, prompt_length=_length(options.init_from))
    if not (options.prompt_length or options.train_head):
        raise DataError("there is nothing to train: a prompt of length 0, and label words that stay as they are")
    recipe = recipe_of(tasks, options)
    device = next(backbone.parameters()).device
    try:
        return _train(backbone, tasks, options, recipe, resume, note, callbacks)
    finally:
        backbone.to(device)  # `Trainer` takes it to the GPU


def _train(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    options: TrainingOptions,
    recipe: str,
    resume: bool,
    note: Note,
    callbacks: Sequence[TrainerCallback],
) -> list[TrainingReport]:
    began = time.monotonic()
    folder = tasks[0].out.with_name(f"{tasks[0].out.name}.checkpoints")
    if options.recipe == AUTO:
        rows = sum(len(one.train) for one in tasks)
        note(f"{rows:,} training rows: recipe {recipe} (`recipe` overrides)")
    if recipe == CONTRASTIVE:
        if resume:
            if folder.exists():
                raise EdgetuneError(
                    f"the unfinished training in {folder} had other options: repeat them, or leave out `resume` to "
                    f"begin again with the recipe {CONTRASTIVE}"
                )
            note(f"the recipe {CONTRASTIVE} keeps nothing to resume: beginning from the start")
        options = _with_weights(tasks[0], options, note)
        alone = _without_prompt(backbone, tasks, options)
        setup, history = set_up(backbone, tasks, options, note), []
        _note_remarks(setup, options, 0, note)
        with tempfile.TemporaryDirectory() as scratch:
            rungs = [train_few(setup, options, Path(scratch), callbacks)]
    else:
        tasks = [_with_dev(one, options, note) for one in tasks]
        alone = _without_prompt(backbone, tasks, options)
        setup = set_up(backbone, tasks, options, note)
        _note_remarks(setup, options, options.epochs, note)
        last = checkpoints.prepare(folder, _stamp(setup, tasks, options), resume, note)
        if last is None:
            fit_first_heads(setup, options)
        history = train_by_epochs(setup, options, folder, last, note, callbacks)
        try:
            rungs = [[_trained(setup, place)] for place in range(len(tasks))]
        except DivergedError:
            shutil.rmtree(folder, ignore_errors=True)  # there is nothing in it to go on from
            raise
    judged: list[Array | None] = [None] * len(tasks)
    if alone is not None:
        alone.tuner.to(next(backbone.parameters()).device)
        for place, own in enumerate(rungs):
            lone, judged[place] = _head_alone(alone, place, options)
            own.append(lone)
    reports = [
        _report(setup, place, own, rungs_of, judged[place], recipe, history, began)
        for place, (own, rungs_of) in enumerate(zip(tasks, rungs, strict=True))
    ]
    for one, report in zip(tasks, reports, strict=True):
        report.task.save(one.out)
    if history:
        shutil.rmtree(folder, ignore_errors=True)
    return reports


def _with_weights(one: TaskData, options: TrainingOptions, note: Note) -> TrainingOptions:
    """The options, with balanced class weights if a label is rare and none were asked for."""
    targets = [row.target for row in one.train]
    rare = Spread(one.kind.labels_of(targets), targets, [], one.kind).rare
    if not rare or options.class_weight != NONE:
        return options
    note(f"{one.name}: all labels count the same in training, since there are few rows of {', '.join(rare[:4])}")
    return dataclasses.replace(options, class_weight=BALANCED)


def _with_dev(one: TaskData, options: TrainingOptions, note: Note) -> TaskData:
    """The task with development rows, held out of its rows if it has none."""
    if one.dev:
        return one
    train, dev = split_dev(one.train, options.seed, one.kind)
    note(f"no `dev`: {len(dev)} of {len(one.train)} rows are held out to choose the best epoch")
    return dataclasses.replace(one, train=train, dev=dev)


def _note_remarks(setup: Setup, options: TrainingOptions, epochs: int, note: Note) -> None:
    for draft, spread in zip(setup.drafts, setup.spreads, strict=True):
        for remark in spread.remarks(options.class_weight != NONE, epochs):
            note(f"{draft.name}: {remark}")


def _stamp(setup: Setup, tasks: Sequence[TaskData], options: TrainingOptions) -> dict[str, Any]:
    """What tells this training from another."""
    # The windows behind a first one are rows of their own.
    rows = {
        split: [{**row, "tokens": vars(dataclasses.replace(row["tokens"], more=()))} for row in own]
        for split, own in setup.rows.items()
    }
    data = json.dumps([[one.name for one in tasks], rows]).encode()
    return {
        **options.stamp(),
        "backbone_sha256": setup.tuner.backbone.facts.sha256,
        "data_sha256": files.sha256(data),
    }


def _trained(setup: Setup, place: int) -> Rung:
    """One task of a training in epochs, with logits for its development rows."""
    draft, tuner = setup.drafts[place], setup.tuner
    tensors = tuner.task_tensors(place)
    head = Head(*(tensors[name].detach().cpu().numpy() for name in HEAD.tensors))
    logits = head.logits(text_features(tuner, setup.own("dev", place)))
    name = "prompt" if any(one.numel() for one in tuner.prompt.parameters()) else "trained head"
    return Rung(name, draft, prompts.stored(tuner.backbone, tensors, draft.max_length), logits)


def _without_prompt(backbone: Backbone, tasks: Sequence[TaskData], options: TrainingOptions) -> Setup | None:
    """The tasks without a prompt, to compare with; `None` if what is trained is kept in any case."""
    if options.keep_prompt or not options.train_head:
        return None
    plain = dataclasses.replace(
        options, method=METHODS[0], prompt_length=0, init="data", init_from=None, label_words=None
    )
    return set_up(backbone, tasks, plain, lambda _: None)


def _head_alone(alone: Setup, place: int, options: TrainingOptions) -> tuple[Rung, Array | None]:
    """A task without a prompt, as `edgetune fit` gives it, and which training rows can be judged by it.

    Shape:
        judged: [training rows], or `None` if there are development rows.
    """
    draft, rows = dataclasses.replace(alone.drafts[place], tensors={}, method=FIT_METHOD), alone.own("train", place)
    targets, dev = text_targets(rows), alone.own("dev", place)
    weights = alone.row_weights(place, targets)
    features = text_features(alone.tuner, rows)
    fitting = fitting_of(draft.kind)
    found = fit_head(fitting, features, targets, len(draft.labels), weights, options.seed)
    if options.descriptions is not None:
        described = Described(alone, options.descriptions).head()
        found = with_descriptions(fitting, found, described, features, targets, weights)
    logits = found.head.logits(text_features(alone.tuner, dev)) if dev else found.held_out
    return Rung(HEAD_ALONE, draft, head_tensors(found.head), logits), None if dev else found.judged


def _report(
    setup: Setup,
    place: int,
    one: TaskData,
    rungs: Sequence[Rung],
    judged: Array | None,
    recipe: str,
    history: list[Epoch],
    began: float,
) -> TrainingReport:
    """What is kept of the rungs of one task."""
    spread, dev = setup.spreads[place], setup.own("dev", place)
    fitting, targets = fitting_of(spread.kind), text_targets(dev or setup.own("train", place))
    if judged is None:
        judged = np.full(len(targets), True) if dev else can_be_judged(fitting, targets)
    own = [dataclasses.replace(rung, logits=rung.logits[judged]) for rung in rungs]
    chosen, errors = choose(own, fitting, targets[judged], setup.row_weights(place, targets[judged]))
    judged_by = "dev" if dev else "cv"
    task, evaluation = dataclasses.replace(chosen.draft, tensors=chosen.tensors), None
    if judged.any():
        task, figures = finished(chosen.draft, chosen.tensors, chosen.logits, targets[judged], judged_by)
        if history and chosen.name != HEAD_ALONE:
            by = f"dev_{spread.measure.figure}"
            chosen_by = {by: figures.values[spread.measure.figure], "best_epoch": best(history).number}
            task = dataclasses.replace(task, metrics={**task.metrics, **chosen_by})
        rows = [row for row, yes in zip(one.dev or one.train, judged, strict=True) if yes]
        evaluation = Evaluation.of_logits(task, rows, chosen.logits, "fp32")
    return TrainingReport(
        task=task,
        recipe=recipe,
        rung=chosen.name,
        errors=errors,
        trained_parameters=task.num_parameters
        if chosen.name == HEAD_ALONE
        else sum(one.numel() for one in setup.tuner.parameters() if one.requires_grad),
        backbone_parameters=sum(one.numel() for one in setup.tuner.backbone.parameters()),
        epochs=history,
        chosen_by=spread.measure.name,
        judged_by=judged_by,
        evaluation=evaluation,
        spread=spread,
        seconds=time.monotonic() - began,
    )


def _check_files(one: TaskData) -> None:
    files.check_task_name(one.name)
    if not one.out.name or one.out.is_dir():
        raise EdgetuneError(f"{one.out} is a folder: expected the name of a task file, such as {one.name}.safetensors")


def _length(task: Task) -> int:
    """Tokens of what was trained beside the head."""
    return sum(part.length_of(task.tensors) for part in PARTS.values() if part is not HEAD)
