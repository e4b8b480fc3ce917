"""Training speed and accuracy compared with PEFT and full fine-tuning.

    python benchmarks/training_speed.py MODEL DATA_FOLDER --data sst2 > training.json

MODEL is a BERT. Every contender trains through `transformers.Trainer` on the same rows, each turn a pass over a part
of them, with one optimizer from the first turn to the last and the same learning rates for the same method; rows a
second are the median over turns, accuracy is that of development data after the last. PEFT is set up as its
documentation does it: the `…ForSequenceClassification` model, `DataCollatorWithPadding`, rows in random order. PEFT's
heads read the first token through the model's pooler, ours the mean of all tokens. The last line of stdout is one
JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from accuracy import LORA_LEARNING_RATE, LORA_RANK, fine_tuner, fine_tuning_optimizer
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from edgetune.data.labelled import LabelledText, read_labelled
from edgetune.training import TaskData, TrainingOptions
from edgetune.training.batches import Collator
from edgetune.training.methods import trainings
from edgetune.training.options import METHODS
from edgetune.training.products import in_bf16, products_in_bf16
from edgetune.training.setup import fit_first_heads, set_up
from edgetune.training.trainer import HEAD_LEARNING_RATE, optimizer, training_arguments
from edgetune_export import load_backbone
from edgetune_runtime.fitting.label_set import label_set
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.session import cpu_name

Rows = list[dict[str, Any]]

THEIRS = {"peft-prompt": "prompt", "peft-p-tuning": "p-tuning-lstm", "peft-prefix": "prefix", "peft-lora": "lora"}
"""PEFT's contenders → ours of the same method."""
IN_FP32 = {f"fp32-{name}": name for name in METHODS}
"""Contenders that multiply in fp32 → the method, which otherwise multiplies in bf16 on CPUs that are faster with it."""
CONTENDERS = (*METHODS, *IN_FP32, "full", *THEIRS)


@dataclass
class Contender:
    """A way to train, with its training state."""

    model: Any
    optimizer: torch.optim.Optimizer
    arguments: TrainingArguments
    rows: dict[str, Rows]
    collator: Any
    seconds: list[float] = field(default_factory=list)

    def train(self, part: slice) -> None:
        """One turn: a pass over a part of the rows."""
        began = time.monotonic()
        self._trainer(self.rows["train"][part]).train()
        self.seconds.append(time.monotonic() - began)

    def accuracy(self) -> float:
        """On the development rows."""
        self.model.eval()
        predicted = self._trainer([]).predict(_Rows(self.rows["dev"]))
        logits = predicted.predictions[0] if isinstance(predicted.predictions, tuple) else predicted.predictions
        # Ours come with the task and the place of each text, as `training_arguments` names them.
        labels = predicted.label_ids[1] if isinstance(predicted.label_ids, tuple) else predicted.label_ids
        return float((np.asarray(logits).argmax(axis=-1) == np.asarray(labels).reshape(-1)).mean())

    def _trainer(self, rows: Rows) -> Trainer:
        trainer = Trainer(
            model=self.model,
            args=self.arguments,
            train_dataset=_Rows(rows),
            data_collator=self.collator,
            optimizers=(self.optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", default="sst2", show_default=True, help="Folder inside FOLDER, with train and dev.jsonl.")
@click.option("--contender", "names", type=click.Choice(CONTENDERS), multiple=True, help="[default: all]")
@click.option("--prompt-length", default=20, show_default=True)
@click.option("--rows", default=640, show_default=True, help="Rows of a turn.")
@click.option("--turns", default=9, show_default=True)
@click.option("--passes", default=3, show_default=True, help="How often the turns come to the same rows.")
@click.option("--batch-size", default=32, show_default=True)
def main(
    model: str,
    folder: Path,
    data: str,
    names: tuple[str, ...],
    prompt_length: int,
    rows: int,
    turns: int,
    passes: int,
    batch_size: int,
) -> None:
    """Time training methods against each other."""
    parts = turns // passes
    if parts * passes != turns:
        raise click.UsageError(f"--turns {turns}: expected a multiple of --passes {passes}")
    texts = {"train": read_labelled(str(folder / data / "train.jsonl")).rows[: rows * parts]}
    if len(texts["train"]) < rows * parts:
        raise click.UsageError(
            f"{data} has {len(texts['train'])} rows: expected {rows * parts} for {parts} turns a pass"
        )
    texts["dev"] = read_labelled(str(folder / data / "dev.jsonl")).rows
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        made = {
            name: (_theirs if name in THEIRS else partial(_ours, stack))(
                name, model, texts, prompt_length, batch_size, Path(scratch)
            )
            for name in names or CONTENDERS
        }
        for turn in range(turns):
            part = slice(turn % parts * rows, (turn % parts + 1) * rows)
            for name, contender in made.items():
                contender.train(part)
                print(f"turn {turn + 1}/{turns}: {name} {rows / contender.seconds[-1]:.0f} rows/s", file=sys.stderr)
        accuracies = {name: contender.accuracy() for name, contender in made.items()}
    speeds = {name: rows / statistics.median(contender.seconds) for name, contender in made.items()}
    click.echo("| method | rows/s | vs PEFT's | time, of full fine-tuning | dev accuracy |\n|---|---|---|---|---|")
    peers = {ours: theirs for theirs, ours in THEIRS.items() if theirs in speeds}
    for name, speed in speeds.items():
        beside = f"{speed / speeds[peers[name]]:.2f}×" if name in peers else ""
        full = f"{speeds['full'] / speed:.2f}" if "full" in speeds else ""
        click.echo(f"| {name} | {speed:.0f} | {beside} | {full} | {accuracies[name]:.4f} |")
    record = {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "data": data,
        "rows": rows,
        "turns": turns,
        "passes": passes,
        "prompt_length": prompt_length,
        "batch_size": batch_size,
        "date": time.strftime("%Y-%m-%d"),
        "rows_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "dev_accuracy": {name: round(found, 4) for name, found in accuracies.items()},
    }
    click.echo(json.dumps(record))


Texts = dict[str, list[LabelledText]]


def _ours(
    stack: ExitStack, name: str, model: str, texts: Texts, prompt_length: int, batch_size: int, scratch: Path
) -> Contender:
    backbone = load_backbone(model)
    method = IN_FP32.get(name, name)
    is_own = method in METHODS
    options = TrainingOptions(
        recipe="epochs",
        method=method if is_own else "prefix",
        prompt_length=prompt_length if is_own else 0,
        mixed_precision="no" if name in IN_FP32 else "auto",
        batch_size=batch_size,
        epochs=1,
    )
    task = TaskData("speed", scratch / "speed.safetensors", texts["train"], texts["dev"])
    setup = set_up(backbone, [task], options)
    fit_first_heads(setup, options)
    collator = Collator(backbone.facts, 1)
    arguments = _same_schedule(training_arguments(scratch / "checkpoints", options))
    if is_own:
        stack.enter_context(products_in_bf16(backbone.model, in_bf16(options)))
        return Contender(setup.tuner, optimizer(setup.tuner, options), arguments, setup.rows, collator)
    fine = fine_tuner(backbone, setup.tuner, name)
    return Contender(fine, fine_tuning_optimizer(fine, name), arguments, setup.rows, collator)


def _theirs(name: str, model: str, texts: Texts, prompt_length: int, batch_size: int, scratch: Path) -> Contender:
    labels = label_set(*([row.target for row in texts[split]] for split in ("train", "dev")), SINGLE_LABEL)
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = {
        split: [
            {**tokenizer(row.text, truncation=True, max_length=256), "labels": labels.index(str(row.target))}
            for row in some
        ]
        for split, some in texts.items()
    }
    virtual = {"task_type": TaskType.SEQ_CLS, "num_virtual_tokens": prompt_length}
    configs = {
        "peft-prompt": lambda: PromptTuningConfig(**virtual),
        "peft-p-tuning": lambda: PromptEncoderConfig(**virtual, encoder_reparameterization_type="LSTM"),
        "peft-prefix": lambda: PrefixTuningConfig(**virtual),
        "peft-lora": lambda: LoraConfig(
            task_type=TaskType.SEQ_CLS, r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=["query", "value"]
        ),
    }
    loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels))
    tuned = get_peft_model(loaded, configs[name]())
    learning = {key: parameter for key, parameter in tuned.named_parameters() if parameter.requires_grad}
    head = [parameter for key, parameter in learning.items() if "classifier" in key]
    rest = [parameter for key, parameter in learning.items() if "classifier" not in key]
    (own,) = trainings(TrainingOptions(method=THEIRS[name])).values()
    rate = LORA_LEARNING_RATE if name == "peft-lora" else own.learning_rate
    groups = [{"params": rest, "lr": rate}, {"params": head, "lr": HEAD_LEARNING_RATE}]
    arguments = TrainingArguments(
        output_dir=str(scratch / "peft"),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    adam = torch.optim.AdamW(groups, weight_decay=0.0)
    return Contender(tuned, adam, _same_schedule(arguments), rows, DataCollatorWithPadding(tokenizer))


def _same_schedule(arguments: TrainingArguments) -> TrainingArguments:
    """Turns of one training: the learning rate stays, nothing is saved or evaluated between them."""
    arguments.lr_scheduler_type, arguments.warmup_steps = "constant", 0
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.load_best_model_at_end = False
    return arguments


class _Rows(Dataset):  # type: ignore[type-arg]
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self._rows[place]


if __name__ == "__main__":
    main()
