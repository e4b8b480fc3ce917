"""What an exported precision answers beside PyTorch, on real text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files

import numpy as np
import torch

from edgetune_export.backbone import Backbone, batch
from edgetune_runtime import bank, contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.engine import Engine
from edgetune_runtime.kinds import Target
from edgetune_runtime.manifest import TaskParity
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

_TORCH_BATCH_SIZE = 8  # more take memory and win no time on a CPU
_PROBE_PREFIX_LENGTH = 20
_PROBE_LENGTH, _PROBE_PART_SIZE = 2, 0.05  # of the other parts
PROBE = "probe"
"""Name of the random task that stands in where a bundle is exported without tasks."""


@dataclass(frozen=True)
class CheckTexts:
    """Texts to compare on, and what is right for them, if it is known."""

    texts: Sequence[Text]
    targets: Sequence[Target] | None = None


def default_texts() -> CheckTexts:
    """Everyday sentences of many lengths that come with the package, without labels."""
    lines = package_files("edgetune_export").joinpath("check_texts.txt").read_text(encoding="utf-8")
    return CheckTexts(lines.splitlines())


def in_pairs(check: CheckTexts) -> CheckTexts:
    """Texts that are not labelled, as pairs: each with the one that follows it."""
    texts = [text for text in check.texts if isinstance(text, str)]
    return CheckTexts(list(zip(texts, texts[1:] + texts[:1], strict=True)))


def probe_task(backbone: Backbone, variant: str = contract.BASE) -> Task:
    """A task of random numbers, the same each time, that has something in all that a variant of the graph takes."""
    random = np.random.default_rng(0)
    more = sorted(backbone.facts.variants.get(variant, ()))
    lengths = {dim: _PROBE_LENGTH for name in more for dim in contract.BANK_INPUTS[name].dims}
    lengths |= {"tasks": 1, "prefix": _PROBE_PREFIX_LENGTH, "labels": 2, **vars(backbone.sizes)}
    shapes = {
        name: backbone.sizes.shape(name, **lengths)[1:]
        for name in (contract.PREFIX_KEYS, contract.PREFIX_VALUES, contract.HEAD_WEIGHT, contract.HEAD_BIAS, *more)
    }
    return Task(
        name=PROBE,
        labels=("a", "b"),
        backbone_sha256=backbone.facts.sha256,
        tensors={
            name: random.normal(0, _PROBE_PART_SIZE if name in more else 0.2, shape).astype(np.float32)
            for name, shape in shapes.items()
        },
        method="random",
        base_model=backbone.name,
        pooling=backbone.poolings[0],
        position_offset=backbone.position_offset(_PROBE_PREFIX_LENGTH),
    )


def torch_logits(backbone: Backbone, task: Task, texts: Sequence[Text]) -> Array:
    """Logits of the PyTorch path, in padded batches.

    Shape:
        output: [texts, labels]
    """
    tokens = backbone.text_encoder.encode(texts, [task] * len(texts))
    windows = [window for row in tokens for window in row.windows]
    arrays = bank.stack([task], backbone.sizes, backbone.inputs)
    stacked = {name: torch.tensor(array) for name, array in arrays.items()}
    order = sorted(range(len(windows)), key=lambda place: len(windows[place].ids))
    logits = np.zeros((len(windows), len(task.labels)), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _TORCH_BATCH_SIZE):
            places = order[start : start + _TORCH_BATCH_SIZE]
            text = batch([windows[place] for place in places], backbone.facts)
            index = torch.zeros(len(places), dtype=torch.int64)
            logits[places] = backbone(**text, task_index=index, **stacked)[0][:, 0].numpy()
    ends = np.cumsum([len(row.windows) for row in tokens])[:-1]
    return np.stack([own.mean(axis=0) for own in np.split(logits, ends)])


def compare(expected: Array, engine: Engine, task: Task, check: CheckTexts) -> TaskParity:
    """Compare an engine's answers with PyTorch's logits for the same texts.

    Shape:
        expected: [texts, labels]
    """
    engine.add_task(task)
    tokens = engine.encode(check.texts, [task] * len(check.texts))
    got = np.stack(engine.run([(row, task) for row in tokens]))
    kind = task.kind
    figures: dict[str, float] = {}
    if check.targets is not None:
        for name, logits in (("value_torch", expected), ("value", got)):
            answers = [kind.answer(row[np.newaxis], task) for row in logits]
            figures[name] = kind.figures(check.targets, answers, task).values[kind.headline]
    return TaskParity(
        rows=len(check.texts),
        max_logit_difference=float(np.abs(got - expected).max()),
        label_agreement=kind.agreement(expected, got, task),
        figure=kind.headline,
        **figures,
    )
