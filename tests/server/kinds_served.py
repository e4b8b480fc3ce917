"""A bundle with a task of each kind of answer, for single texts and for pairs, and requests to them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import httpx
from conftest import TEXTS, random_task

from edgetune_runtime import Bundle, Task
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.text import Text

PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))
SINGLES = [name for name, kind in KINDS.items() if not (kind.reading and kind.reading.second)]
PAIRED = [f"{kind}-pairs" for kind in KINDS]
NAMES = [*SINGLES, *PAIRED]
"""Each task is named after its kind."""

THRESHOLDS = (0.2, 0.5, 0.8)


def task_of(bundle: Bundle, name: str, seed: int = 0) -> Task:
    """The task of that name."""
    kind = KINDS[name.removesuffix("-pairs")]
    task = random_task(bundle, name, prefix=3, labels=min(3, kind.labels[1]), seed=seed, kind_name=kind.name)
    thresholds = THRESHOLDS if kind.name == "multi-label" else ()
    return dataclasses.replace(task, thresholds=thresholds, pairs=name in PAIRED)


def save_kinds(bundle_folder: Path, folder: Path) -> Path:
    """Copy a bundle, with these tasks instead of its own."""
    shutil.copytree(bundle_folder, folder, ignore=shutil.ignore_patterns("tasks"))
    bundle = Bundle(folder)
    for seed, name in enumerate(NAMES):
        bundle.add_task(task_of(bundle, name, seed))
    return folder


def texts_for(name: str) -> list[Text]:
    """Texts that the task takes."""
    return list(PAIRS if name in PAIRED else TEXTS)


def classify(client: httpx.Client, task: str, texts: object, path: str = "/v1/classify", **more: Any) -> httpx.Response:
    """Send a request to a classify route."""
    return client.post(path, json={"model": task, "input": texts, **more})


def tensors(texts: list[Text]) -> list[dict[str, Any]]:
    """Texts as inputs of the Open Inference Protocol."""
    columns = [texts] if isinstance(texts[0], str) else list(zip(*texts, strict=True))
    return [
        {"name": name, "shape": [len(column)], "datatype": "BYTES", "data": list(column)}
        for name, column in zip(("text", "text_pair"), columns, strict=False)
    ]


def infer(client: httpx.Client, task: str, texts: list[Text], **more: Any) -> httpx.Response:
    """Send a request with the Open Inference Protocol."""
    return client.post(f"/v2/models/{task}/infer", json={"inputs": tensors(texts), **more})
