"""Training a prompt and heads on a frozen backbone, with `transformers.Trainer`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
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
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from edgetune.data.labelled import LabelledText
from edgetune.data.splits import label_set
from edgetune.training import balance, checkpoints, heads, prompts, verbalizer
from edgetune.training.balance import Spread
from edgetune.training.batches import Collator, Rows, encode_rows, texts_of
from edgetune.training.epochs import BEST_STEP, Epoch, Judge, KeepBest, best, epochs
from edgetune.training.objectives import MACRO_F1, Measure, figures, objective_of
from edgetune.training.options import NONE, TrainingOptions
from edgetune.training.progress import Progress
from edgetune.training.tuner import PromptTuner
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract, files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.kinds import Figures, Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task

_EVAL_BATCH_SIZE = 64
HEAD_LEARNING_RATE, HEAD_ALONE_LEARNING_RATE = 1e-3, 1e-2


@dataclass(frozen=True)
class TaskData:
    """A task to train: its name, where it goes, and its rows.

    Attributes:
        name: name of the task.
        out: the task file to write.
        train: texts to learn from.
        dev: texts that choose the best epoch, and then the temperature and the thresholds.
        kind: what an answer is.
        pairs: whether each text is a pair of texts.
    """

    name: str
    out: Path
    train: Sequence[LabelledText]
    dev: Sequence[LabelledText]
    kind: Kind = SINGLE_LABEL
    pairs: bool = False


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
    backbone: Backbone, tasks: Sequence[TaskData], options: TrainingOptions, resume: bool = False
) -> list[TrainingReport]:
    """Train tasks and write their files: one prompt that all of them share, and a head each.

    Training runs on a GPU if PyTorch sees one; the backbone comes back to where it was.

    The same arguments give the same files, also when broken off and resumed. The epoch that is kept is the best on
    development data by the measure of the kind of answer (`objectives.OBJECTIVES`), such as accuracy, or by macro-F1
    for a task that has a rare label (`Spread.rare`), the mean of all tasks; among equals the one with the least loss
    there. What the rows are too few or too uneven for is said on stderr.

    Args:
        backbone: the frozen backbone; none of its weights change.
        tasks: one or more. `OUT.checkpoints` beside the first one's file holds an unfinished training.
        options: how to train.
        resume: go on with the unfinished training, if there is one.

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
    setup = set_up(backbone, tasks, options)
    for one, spread in zip(tasks, setup.spreads, strict=True):
        for remark in spread.remarks(one.name, options.class_weight != NONE, options.epochs):
            print(remark, file=sys.stderr)
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
    last = checkpoints.prepare(folder, stamp, resume)
    chosen_by, usual = (" and ".join(dict.fromkeys(one.name for one in of)) for of in (setup.measures, setup.usual))
    progress = Progress(options.epochs, chosen_by, usual)
    arguments = training_arguments(folder, options, setup.tuner.heaviest_row)
    trainer = new_trainer(setup, arguments, optimizer(setup.tuner, options), progress)
    try:
        trainer.train(resume_from_checkpoint=last)
    except KeyboardInterrupt:
        print(f"\nstopped: --resume goes on from the last epoch in {folder}", file=sys.stderr)
        raise
    history = epochs(trainer.state.log_history)
    predicted = trainer.predict(setup.rows["dev"])  # by the best epoch; in an order of its own
    logits, (index, targets, text) = np.asarray(predicted.predictions), map(np.asarray, predicted.label_ids)
    setup.tuner.to(device)
    best_epoch = best(history).number
    if not np.isfinite(logits).all():
        shutil.rmtree(folder, ignore_errors=True)  # there is nothing in it to go on from
        raise EdgetuneError(
            "the training diverged: it ended in numbers that are not finite; train with a lower --lr, or without "
            "--mixed-precision"
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


@dataclass(frozen=True)
class Setup:
    """What a training begins with.

    Attributes:
        tuner: the module to train.
        drafts: the tasks but for what they will learn.
        spreads: for each task, how its rows are spread over its labels.
        rows: the rows of all tasks, under "train" and "dev", as `Collator` takes them.
    """

    tuner: PromptTuner
    drafts: list[Task]
    spreads: list[Spread]
    rows: dict[str, Rows]

    @property
    def usual(self) -> list[Measure]:
        """For each task, by what the epoch is chosen if no label is rare."""
        return [objective_of(draft.kind).measure for draft in self.drafts]

    @property
    def measures(self) -> list[Measure]:
        """For each task, by what the epoch is chosen."""
        return [MACRO_F1 if spread.rare else own for own, spread in zip(self.usual, self.spreads, strict=True)]


def set_up(backbone: Backbone, tasks: Sequence[TaskData], options: TrainingOptions) -> Setup:
    """Make ready what a training begins with. Raises what `train` does."""
    drafts = [_draft(backbone, one, options) for one in tasks]
    set_seed(options.seed)
    encoded = {
        split: [
            row
            for index, (one, draft) in enumerate(zip(tasks, drafts, strict=True))
            for row in encode_rows(backbone, getattr(one, split), draft, index)
        ]
        for split in ("train", "dev")
    }
    prompt = _beginning(backbone, options, drafts, encoded["train"])
    scales = [objective_of(one.kind).scale([row.target for row in one.train]) for one in tasks]
    new = [
        heads.begin(backbone, draft, _targets(encoded["train"], place), options.label_words, options.init_from, scale)
        for place, (draft, scale) in enumerate(zip(drafts, scales, strict=True))
    ]
    spreads = [Spread(draft.labels, one.train, one.dev, one.kind) for one, draft in zip(tasks, drafts, strict=True)]
    balance.check_class_weight(options.class_weight, spreads)
    weights = [spread.weights(options.class_weight) for spread in spreads]
    heads_to_train = [head.requires_grad_(options.train_head) for head in new]
    return Setup(PromptTuner(backbone, prompt, heads_to_train, drafts, weights, scales), drafts, spreads, encoded)


def _targets(rows: Rows, place: int) -> Array:
    """The targets of one task's rows. Shape: [rows, numbers]."""
    return np.array([row["labels"] for row in rows if row["task_index"] == place])


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
    return task.prompt_length + task.prefix_length


def _draft(backbone: Backbone, one: TaskData, options: TrainingOptions) -> Task:
    """The task but for what it will learn."""
    labels = label_set(one.train, one.dev, one.kind)
    if options.prompt_length >= backbone.max_positions:
        raise DataError(
            f"a prompt of {options.prompt_length} tokens leaves no room for text: {backbone.name} has "
            f"{backbone.max_positions} positions"
        )
    embeddings = np.zeros((options.prompt_length, backbone.sizes.embedding), np.float32)
    feeds_prompt = prompts.METHODS[options.method].prompt is prompts.SoftPrompt
    template = _template(backbone, one, options)
    in_segments = one.pairs and contract.TEXT_PAIR_SLOT not in template and backbone.has_segments
    draft = Task(
        name=one.name,
        labels=labels,
        backbone_sha256=backbone.facts.sha256,
        tensors={contract.PROMPT_EMBEDDINGS: embeddings} if feeds_prompt else {},
        method=options.method,
        base_model=backbone.name,
        pooling=verbalizer.pooling_of(backbone, template, options.pooling, options.label_words, one.pairs),
        position_offset=_position_offset(backbone, options),
        template=template,
        max_length=options.max_length,
        kind_name=one.kind.name,
        pairs=one.pairs,
        long_texts=options.long_texts,
        stride=options.stride if options.long_texts == contract.WINDOWS else 0,
        graph_inputs=(contract.TOKEN_TYPE_IDS,) if in_segments else (),
    )
    draft = backbone.text_encoder.fitted(draft)
    if draft.stride >= draft.max_length:
        raise DataError(
            f"--stride {draft.stride} came for windows of {draft.max_length} tokens, which would not move on: expected "
            f"a lower --stride, or a higher --max-length"
        )
    return draft


def _template(backbone: Backbone, one: TaskData, options: TrainingOptions) -> str:
    """The template; pairs that the tokenizer would join without anything between them are set apart by a line break."""
    plain = one.pairs and options.template == contract.TEXT_SLOT
    if plain and not backbone.text_encoder.separates_pairs:
        return f"{contract.TEXT_SLOT}\n{contract.TEXT_PAIR_SLOT}"
    return options.template


def _position_offset(backbone: Backbone, options: TrainingOptions) -> int:
    if options.positions_behind_prompt:
        return options.prompt_length
    if options.init_from is not None:
        return options.init_from.position_offset
    return backbone.position_offset(options.prompt_length)


def _beginning(
    backbone: Backbone, options: TrainingOptions, drafts: Sequence[Task], rows: Rows
) -> prompts.SoftPrompt | prompts.Prefix:
    if options.init_from is None:
        ids = [row["input_ids"] for row in rows]
        labels = [label for draft in drafts for label in draft.labels]
        return prompts.begin(
            options.method, backbone, options.prompt_length, options.init, ids, labels, options.init_text
        )
    backbone.facts.check(options.init_from)
    return prompts.begin_from(options.method, options.init_from)


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
    chosen = {"dev_macro_f1": dev.values["macro_f1"]} if measure is MACRO_F1 else {}
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
