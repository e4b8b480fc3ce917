"""What the long tests serve: a tiny bundle, and versions of one task whose answers give them away."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
from conftest import random_task, save_tiny_bert

from edgetune_runtime import Bundle, Task, contract

VERSIONS = 4


def tiny_bundle(folder: Path) -> Path:
    """Export a tiny backbone with the tasks "colour" and "size" into a folder; gives the bundle's own folder.

    Prepared graphs are kept in that folder too, away from the user's own.
    """
    from edgetune_export import export_bundle, load_backbone  # PyTorch, which a client's process has no use for

    os.environ["EDGETUNE_CACHE"] = str(folder / "cache")
    with contextlib.redirect_stdout(sys.stderr):
        save_tiny_bert(folder / "model")
        export_bundle(load_backbone(str(folder / "model")), folder / "bundle")
    bundle = Bundle(folder / "bundle")
    bundle.add_task(random_task(bundle, "colour", prefix=6, labels=3, seed=1))
    bundle.add_task(random_task(bundle, "size", prompt=4, labels=2, seed=2))
    return bundle.path


def canary(bundle: Bundle, version: int, prefix: int = 3) -> Task:
    """A task that always answers `version{version}`.

    Each version has another number of labels and its answer at another place, so that labels of one version with
    scores of another do not pass.
    """
    labels = [f"other{version}.{place}" for place in range(version + 2)]
    labels[version] = f"version{version}"
    task = random_task(bundle, "canary", prefix=prefix, labels=len(labels), seed=version)
    bias = np.zeros(len(labels), np.float32)
    bias[version] = 1e4
    head = {contract.HEAD_WEIGHT: task.tensors[contract.HEAD_WEIGHT] * 0, contract.HEAD_BIAS: bias}
    return dataclasses.replace(task, labels=tuple(labels), tensors={**task.tensors, **head})


def canaries(bundle: Bundle, prefix: int = 3) -> list[Task]:
    """All versions."""
    return [canary(bundle, version, prefix) for version in range(VERSIONS)]
