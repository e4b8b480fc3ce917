"""A complete training run: its recipe, the task files, and the notes about it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from edgetune.data.labelled import say
from edgetune.data.sources import Note
from edgetune.data.splits import split_dev
from edgetune.training import checkpoints, methods, prompts
from edgetune.training.batches import DivergedError, examples_of, text_features
from edgetune.training.checkpoints import Unfinished
from edgetune.training.described import Described
from edgetune.training.few import train_few
from edgetune.training.options import ADDED, AUTO, BF16, CONTRASTIVE, EPOCHS, NO, TrainingOptions
from edgetune.training.outcomes import Outcome
from edgetune.training.products import in_bf16, products_in_bf16
from edgetune.training.recipes import passes_of, recipe_of
from edgetune.training.recomputed import layers_recomputed
from edgetune.training.report import TrainingReport, report_of
from edgetune.training.rungs import HEAD_ALONE, Rung
from edgetune.training.seeds import Trial, best_trial, seed_spread
from edgetune.training.setup import Setup, TaskData, fit_first_heads, set_up, set_up_again
from edgetune.training.trainer import train_by_epochs
from edgetune_export import half
from edgetune_export.backbone import Backbone
from edgetune_runtime import files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.class_weight import BALANCED, NONE
from edgetune_runtime.fitting.head import fit_head
from edgetune_runtime.fitting.join import with_descriptions
from edgetune_runtime.fitting.linear import FIT_METHOD, Head, head_tensors
from edgetune_runtime.parts import HEAD
from edgetune_runtime.task import Task


def train(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    options: TrainingOptions,
    resume: bool = False,
    note: Note = say,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[TrainingReport]:
    """Train tasks and write their files: all tasks share one prompt, and each has its own head.

    Training runs on a GPU if PyTorch finds one; afterwards the backbone is moved back. The same arguments give the same
    files, also after an interruption.

    With few rows, training uses pairs of texts (`few.train_few`), otherwise epochs; `recipes.recipe_of` decides. The
    best epoch on development data is kept. It is chosen by the measure of the kind of answer (`by_kind.FITTINGS`), such
    as accuracy, or by macro-F1 for a task with a rare label (`Spread.rare`), as the mean over all tasks; on a tie, the
    lowest loss decides. At the end each task is compared with a head without a prompt, as `edgetune fit` makes it, and
    that head is kept if it is better (`rungs.choose`). Notes report what was kept, and if there are too few or too
    uneven rows.

    With several seeds, all of this is repeated per seed, with the same held-out rows, and the tasks of the best seed by
    the same measure are kept (`seeds.best_trial`). The spread over the seeds is noted, and stored in the metrics of the
    tasks. Only one training run, and the best so far, are in memory at a time.

    Args:
        backbone: the frozen backbone; its weights do not change.
        tasks: one or more tasks. The folder `OUT.checkpoints` next to the first task's file holds an unfinished
            training run. With one seed and the recipe for few rows, nothing is saved.
        options: how to train.
        resume: continue the unfinished training run, if there is one.
        note: receives messages for the user.
        callbacks: additional callbacks for `transformers.Trainer`.

    Raises:
        BackboneError: label words are given, but the backbone's weights have no vocabulary.
        DataError: the data or the options are not valid or do not fit each other or the backbone. For example: fewer
            than two labels, development data with other labels than training data, class weights for unknown labels,
            scores too large for a task file, windows that overlap completely, a backbone that was not loaded as in
            `load_in`, or too few rows to hold some out.
        EdgetuneError: an unfinished training run had another backbone, options or data, a file cannot be written, or
            training diverged.
        TaskError: `init_from` was made for another backbone or has another type of prompt, or the template lacks a slot
            or leaves no room for text.
    """
    for one in tasks:
        _check_files(one)
    if options.load_in == "bf16" and half.has_large_fp32(backbone.model):
        raise DataError(
            f"`load_in` bf16 came with {backbone.name} loaded in fp32: load it with "
            f'edgetune_export.load_backbone(model, load_in="bf16")'
        )
    if backbone.is_rounded:
        options = dataclasses.replace(options, load_in="bf16")  # so that resuming distinguishes it from exact weights
    if len({one.out for one in tasks}) < len(tasks):
        raise EdgetuneError(f"two tasks would go to the same file among {', '.join(str(one.out) for one in tasks)}")
    recipe = recipe_of(tasks, options)
    asked, options = options, methods.chosen(options, recipe, backbone)
    if options.init_from is not None:
        backbone.facts.check(options.init_from)
        options = dataclasses.replace(options, parts=methods.lengths_from(options, options.init_from))
    if not (options.lengths or options.train_head):
        raise DataError("there is nothing to train: a prompt of length 0, and label words that stay as they are")
    _note_choices(tasks, asked, options, recipe, note)
    device = next(backbone.parameters()).device
    try:
        again = layers_recomputed(backbone, options.gradient_checkpointing)
        fast = products_in_bf16(backbone.model, in_bf16(options))
        with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch, again, fast:
            return _train(backbone, tasks, options, recipe, resume, note, callbacks, Path(scratch))
    finally:
        backbone.to(device)  # `Trainer` moves it to the GPU


def _train(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    options: TrainingOptions,
    recipe: str,
    resume: bool,
    note: Note,
    callbacks: Sequence[TrainerCallback],
    scratch: Path,
) -> list[TrainingReport]:
    began = time.monotonic()
    folder = tasks[0].out.with_name(f"{tasks[0].out.name}.checkpoints")
    resumable = recipe == EPOCHS or options.seeds > 1
    if not resumable:
        if resume and folder.exists():
            raise EdgetuneError(
                f"the unfinished training in {folder} had other options: repeat them, or leave out `resume` to "
                f"begin again with the recipe {CONTRASTIVE}"
            )
        if resume:
            note(f"the recipe {CONTRASTIVE} with one seed keeps nothing to resume: beginning from the start")
        folder, resume = scratch / "training", False
    if recipe == CONTRASTIVE:
        options = _with_weights(tasks[0], options, note)
    else:
        tasks = [_with_dev(one, options, note) for one in tasks]
        options = _with_passes(tasks, options, note)
    alone = _without_prompt(backbone, tasks, options)
    setup = set_up(backbone, tasks, options, note)
    _note_remarks(setup, options, options.passes if recipe == EPOCHS else 0, note)
    options = _with_precision(options, note)
    unfinished = checkpoints.prepare(folder, _stamp(setup, tasks, options), resume, note)
    try:
        reports = _train_with_seeds(setup, alone, tasks, options, recipe, unfinished, note, callbacks)
    except DivergedError:
        unfinished.discard()  # there is nothing to continue from
        raise
    except KeyboardInterrupt:
        if resumable:
            note(f"\nstopped: `resume` goes on from the last {'epoch' if recipe == EPOCHS else 'seed'} in {folder}")
        raise
    for one, report in zip(tasks, reports, strict=True):
        report.task.save(one.out)
    unfinished.discard()
    return [dataclasses.replace(report, seconds=time.monotonic() - began) for report in reports]


def _train_with_seeds(
    setup: Setup,
    alone: Setup | None,
    tasks: Sequence[TaskData],
    options: TrainingOptions,
    recipe: str,
    unfinished: Unfinished,
    note: Note,
    callbacks: Sequence[TrainerCallback],
) -> list[TrainingReport]:
    """Train with each unfinished seed. Returns the reports of the best seed's tasks.

    Args:
        setup: the setup for the first seed.
        alone: the tasks without a prompt, if they should be compared.
    """
    backbone = setup.tuner.backbone
    home = next(backbone.parameters()).device
    lone: list[tuple[Rung, Array | None]] | None = None
    kept: list[TrainingReport] = []
    trials: list[Trial] = []
    for number, seed in enumerate(range(options.seed, options.seed + options.seeds), 1):
        title = f"seed {number} of {options.seeds}" if options.seeds > 1 else ""
        outcome = unfinished.outcome(seed, setup.drafts)
        if title:
            note(f"{title} (`seed` {seed}){'' if outcome is None else ': finished before'}")
        if outcome is None:
            own_options = dataclasses.replace(options, seed=seed)
            if number > 1:
                backbone.to(home)
                setup = set_up_again(setup, own_options)
            outcome = _train_once(setup, own_options, recipe, unfinished, callbacks, title)
            unfinished.finish(seed, outcome)
        if lone is None and alone is not None:
            alone.tuner.to(next(backbone.parameters()).device)
            lone = [_head_alone(alone, place, options) for place in range(len(tasks))]
        reports = [
            report_of(setup, place, one, outcome, None if lone is None else lone[place], recipe)
            for place, one in enumerate(tasks)
        ]
        trials.append(_trial(seed, reports))
        if best_trial(trials).seed == seed:
            kept = reports
    return [_with_seeds(report, place, trials, note) for place, report in enumerate(kept)]


def _train_once(
    setup: Setup,
    options: TrainingOptions,
    recipe: str,
    unfinished: Unfinished,
    callbacks: Sequence[TrainerCallback],
    title: str,
) -> Outcome:
    """Train with one seed, from its checkpoint if there is one."""
    folder = unfinished.of_seed(options.seed)
    if recipe == CONTRASTIVE:
        return Outcome([train_few(setup, options, folder, callbacks)], [])
    last = unfinished.checkpoint(options.seed)
    if last is None:
        fit_first_heads(setup, options)
    history = train_by_epochs(setup, options, folder, last, callbacks, title)
    return Outcome([[_trained(setup, place)] for place in range(len(setup.drafts))], history)


def _trial(seed: int, reports: Sequence[TrainingReport]) -> Trial:
    figures = [
        None if report.figures is None else report.figures.values[report.spread.measure.figure] for report in reports
    ]
    return Trial(seed, tuple(figures), tuple(report.loss for report in reports))


def _with_seeds(report: TrainingReport, place: int, trials: Sequence[Trial], note: Note) -> TrainingReport:
    """The report of the task at index `place`, with the results of all seeds."""
    found = seed_spread(trials, place, report.spread.measure.figure, report.judged_by)
    if found is None:
        return report
    note(f"{report.task.name}: {found}")
    task = dataclasses.replace(report.task, metrics={**report.task.metrics, **found.metrics})
    return dataclasses.replace(report, task=task, seeds=found)


def _note_choices(
    tasks: Sequence[TaskData], asked: TrainingOptions, options: TrainingOptions, recipe: str, note: Note
) -> None:
    """Note the choices that the user did not make."""
    left_open = {"recipe": asked.recipe == AUTO, "method": asked.method == AUTO and asked.parts is None}
    values = {"recipe": recipe, "method": options.title if options.lengths else "a head alone"}
    found = [name for name, is_open in left_open.items() if is_open]
    if found:
        rows = sum(len(one.train) for one in tasks)
        said = ", ".join(f"{name} {values[name]}" for name in found)
        override = "`recipe` and `method` override" if len(found) > 1 else f"`{found[0]}` overrides"
        note(f"{rows:,} training rows: {said} ({override})")


def _with_weights(one: TaskData, options: TrainingOptions, note: Note) -> TrainingOptions:
    """The options, with balanced class weights if a label is rare and the user set none."""
    targets = [row.target for row in one.train]
    rare = Spread(one.kind.labels_of(targets), targets, [], one.kind).rare
    if not rare or options.class_weight != NONE:
        return options
    note(f"{one.name}: all labels count the same in training, since there are few rows of {', '.join(rare[:4])}")
    return dataclasses.replace(options, class_weight=BALANCED)


def _with_dev(one: TaskData, options: TrainingOptions, note: Note) -> TaskData:
    """The task with development rows; if it has none, some of its rows are held out."""
    if one.dev:
        return one
    train, dev = split_dev(one.train, options.seed, one.kind)
    note(f"no `dev`: {len(dev)} of {len(one.train)} rows are held out to choose the best epoch")
    return dataclasses.replace(one, train=train, dev=dev)


def _with_precision(options: TrainingOptions, note: Note) -> TrainingOptions:
    """The options with a mixed precision, so that a training run does not continue with another one on another CPU."""
    if options.mixed_precision != AUTO:
        return options
    fast = in_bf16(options)
    if fast:
        note("training multiplies in bf16, which this CPU is faster with (`mixed_precision` no: fp32)")
    return dataclasses.replace(options, mixed_precision=BF16 if fast else NO)


def _with_passes(tasks: Sequence[TaskData], options: TrainingOptions, note: Note) -> TrainingOptions:
    """The options with a number of epochs."""
    passes = passes_of(options, sum(len(one.train) for one in tasks))
    if passes > options.passes:
        note(f"rows are few for {options.passes} epochs: {passes} epochs (`epochs` overrides)")
    return dataclasses.replace(options, epochs=passes)


def _note_remarks(setup: Setup, options: TrainingOptions, epochs: int, note: Note) -> None:
    for draft, spread in zip(setup.drafts, setup.spreads, strict=True):
        for remark in spread.remarks(options.class_weight != NONE, epochs):
            note(f"{draft.name}: {remark}")


def _stamp(setup: Setup, tasks: Sequence[TaskData], options: TrainingOptions) -> dict[str, Any]:
    """The settings that identify this training run."""
    read = attrgetter("ids", "type_ids", "spans")
    rows = {
        split: [[*read(row["tokens"]), row["labels"].tolist(), row["task_index"], row["text"]] for row in own]
        for split, own in setup.rows.items()
    }
    data = json.dumps([[one.name for one in tasks], rows]).encode()
    return {
        **options.stamp(),
        "backbone_sha256": setup.tuner.backbone.facts.sha256,
        "data_sha256": files.sha256(data),
    }


def _trained(setup: Setup, place: int) -> Rung:
    """One task after training in epochs, with logits for its development rows."""
    draft, tuner = setup.drafts[place], setup.tuner
    tensors = tuner.task_tensors(place)
    head = Head(*(tensors[name].detach().cpu().numpy() for name in HEAD.tensors))
    logits = head.logits(text_features(tuner, setup.own("dev", place)))
    return Rung(_title(tuner.parts, draft), draft, prompts.stored(tuner.backbone, tensors, draft.max_length), logits)


def _title(parts: methods.TrainedParts, draft: Task) -> str:
    """The name of the trained parts for people."""
    if parts.is_empty:
        return "trained head"
    return draft.method if parts.each.keys() & set(ADDED) else "prompt"


def _without_prompt(backbone: Backbone, tasks: Sequence[TaskData], options: TrainingOptions) -> Setup | None:
    """The tasks without a prompt, for comparison; `None` if the trained parts are kept in any case."""
    if options.keep_prompt or not options.train_head:
        return None
    plain = dataclasses.replace(options, parts={}, init="data", init_from=None, label_words=None)
    return set_up(backbone, tasks, plain, lambda _: None)


def _head_alone(alone: Setup, place: int, options: TrainingOptions) -> tuple[Rung, Array | None]:
    """A task without a prompt, as `edgetune fit` makes it, and which training rows it can judge.

    Shape:
        judged: [training rows], or `None` if there are development rows.
    """
    draft, rows = dataclasses.replace(alone.drafts[place], tensors={}, method=FIT_METHOD), alone.own("train", place)
    examples, dev = examples_of(draft.kind, rows), alone.own("dev", place)
    targets = examples.numbers
    weights = alone.row_weights(place, targets)
    features = text_features(alone.tuner, rows)
    fitting = fitting_of(draft.kind)
    found = fit_head(fitting, features, targets, draft.head_rows, weights, options.seed, examples.groups)
    about = alone.about[place]
    if about is not None:
        described = Described(alone, place, about)
        found = with_descriptions(fitting, found, described.head(), features, targets, weights, described.trust)
    logits = found.head.logits(text_features(alone.tuner, dev)) if dev else found.held_out
    return Rung(HEAD_ALONE, draft, head_tensors(found.head), logits), None if dev else found.judged


def _check_files(one: TaskData) -> None:
    files.check_task_name(one.name)
    if not one.out.name or one.out.is_dir():
        raise EdgetuneError(f"{one.out} is a folder: expected the name of a task file, such as {one.name}.safetensors")
