"""Training a prompt and heads on a frozen backbone, with `transformers.Trainer`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from edgetune.data.labelled import say
from edgetune.data.sources import Note
from edgetune.training import checkpoints, prompts
from edgetune.training.balance import Spread
from edgetune.training.batches import Collator, texts_of
from edgetune.training.epochs import BEST_STEP, Epoch, Judge, KeepBest, best, epochs
from edgetune.training.objectives import Measure, figures, objective_of
from edgetune.training.options import NONE, TrainingOptions
from edgetune.training.progress import Progress
from edgetune.training.setup import Setup, TaskData, set_up
from edgetune.training.tuner import PromptTuner
from edgetune_export.backbone import Backbone
from edgetune_runtime import files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.kinds import Figures
from edgetune_runtime.parts import HEAD, PARTS
from edgetune_runtime.task import Task

_EVAL_BATCH_SIZE = 64
HEAD_LEARNING_RATE, HEAD_ALONE_LEARNING_RATE = 1e-3, 1e-2


@dataclass(frozen=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        task: the task, of the best epoch.
        trained_parameters: numbers that were trained, of all tasks of the training together.
        backbone_parameters: numbers of the backbone, none of which changed.
        epochs: what development data says of each epoch.
        chosen_by: name of the measure of this task by which the epoch was chosen, such as "accuracy".
        dev: how good the task's answers to the development rows are.
        spread: how its rows are spread over its labels.
        seconds: time that training took.
    """

    task: Task
    trained_parameters: int
    backbone_parameters: int
    epochs: list[Epoch]
    chosen_by: str
    dev: Figures
    spread: Spread
    seconds: float

    @property
    def usual(self) -> str:
        """The figure that epochs are usually chosen by for this kind of answer, such as "accuracy"."""
        return objective_of(self.task.kind).measure.figure


def train(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    options: TrainingOptions,
    resume: bool = False,
    note: Note = say,
) -> list[TrainingReport]:
    """Train tasks and write their files: one prompt that all of them share, and a head each.

    Training runs on a GPU if PyTorch sees one; the backbone comes back to where it was.

    The same arguments give the same files, also when broken off and resumed. The epoch that is kept is the best on
    development data by the measure of the kind of answer (`objectives.OBJECTIVES`), such as accuracy, or by macro-F1
    for a task that has a rare label (`Spread.rare`), the mean of all tasks; among equals the one with the least loss
    there. What the rows are too few or too uneven for is noted.

    Args:
        backbone: the frozen backbone; none of its weights change.
        tasks: one or more. `OUT.checkpoints` beside the first one's file holds an unfinished training.
        options: how to train.
        resume: go on with the unfinished training, if there is one.
        note: receives messages for the user.

    Raises:
        BackboneError: label words were given, and the backbone's weights have no vocabulary.
        DataError: fewer than two labels, or labels in the development data that training has not, or class weights
            for labels that no task has or for tasks of another kind, or scores too large for a task file, or windows
            that do not move on, or a template, label words or a prompt length that do not fit the backbone.
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
    began, device = time.monotonic(), next(backbone.parameters()).device
    setup = set_up(backbone, tasks, options, note)
    for one, spread in zip(tasks, setup.spreads, strict=True):
        for remark in spread.remarks(one.name, options.class_weight != NONE, options.epochs):
            note(remark)
    # The windows behind a first one are rows of their own.
    rows = {
        split: [{**row, "tokens": vars(dataclasses.replace(row["tokens"], more=()))} for row in own]
        for split, own in setup.rows.items()
    }
    stamp = {
        **options.stamp(),
        "backbone_sha256": backbone.facts.sha256,
        "data_sha256": files.sha256(json.dumps([[one.name for one in tasks], rows]).encode()),
    }
    folder = tasks[0].out.with_name(f"{tasks[0].out.name}.checkpoints")
    last = checkpoints.prepare(folder, stamp, resume, note)
    progress = Progress(options.epochs, _names(setup.measures), _names(setup.usual))
    arguments = training_arguments(folder, options, setup.tuner.heaviest_row)
    trainer = new_trainer(setup, arguments, optimizer(setup.tuner, options), progress)
    try:
        trainer.train(resume_from_checkpoint=last)
    except KeyboardInterrupt:
        note(f"\nstopped: `resume` goes on from the last epoch in {folder}")
        raise
    history = epochs(trainer.state.log_history)
    predicted = trainer.predict(setup.rows["dev"])  # by the best epoch; in an order of its own
    logits, (index, targets, text) = np.asarray(predicted.predictions), map(np.asarray, predicted.label_ids)
    setup.tuner.to(device)
    best_epoch = best(history).number
    if not np.isfinite(logits).all():
        shutil.rmtree(folder, ignore_errors=True)  # there is nothing in it to go on from
        raise EdgetuneError(
            "the training diverged: it ended in numbers that are not finite; train with a lower "
            "`learning_rate`, or without `mixed_precision`"
        )
    reports = []
    for place, (draft, measure, spread) in enumerate(zip(setup.drafts, setup.measures, setup.spreads, strict=True)):
        learned = prompts.stored(backbone, setup.tuner.task_tensors(place), draft.max_length)
        own = index == place
        labels = len(draft.labels)  # what is behind fills rows up to the widest task
        own_logits, own_targets = texts_of(logits[own, :labels], targets[own, :labels], text[own])
        task, dev = _finished(draft, learned, own_logits, own_targets, measure, best_epoch)
        reports.append(
            TrainingReport(
                task=task,
                trained_parameters=sum(one.numel() for one in setup.tuner.parameters() if one.requires_grad),
                backbone_parameters=sum(one.numel() for one in backbone.parameters()),
                epochs=history,
                chosen_by=measure.name,
                dev=dev,
                spread=spread,
                seconds=time.monotonic() - began,
            )
        )
    for one, report in zip(tasks, reports, strict=True):
        report.task.save(one.out)
    shutil.rmtree(folder, ignore_errors=True)
    return reports


def _names(measures: Sequence[Measure]) -> str:
    return " and ".join(dict.fromkeys(measure.name for measure in measures))


def new_trainer(
    setup: Setup, arguments: TrainingArguments, optimizer: torch.optim.Optimizer, *callbacks: TrainerCallback
) -> Trainer:
    """A `Trainer` that keeps the best epoch and prints nothing of its own."""
    trainer = Trainer(
        model=setup.tuner,
        args=arguments,
        train_dataset=setup.rows["train"],
        eval_dataset=setup.rows["dev"],
        data_collator=Collator(setup.tuner.backbone.facts, max(len(row["labels"]) for row in setup.rows["train"])),
        compute_metrics=Judge(setup.measures, setup.drafts),
        optimizers=(optimizer, None),
        callbacks=[KeepBest(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _check_files(one: TaskData) -> None:
    files.check_task_name(one.name)
    if not one.out.name or one.out.is_dir():
        raise EdgetuneError(f"{one.out} is a folder: expected the name of a task file, such as {one.name}.safetensors")
    if not one.dev:
        raise DataError("the development data is empty: expected at least one labelled text")


def _length(task: Task) -> int:
    """Tokens of what was trained beside the head."""
    return sum(part.length_of(task.tensors) for part in PARTS.values() if part is not HEAD)


def optimizer(tuner: PromptTuner, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW for prompt and heads, each with its own learning rate."""
    alone = HEAD_LEARNING_RATE if options.prompt_length else HEAD_ALONE_LEARNING_RATE
    rates = {
        tuner.prompt: options.learning_rate or prompts.METHODS[options.method].learning_rate,
        tuner.heads: options.head_learning_rate or alone,
    }
    groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in rates.items()]
    return torch.optim.AdamW(groups, weight_decay=0.0)


def _finished(
    draft: Task, learned: dict[str, Array], logits: Array, targets: Array, measure: Measure, best_epoch: int
) -> tuple[Task, Figures]:
    """The draft with what was learned and what development data says of it, and how good it is on that.

    What is fitted is fitted without class weights: scores are to be calibrated on rows as they come.
    """
    objective = objective_of(draft.kind)
    fitted, fit_metrics = objective.fit(logits, targets)
    task = dataclasses.replace(draft, tensors=learned, **fitted)
    decoded = [objective.decode(row, draft.labels) for row in targets]
    dev = figures(draft.kind, logits, decoded, task)
    usual = {f"dev_{name}": value for name, value in dev.values.items() if name in objective.stored}
    # Only if the epoch was chosen by it, which tells readers of the file so.
    rare = measure is objective.measure_if_rare
    chosen = {f"dev_{measure.figure}": dev.values[measure.figure]} if rare else {}
    metrics = {**usual, **chosen, "dev_rows": len(targets), "best_epoch": best_epoch, **fit_metrics}
    return dataclasses.replace(task, metrics=metrics), dev


def training_arguments(folder: Path, options: TrainingOptions, heaviest_row: float = 1.0) -> TrainingArguments:
    """What `Trainer` is told: an evaluation and a checkpoint each epoch, the best one loaded at the end.

    Gradients are clipped at what the heaviest row counts: at 1, a batch with one row of a rare label would be cut down
    to what a batch without it has, and class weights would do next to nothing.
    """
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=_EVAL_BATCH_SIZE,
        lr_scheduler_type="linear",
        warmup_steps=0.06,
        max_grad_norm=heaviest_row,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=BEST_STEP,
        greater_is_better=True,
        logging_strategy="epoch",
        report_to="none",
        label_names=["task_index", "labels", "text"],
        seed=options.seed,
        data_seed=options.seed,
        bf16=options.mixed_precision == "bf16",
        fp16=options.mixed_precision == "fp16",
        disable_tqdm=True,
        remove_unused_columns=False,  # `Collator` takes what it needs
        dataloader_pin_memory=torch.cuda.is_available(),
    )
