"""Training a prompt and a head on a frozen backbone, with `transformers.Trainer`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from edgetune.calibration import fit_temperature, logits_calibration_error
from edgetune.data import label_set
from edgetune.progress import Progress
from edgetune.prompts import METHODS, Prefix, SoftPrompt
from edgetune_export.backbone import Backbone, pad
from edgetune_runtime import contract, files
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.rows import LabelledText
from edgetune_runtime.task import Task
from edgetune_runtime.text import TextEncoder

_OPTIONS_FILE = "options.json"
_EVAL_BATCH_SIZE = 64
HEAD_LEARNING_RATE, HEAD_ALONE_LEARNING_RATE = 1e-3, 1e-2


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        task: name of the task.
        method: one of `prompts.METHODS`.
        prompt_length: tokens of the prompt or prefix; 0 trains the head alone.
        epochs: passes over the training data; the one best on development data is kept.
        batch_size: texts a step.
        learning_rate: of the prompt; the method's own where `None`.
        head_learning_rate: of the head; where `None`, a small one beside a prompt and a larger one alone.
        pooling: where features are read, one of the backbone's; its usual one where `None`.
        max_length: tokens of a text that are read, special tokens included.
        seed: of everything random.
        mixed_precision: "no", "bf16" or "fp16".
    """

    task: str
    method: str = "prefix"
    prompt_length: int = 20
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    pooling: str | None = None
    max_length: int = contract.DEFAULT_MAX_LENGTH
    seed: int = 0
    mixed_precision: str = "no"


@dataclass(frozen=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        task: the task, of the best epoch.
        trained_parameters: numbers that were trained.
        backbone_parameters: numbers of the backbone, none of which changed.
        dev_accuracy: accuracy on development data, by epoch.
        seconds: time that training took.
    """

    task: Task
    trained_parameters: int
    backbone_parameters: int
    dev_accuracy: list[float]
    seconds: float


class PromptTuner(nn.Module):
    """A frozen backbone with one task's trainable prompt and head.

    Its state, and so a checkpoint, is the prompt and the head alone; the backbone stays in evaluation mode.
    """

    def __init__(self, backbone: Backbone, prompt: SoftPrompt | Prefix, num_labels: int, position_offset: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt: SoftPrompt | Prefix = prompt
        self.head = nn.Linear(backbone.sizes.hidden, num_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.position_offset = position_offset
        self.pooling = pooling
        # Trainer asks for it when it saves.
        self._keys_to_ignore_on_save: list[str] | None = None

    def train(self, mode: bool = True) -> PromptTuner:
        """Set training mode for all but the frozen backbone: dropout in it only adds noise."""
        super().train(mode)
        self.backbone.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The trainable state."""
        state = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a trainable state; the backbone stays as it is."""
        backbone = {f"backbone.{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        return super().load_state_dict({**backbone, **state_dict}, strict=strict, assign=assign)

    def tensors(self) -> dict[str, Tensor]:
        """The task tensors, without the tasks dimension."""
        return {
            **self.prompt.tensors(),
            contract.HEAD_WEIGHT: self.head.weight,
            contract.HEAD_BIAS: self.head.bias,
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and logits of a batch.

        Shape:
            input_ids, attention_mask: [batch, sequence]
            labels: [batch]
            logits: [batch, labels]
        """
        logits, _ = self.backbone(input_ids, attention_mask, torch.zeros_like(labels), **self._bank(input_ids.device))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def _bank(self, device: torch.device) -> dict[str, Tensor]:
        tensors = self.tensors()
        lengths = {
            "tasks": 1,
            "prompt": _length(tensors, contract.PROMPT_EMBEDDINGS, axis=0),
            "prefix": _length(tensors, contract.PREFIX_KEYS, axis=2),
            "labels": self.head.out_features,
        }
        bank = {}
        for name, spec in contract.BANK_INPUTS.items():
            if name in tensors:
                bank[name] = tensors[name][None]
            else:
                shape = self.backbone.sizes.shape(name, **lengths)
                bank[name] = torch.ones(shape, dtype=getattr(torch, spec.dtype), device=device)
        bank[contract.POSITION_OFFSET] *= self.position_offset
        bank[contract.POOLING] *= contract.POOLINGS.index(self.pooling)
        return bank


def train(
    backbone: Backbone,
    train_rows: Sequence[LabelledText],
    dev_rows: Sequence[LabelledText],
    options: TrainingOptions,
    out: Path,
    resume: bool = False,
) -> TrainingReport:
    """Train a task and write its file. The same arguments give the same task, also when broken off and resumed.

    Args:
        backbone: the frozen backbone; none of its weights change.
        train_rows: texts to learn from.
        dev_rows: texts that choose the best epoch, and then the temperature.
        options: how to train.
        out: the task file to write. `OUT.checkpoints` beside it holds an unfinished training.
        resume: go on with the unfinished training, if there is one.

    Raises:
        DataError: fewer than two labels, or labels in the development data that training has not.
        EdgetuneError: an unfinished training is to be resumed with another backbone, options or data, or the
            file cannot be written, or the training diverged.
    """
    files.check_task_name(options.task)
    if not out.name or out.is_dir():
        raise EdgetuneError(f"{out} is a folder: expected the name of a task file, such as {options.task}.safetensors")
    checkpoints = out.with_name(f"{out.name}.checkpoints")
    if not dev_rows:
        raise DataError("the development data is empty: expected at least one labelled text")
    labels = label_set(train_rows, dev_rows)
    if options.prompt_length >= backbone.max_positions:
        raise DataError(
            f"a prompt of {options.prompt_length} tokens leaves no room for text: {backbone.name} has "
            f"{backbone.max_positions} positions"
        )
    began = time.monotonic()
    set_seed(options.seed)
    encoded_train = encode_rows(backbone, train_rows, labels, options)
    encoded_dev = encode_rows(backbone, dev_rows, labels, options)
    prompt_class = METHODS[options.method]
    prompt = prompt_class(backbone, options.prompt_length, [row["input_ids"] for row in encoded_train])
    position_offset = backbone.position_offset(options.prompt_length)
    tuner = PromptTuner(backbone, prompt, len(labels), position_offset, options.pooling or backbone.poolings[0])
    learning_rate = options.learning_rate or prompt_class.learning_rate
    head_learning_rate = options.head_learning_rate or (
        HEAD_LEARNING_RATE if options.prompt_length else HEAD_ALONE_LEARNING_RATE
    )
    optimizer = torch.optim.AdamW(
        [
            {"params": list(prompt.parameters()), "lr": learning_rate},
            {"params": list(tuner.head.parameters()), "lr": head_learning_rate},
        ],
        weight_decay=0.0,
    )
    stamp = {
        **asdict(options),
        "backbone_sha256": backbone.fingerprint(),
        "data_sha256": files.sha256(json.dumps([encoded_train, encoded_dev]).encode()),
    }
    last = _prepare_checkpoints(checkpoints, stamp, resume)
    progress = Progress(options.epochs)
    trainer = Trainer(
        model=tuner,
        args=training_arguments(checkpoints, options),
        train_dataset=encoded_train,
        eval_dataset=encoded_dev,
        data_collator=collate,
        compute_metrics=accuracy,
        optimizers=(optimizer, None),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train(resume_from_checkpoint=last)
    dev_accuracy = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    best = float(trainer.state.best_metric or 0.0)
    dev = trainer.predict(encoded_dev)  # by the best epoch
    logits, right = np.asarray(dev.predictions), np.asarray(dev.label_ids)
    if not np.isfinite(logits).all():
        raise EdgetuneError(
            "the training diverged: it ended in numbers that are not finite; train with a lower --lr, or without "
            "--mixed-precision"
        )
    temperature = fit_temperature(logits, right)
    task = Task(
        name=options.task,
        labels=labels,
        backbone_sha256=backbone.fingerprint(),
        tensors={name: tensor.detach().cpu().float().numpy() for name, tensor in tuner.tensors().items()},
        method=options.method,
        base_model=backbone.name,
        pooling=options.pooling or backbone.poolings[0],
        position_offset=position_offset,
        max_length=options.max_length,
        temperature=temperature,
        metrics={
            "dev_accuracy": best,
            "dev_rows": len(dev_rows),
            "best_epoch": dev_accuracy.index(best) + 1,
            "dev_ece": logits_calibration_error(logits, right, temperature),
            "dev_ece_unscaled": logits_calibration_error(logits, right, 1.0),
        },
    )
    task.save(out)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return TrainingReport(
        task=task,
        trained_parameters=sum(parameter.numel() for parameter in tuner.parameters() if parameter.requires_grad),
        backbone_parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        dev_accuracy=dev_accuracy,
        seconds=time.monotonic() - began,
    )


def _length(tensors: dict[str, Tensor], name: str, axis: int) -> int:
    return tensors[name].shape[axis] if name in tensors else 0


def encode_rows(
    backbone: Backbone, rows: Sequence[LabelledText], labels: tuple[str, ...], options: TrainingOptions
) -> list[dict[str, Any]]:
    """Rows as `Trainer` takes them: token ids, as the trained task will read them, and the label's index."""
    prompt = {contract.PROMPT_EMBEDDINGS: np.empty((options.prompt_length, 0), np.float32)}
    encoder = TextEncoder(backbone.tokenizer_json, backbone.max_positions, backbone.mask_token)
    reading = Task(
        name=options.task,
        labels=labels,
        backbone_sha256="",
        tensors=prompt if options.method == "prompt" else {},
        method=options.method,
        base_model=backbone.name,
        pooling=options.pooling or backbone.poolings[0],
        position_offset=backbone.position_offset(options.prompt_length),
        max_length=options.max_length,
    )
    tokens = encoder.encode([row.text for row in rows], [reading] * len(rows))
    cut = sum(row.truncated for row in tokens)
    if cut:
        print(
            f"{cut} of {len(rows)} texts are longer than {encoder.max_length(reading)} tokens: their ends are not read",
            file=sys.stderr,
        )
    index = {label: place for place, label in enumerate(labels)}
    return [{"input_ids": token.ids, "labels": index[row.label]} for token, row in zip(tokens, rows, strict=True)]


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch of rows from `encode_rows`, as the tuner's forward takes it."""
    input_ids, attention_mask = pad([row["input_ids"] for row in rows])
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right answers."""
    answers = np.asarray(prediction.predictions).argmax(axis=-1)
    return {"accuracy": float((answers == prediction.label_ids).mean())}


def training_arguments(checkpoints: Path, options: TrainingOptions) -> TrainingArguments:
    """What `Trainer` is told: an evaluation and a checkpoint each epoch, the best one loaded at the end."""
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=_EVAL_BATCH_SIZE,
        lr_scheduler_type="linear",
        warmup_steps=0.06,
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_strategy="epoch",
        report_to="none",
        seed=options.seed,
        data_seed=options.seed,
        bf16=options.mixed_precision == "bf16",
        fp16=options.mixed_precision == "fp16",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _prepare_checkpoints(folder: Path, settings: dict[str, Any], resume: bool) -> str | None:
    """Make the folder ready; gives the checkpoint to go on from, if any."""
    stamp = json.dumps(settings, sort_keys=True)
    stamp_file = folder / _OPTIONS_FILE
    if resume and stamp_file.is_file():
        if stamp_file.read_text() != stamp:
            raise EdgetuneError(
                f"the unfinished training in {folder} had another model, other options or data: repeat them, or "
                f"leave out --resume to begin again"
            )
        # Trainer writes its state last: a checkpoint without it is not whole.
        whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
        return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
    if folder.exists():
        print(f"an unfinished training in {folder} is discarded (--resume would go on with it)", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    files.write_atomic(stamp_file, stamp.encode())
    return None
