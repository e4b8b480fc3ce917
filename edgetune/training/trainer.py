"""Training a prompt and heads on a frozen backbone, with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from edgetune.training.batches import BATCH_SIZE, Collator, width_of
from edgetune.training.epochs import BEST_STEP, Epoch, Judge, KeepBest, Patience, epochs
from edgetune.training.options import TrainingOptions
from edgetune.training.products import autocast
from edgetune.training.progress import Progress
from edgetune.training.setup import Setup
from edgetune.training.tuner import PromptTuner
from edgetune_export import half
from edgetune_runtime.fitting.by_kind import Measure

HEAD_LEARNING_RATE, HEAD_ALONE_LEARNING_RATE, HEAD_LEARNING_RATE_OF_ADDED = 1e-3, 1e-2, 2e-3


def train_by_epochs(
    setup: Setup,
    options: TrainingOptions,
    folder: Path,
    last: str | None,
    callbacks: Sequence[TrainerCallback] = (),
    title: str = "",
) -> list[Epoch]:
    """Train the prompt and the heads; those of the best epoch stay.

    Args:
        setup: what the training begins with.
        options: how.
        folder: where its state is kept while it is unfinished.
        last: the checkpoint to go on from, if any.
        callbacks: more of `Trainer`'s.
        title: what stands before each line of the progress.

    Returns:
        What development data says of each epoch.
    """
    arguments = training_arguments(folder, options, setup.tuner.heaviest_row)
    if options.gradient_checkpointing or half.kept(setup.tuner.backbone.model):
        arguments._n_gpu = min(1, arguments.n_gpu)  # copies for several GPUs would have neither
    progress = Progress(options.passes, _names(setup.measures), _names(setup.usual), title)
    patience = [] if options.patience is None else [Patience(options.patience)]
    trainer = new_trainer(setup, arguments, optimizer(setup.tuner, options), progress, *patience, *callbacks)
    trainer.train(resume_from_checkpoint=last)
    return epochs(trainer.state.log_history)


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
        data_collator=Collator(setup.tuner.backbone.facts, width_of(setup.rows["train"])),
        compute_metrics=Judge(setup.measures, setup.drafts),
        optimizers=(optimizer, None),
        callbacks=[KeepBest(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def optimizer(tuner: PromptTuner, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW for parts and heads, each with its own learning rate."""
    if options.adds:
        usual = HEAD_LEARNING_RATE_OF_ADDED
    else:
        usual = HEAD_LEARNING_RATE if options.lengths else HEAD_ALONE_LEARNING_RATE
    parts = tuner.parts.groups(options)
    heads = {
        "params": list(tuner.heads.parameters()),
        "lr": options.head_learning_rate or usual,
        "weight_decay": max((group["weight_decay"] for group in parts), default=0.0),
    }
    return torch.optim.AdamW([*parts, heads])


def training_arguments(folder: Path, options: TrainingOptions, heaviest_row: float = 1.0) -> TrainingArguments:
    """What `Trainer` is told: an evaluation and a checkpoint each epoch, the best one loaded at the end.

    Gradients are clipped at what the heaviest row counts: at 1, a batch with one row of a rare label would be cut down
    to what a batch without it has, and class weights would do next to nothing.
    """
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.passes,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=BATCH_SIZE,
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
        **autocast(options),
        disable_tqdm=True,
        remove_unused_columns=False,  # `Collator` takes what it needs
        dataloader_pin_memory=torch.cuda.is_available(),
    )
