"""Training speed beside PEFT and full fine-tuning: the same data, batch size, precision and steps, taking turns.

    python benchmarks/training_speed.py MODEL DATA_FOLDER --data sst2 > training.json

MODEL is a BERT. Every contender trains through `transformers.Trainer` on the same rows, each turn a pass over a
part of them; rows a second are the median over turns. PEFT is set up as its documentation does it: the
`…ForSequenceClassification` model, `DataCollatorWithPadding`, rows in random order. The last line of stdout is
one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from accuracy import fine_tuner
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

from edgetune import prompts
from edgetune.data import label_set, read_data
from edgetune.training import TaskData, TrainingOptions, collate, new_tuner, training_arguments
from edgetune_export import load_backbone
from edgetune_runtime.rows import LabelledText
from edgetune_runtime.session import cpu_name

LEARNING_RATE = 1e-3  # of no account here: every contender makes the same number of steps


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", default="sst2", show_default=True, help="Folder inside FOLDER.")
@click.option("--prompt-length", default=20, show_default=True)
@click.option("--rows", default=640, show_default=True, help="Rows of a turn.")
@click.option("--turns", default=5, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
def main(model: str, folder: Path, data: str, prompt_length: int, rows: int, turns: int, batch_size: int) -> None:
    """Time training methods against each other."""
    texts = read_data(str(folder / data / "train.jsonl"))[: rows * turns]
    with tempfile.TemporaryDirectory() as scratch:
        contenders = _ours(model, texts, prompt_length, batch_size, Path(scratch))
        contenders |= _theirs(model, texts, prompt_length, batch_size, Path(scratch))
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(turns):
            for name, train in contenders.items():
                began = time.monotonic()
                train(slice(turn * rows, (turn + 1) * rows))
                seconds[name].append(time.monotonic() - began)
                print(f"turn {turn + 1}/{turns}: {name} {rows / seconds[name][-1]:.0f} rows/s", file=sys.stderr)
    speeds = {name: rows / statistics.median(taken) for name, taken in seconds.items()}
    pairs = {"prompt": "peft-prompt", "p-tuning-lstm": "peft-p-tuning", "prefix": "peft-prefix", "lora": "peft-lora"}
    click.echo("| method | rows/s | beside PEFT's | time, of full fine-tuning |\n|---|---|---|---|")
    for name, speed in speeds.items():
        beside = f"{speed / speeds[pairs[name]]:.2f}×" if name in pairs else ""
        click.echo(f"| {name} | {speed:.0f} | {beside} | {speeds['full'] / speed:.2f} |")
    record = {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "data": data,
        "prompt_length": prompt_length,
        "batch_size": batch_size,
        "date": time.strftime("%Y-%m-%d"),
        "rows_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
    }
    click.echo(json.dumps(record))


Train = Callable[[slice], None]


def _ours(
    model: str, texts: list[LabelledText], prompt_length: int, batch_size: int, scratch: Path
) -> dict[str, Train]:
    found: dict[str, Train] = {}
    for method in (*prompts.METHODS, "lora", "full"):
        backbone = load_backbone(model)
        options = TrainingOptions(
            method=method if method in prompts.METHODS else "prefix",
            prompt_length=prompt_length if method in prompts.METHODS else 0,
            batch_size=batch_size,
            epochs=1,
        )
        tasks = [TaskData("speed", scratch / "speed.safetensors", texts, texts)]
        tuner, _, encoded = new_tuner(backbone, tasks, options)
        if method not in prompts.METHODS:
            tuner = fine_tuner(backbone, tuner, method)
        arguments = training_arguments(scratch / "checkpoints", options)
        found[method] = _runs(tuner, arguments, encoded["train"], collate)
    return found


def _theirs(
    model: str, texts: list[LabelledText], prompt_length: int, batch_size: int, scratch: Path
) -> dict[str, Train]:
    labels = label_set(texts, texts)
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [
        {**tokenizer(row.text, truncation=True, max_length=256), "labels": labels.index(row.label)} for row in texts
    ]
    virtual = {"task_type": TaskType.SEQ_CLS, "num_virtual_tokens": prompt_length}
    configs = {
        "peft-prompt": PromptTuningConfig(**virtual),
        "peft-p-tuning": PromptEncoderConfig(**virtual, encoder_reparameterization_type="LSTM"),
        "peft-prefix": PrefixTuningConfig(**virtual),
        "peft-lora": LoraConfig(task_type=TaskType.SEQ_CLS, r=8, target_modules=["query", "value"]),
    }
    arguments = TrainingArguments(
        output_dir=str(scratch / "peft"),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    found: dict[str, Train] = {}
    for name, config in configs.items():
        loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels))
        found[name] = _runs(get_peft_model(loaded, config), arguments, rows, DataCollatorWithPadding(tokenizer))
    return found


def _runs(model: Any, arguments: TrainingArguments, rows: list[dict[str, Any]], collator: Any) -> Train:
    arguments.eval_strategy, arguments.save_strategy, arguments.load_best_model_at_end = "no", "no", False
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def train(part: slice) -> None:
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_Rows(rows[part]),
            data_collator=collator,
            optimizers=(torch.optim.AdamW(parameters, lr=LEARNING_RATE), None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    return train


class _Rows(Dataset):  # type: ignore[type-arg]
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self._rows[place]


if __name__ == "__main__":
    main()
