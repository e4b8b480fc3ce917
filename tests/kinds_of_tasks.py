"""Random tasks of every kind of answer, for single texts and for pairs, all with the same parts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conftest import TEXTS

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.kinds import Answer, Entity, Result, Target
from edgetune_runtime.text import Text
from edgetune_runtime.words import words

TASKS: Mapping[str, tuple[int, dict[str, Any]]] = {
    "mood": (3, {}),
    "tags": (3, {"kind_name": "multi-label", "thresholds": (0.3, 0.5, 0.6)}),
    "stars": (1, {"kind_name": "score"}),
    "names": (2, {"kind_name": "tokens"}),
    "same": (2, {"pairs": True}),
    "topics": (3, {"kind_name": "multi-label", "pairs": True}),
    "alike": (1, {"kind_name": "score", "pairs": True}),
    "parts": (2, {"kind_name": "tokens", "pairs": True}),
    "why": (1, {"kind_name": "spans", "pairs": True, "long_texts": "windows"}),
}
"""Name → number of labels, and changes of the task from `conftest.random_task`."""

SECONDS = [*TEXTS[3:], *TEXTS[:3]]
"""The second text of each pair."""


def make_tasks(make_task: Callable[..., Task]) -> dict[str, Task]:
    """The tasks."""
    return {
        name: dataclasses.replace(
            make_task(name, prefix=0, labels=labels, seed=place, kind_name=more.get("kind_name", "single-label")),
            **more,
        )
        for place, (name, (labels, more)) in enumerate(TASKS.items())
    }


def bundle_of_kinds(bundle_folder: Path, make_task: Callable[..., Task], folder: Path) -> Path:
    """A copy of a bundle, with the tasks."""
    bundle = Bundle(shutil.copytree(bundle_folder, folder))
    for task in make_tasks(make_task).values():
        bundle.add_task(task)
    return bundle.path


def given(task: str) -> list[Text]:
    """The input of a task: texts, or pairs."""
    return list(zip(TEXTS, SECONDS, strict=True)) if TASKS[task][1].get("pairs") else list(TEXTS)


def answers(folder: Path, task: str, min_score: float = 0.0) -> list[Result]:
    """The engine's answers."""
    with Engine(folder) as engine:
        return engine.classify(given(task), task, min_score)


def target_of(task: str, place: int) -> Target:
    """A valid target for a text."""
    kind = TASKS[task][1].get("kind_name")
    if kind == "score":
        return place / 2
    if kind == "tokens":
        text = given(task)[place]
        own = words(text if isinstance(text, str) else text[0])
        return tuple(Entity(*own[word], f"label{word % 2}") for word in range(place % 2, len(own), 3))
    if kind == "spans":
        own = SECONDS[place]
        start, end = words(own)[0]
        return (Answer(start, end, own[start:end]),) if place % 3 else ()
    if kind == "multi-label":
        return tuple(f"label{label}" for label in range(3) if (place + label) % 3 or not place)
    return f"label{place % TASKS[task][0]}"
