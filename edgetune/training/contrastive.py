"""Training a prompt on few rows, by pairs of texts: alike if they have the same label, unlike if not.

The loss is that of sentence-transformers fine-tuning in SetFit (Tunstall et al. 2022, "Efficient Few-Shot Learning
Without Prompts"): the cosine similarity of two texts' features is to be 1 or 0. Here it is a prompt of a frozen
backbone that learns, for a few dozen steps; each batch gives all of its pairs. The head is fitted afterwards.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from edgetune.training.batches import Collator, Rows
from edgetune.training.options import TrainingOptions
from edgetune.training.products import autocast
from edgetune.training.tuner import PromptTuner
from edgetune_runtime import contract

STEPS = 40
"""More gave nothing on 16 to 192 rows of sst2 and trec6."""

_STEPS_BETWEEN_LOGS = 10

_ROWS_AT_ONCE = 8
"""So many rows of a batch, alike in length, are read at once on a CPU: of rows in any order half would be padding."""


def train_prompt(
    tuner: PromptTuner, rows: Rows, options: TrainingOptions, folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> None:
    """Train the tuner's prompt on rows of one task, each with one label; the heads stay as they are.

    Args:
        tuner: what is trained.
        rows: of at least two labels.
        options: how: batch size, learning rate, seed, precision.
        folder: where `Trainer` may write; nothing is left there.
        callbacks: of `Trainer`.
    """
    batch_size = min(options.batch_size, len(rows))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=batch_size,
        lr_scheduler_type="linear",
        warmup_steps=0.06,
        max_grad_norm=1.0,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=_STEPS_BETWEEN_LOGS,  # for callbacks; nothing is printed
        report_to="none",
        label_names=["task_index", "labels", "text"],
        seed=options.seed,
        **autocast(options),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # pairs are of one batch, which several GPUs would split
    optimizer = torch.optim.AdamW(tuner.parts.groups(options))
    trainer = _PairTrainer(
        model=tuner,
        args=arguments,
        train_dataset=rows,
        data_collator=Collator(tuner.backbone.facts, 1),
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()


class _PairTrainer(Trainer):  # type: ignore[misc]
    def get_train_dataloader(self) -> DataLoader[Any]:
        labels = [int(row["labels"][0, 0]) for row in self.train_dataset]
        batches = list(balanced_batches(labels, self.args.per_device_train_batch_size, STEPS, self.args.seed))
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)

    def compute_loss(self, model: PromptTuner, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        moved = {name: tensor.to(self.args.device) for name, tensor in inputs.items()}
        parts = list(by_length(moved, _ROWS_AT_ONCE)) if self.args.device.type == "cpu" else [moved]
        with self.accelerator.autocast():  # which wraps `forward` alone
            features = torch.cat([model.features(**own)[:, 0] for own in parts])
        return pair_loss(features.float(), torch.cat([own["labels"][:, 0, 0] for own in parts]))


def by_length(batch: Mapping[str, Tensor], rows: int) -> Iterator[dict[str, Tensor]]:
    """A batch, as `Collator` makes it, in parts of so many rows that are alike in length, without needless padding."""
    lengths = batch[contract.ATTENTION_MASK].sum(dim=1)
    for places in torch.split(lengths.argsort(stable=True), rows):
        longest = int(lengths[places].max())
        own = {name: tensor[places] for name, tensor in batch.items()}
        yield {name: tensor[:, :longest] if _is_by_token(name) else tensor for name, tensor in own.items()}


def _is_by_token(name: str) -> bool:
    return name in contract.INPUTS and "sequence" in contract.INPUTS[name].dims


def pair_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Squared distance of all pairs' cosine similarities to 1 if their labels are the same, else to 0.

    Both sorts of pairs count the same, however many there are.

    Shape:
        features: [rows, hidden]
        labels: [rows]
    """
    similarity = nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    same = (labels[:, None] == labels[None]).to(similarity.dtype)
    above = torch.ones_like(similarity).triu(1)
    losses = [
        ((similarity - wanted).square() * pairs).sum() / pairs.sum().clamp(min=1)
        for wanted, pairs in ((1.0, above * same), (0.0, above * (1 - same)))
    ]
    return torch.stack(losses).sum()


def balanced_batches(labels: Sequence[int], size: int, number: int, seed: int) -> Iterator[list[int]]:
    """Places of rows, in batches that have about as many of each label; a label's rows come all before one again."""
    generator = random.Random(seed)
    by_label: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        by_label[label].append(place)
    left: dict[int, list[int]] = {label: [] for label in by_label}
    turn: list[int] = []
    for _ in range(number):
        batch: list[int] = []
        while len(batch) < size:
            if not turn:
                turn = generator.sample(sorted(by_label), len(by_label))
            label = turn.pop()
            if not left[label]:
                left[label] = generator.sample(by_label[label], len(by_label[label]))
            batch.append(left[label].pop())
        yield batch
