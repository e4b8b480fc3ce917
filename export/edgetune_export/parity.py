"""Compare an exported precision's answers with PyTorch's, on real text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgetune_export.backbone import Backbone, batch
from edgetune_runtime import bank, contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.check_texts import check_texts
from edgetune_runtime.engine import Engine
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.kinds import Read, Target
from edgetune_runtime.manifest import TaskParity
from edgetune_runtime.sharing import of_pieces
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

_TORCH_BATCH_SIZE = 8  # larger batches need memory but save no time on a CPU
_PROBE_PREFIX_LENGTH = 20
_PROBE_LENGTH, _PROBE_PART_SIZE = 2, 0.05  # length of the other parts
PROBE = "probe"
"""Name of the random task that is used if a bundle is exported without tasks."""


@dataclass(frozen=True)
class CheckTexts:
    """Texts for the comparison, and their targets, if known."""

    texts: Sequence[Text]
    targets: Sequence[Target] | None = None


def default_texts() -> CheckTexts:
    """Everyday sentences of many lengths that come with the package, without labels."""
    return CheckTexts(check_texts())


def in_pairs(check: CheckTexts) -> CheckTexts:
    """Unlabelled texts as pairs: each text with the next one."""
    texts = [text for text in check.texts if isinstance(text, str)]
    return CheckTexts(list(zip(texts, texts[1:] + texts[:1], strict=True)))


def probe_task(backbone: Backbone, variant: str = contract.BASE) -> Task:
    """A task of reproducible random numbers, with all parts that a graph variant takes."""
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
    """PyTorch's logits, in padded batches, for a task that answers texts as a whole.

    Shape:
        output: [texts, labels]
    """
    return np.stack(logits_by_text(backbone, task, texts)[0])


def logits_by_text(backbone: Backbone, task: Task, texts: Sequence[Text]) -> tuple[list[Array], list[Read]]:
    """PyTorch's logits, in padded batches, and the texts as they were read.

    Shape:
        output: for each text [labels]; if the task's kind has a `reading`, [pieces, rows of the head]
    """
    tokens = backbone.text_encoder.encode(texts, [task] * len(texts))
    windows = [window for row in tokens for window in row.windows]
    arrays = bank.stack([task], backbone.sizes, backbone.inputs)
    stacked = {name: torch.tensor(array) for name, array in arrays.items()}
    order = sorted(range(len(windows)), key=lambda place: len(windows[place].ids))
    logits: list[Array] = [np.zeros((0, task.head_rows), np.float32)] * len(windows)
    with torch.inference_mode():
        for start in range(0, len(order), _TORCH_BATCH_SIZE):
            places = order[start : start + _TORCH_BATCH_SIZE]
            text = batch([windows[place] for place in places], backbone.facts)
            index = torch.zeros(len(places), dtype=torch.int64)
            given = backbone(**text, task_index=index, **stacked)[0].numpy()
            for place, own in zip(places, given, strict=True):
                logits[place] = of_pieces(own[: len(windows[place].spans)], task)
    left = iter(logits)
    by_text = [np.concatenate([next(left) for _ in row.windows]) for row in tokens]
    return [task.kind.logits_of(own) for own in by_text], [row.read for row in tokens]


def compare(expected: Sequence[Array], engine: Engine, task: Task, check: CheckTexts) -> TaskParity:
    """Compare an engine's answers with PyTorch's logits for the same texts.

    Shape:
        expected: for each text [labels]; if the task's kind has a `reading`, [pieces, rows of the head]
    """
    engine.add_task(task)
    tokens = engine.encode(check.texts, [task] * len(check.texts))
    got = engine.run([(row, task) for row in tokens])
    kind = task.kind
    figures: dict[str, float] = {}
    if check.targets is not None:
        for name, logits in (("value_torch", expected), ("value", got)):
            results = answers(task, logits, [row.read for row in tokens])
            figures[name] = kind.figures(check.targets, results, task).values[kind.headline]
    return TaskParity(
        rows=len(check.texts),
        max_logit_difference=max(
            float(np.abs(one - other).max(initial=0.0)) for one, other in zip(got, expected, strict=True)
        ),
        label_agreement=kind.agreement(expected, got, task, [row.read for row in tokens]),
        figure=kind.headline,
        **figures,
    )
