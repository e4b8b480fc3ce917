"""Linear models on frozen features without a prompt: what scikit-learn gives for a backbone's sentence embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from edgetune.data.labelled import LabelledText
from edgetune_export import Backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.kind import WHOLE
from edgetune_runtime.task import Task

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse strengths of regularization to choose from, on development data."""


def measured(backbone: Backbone, rows: Mapping[str, Sequence[LabelledText]], kind: Kind) -> dict[str, Any]:
    """Fit on "train", choose regularization, temperature and thresholds on "dev", measure on "test"."""
    fitting = fitting_of(kind)
    labels = kind.labels_of([row.target for row in rows["train"]])
    targets = {split: np.array([fitting.encode(row.target, labels) for row in some]) for split, some in rows.items()}
    inputs = {split: features(backbone, some) for split, some in rows.items()}
    scaler = StandardScaler().fit(inputs["train"])
    inputs = {split: scaler.transform(own) for split, own in inputs.items()}
    fitted = {}
    for strength in STRENGTHS:
        logits = _FITTERS[kind.name](inputs["train"], targets["train"], strength)
        fitted[fitting.measure.of(logits(inputs["dev"]), targets["dev"])] = logits
    best = fitted[max(fitted)]
    draft = _task(backbone, tuple(labels), kind)
    settings, _ = fitting.calibrate(best(inputs["dev"]), targets["dev"])
    task = replace(draft, **settings)
    results = answers(task, best(inputs["test"]), [WHOLE] * len(rows["test"]))
    values = kind.figures([row.target for row in rows["test"]], results, task).values
    width = inputs["train"].shape[1]
    return {
        "dev": [max(fitted)],
        "test": values[kind.headline],
        "figures": values,
        "trained": len(labels) * (width + 1),
    }


def features(backbone: Backbone, rows: Sequence[LabelledText]) -> Array:
    """Pooled features of texts; of pairs (u, v) the usual [u, v, |u - v|, u * v].

    Shape:
        output: [rows, hidden], or four times as wide
    """
    width = backbone.sizes.hidden
    identity = replace(
        _task(backbone, tuple(map(str, range(width)))),
        tensors={"head_weight": np.eye(width, dtype=np.float32), "head_bias": np.zeros(width, np.float32)},
    )
    first = torch_logits(backbone, identity, [row.text for row in rows])
    if rows[0].text_pair is None:
        return first
    second = torch_logits(backbone, identity, [str(row.text_pair) for row in rows])
    return np.concatenate([first, second, np.abs(first - second), first * second], axis=1)


Fitted = Callable[[Array], Array]


def _single_label(inputs: Array, targets: Array, strength: float) -> Fitted:
    model = LogisticRegression(C=strength, max_iter=5000).fit(inputs, targets[:, 0])

    def logits(given: Array) -> Array:
        found = model.decision_function(given)
        return found if found.ndim == 2 else np.stack([-found / 2, found / 2], axis=1)

    return logits


def _multi_label(inputs: Array, targets: Array, strength: float) -> Fitted:
    models = [
        LogisticRegression(C=strength, max_iter=5000).fit(inputs, column) if len(set(column)) > 1 else None
        for column in targets.T
    ]

    def logits(given: Array) -> Array:
        never = np.full(len(given), -10.0)
        return np.stack([never if one is None else one.decision_function(given) for one in models], axis=1)

    return logits


def _score(inputs: Array, targets: Array, strength: float) -> Fitted:
    model = Ridge(alpha=1 / strength).fit(inputs, targets[:, 0])
    return lambda given: model.predict(given)[:, np.newaxis]


_FITTERS: dict[str, Callable[[Array, Array, float], Fitted]] = {
    "single-label": _single_label,
    "multi-label": _multi_label,
    "score": _score,
}


def _task(backbone: Backbone, labels: tuple[str, ...], kind: Kind | None = None) -> Task:
    more = {} if kind is None else {"kind_name": kind.name}
    return Task("linear", labels, backbone.facts.sha256, {}, "none", backbone.name, backbone.poolings[0], **more)
