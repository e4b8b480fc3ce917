"""The format of an answer: vLLM's format for kinds of answer that fit it, otherwise the kind's own fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edgetune.server.errors import RequestError
from edgetune_runtime.kinds import KINDS, Kind, Result
from edgetune_runtime.kinds.kind import Column
from edgetune_runtime.task import Task

_NEEDED: Mapping[str, Column] = {"label": "string", "scores": "numbers"}
"""The fields that vLLM's format needs: one label, and a score for each label."""

_SCHEMAS: Mapping[Column, dict[str, Any]] = {
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "numbers": {"type": "object", "additionalProperties": {"type": "number"}},
    "entities": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "start": {"type": "integer", "description": "In characters (Unicode code points) of the text."},
                "end": {"type": "integer"},
                "text": {"type": "string"},
                "score": {"type": "number"},
            },
            "required": ["label", "start", "end", "text", "score"],
        },
    },
}


class ClassifyData(msgspec.Struct):
    """The answer to one text by a task with one label per text. `probs` are in the order of the task's labels.

    `label` is null if the status is "abstained" or "error". With "error", `error` is set and `probs` is empty.
    """

    index: int
    label: str | None
    probs: list[float]
    num_classes: int
    status: Literal["ok", "truncated", "abstained", "error"]
    error: str | UnsetType = UNSET


def fits_vllm(kind: Kind) -> bool:
    """Whether the answers of a kind fit vLLM's format."""
    return _NEEDED.items() <= kind.columns.items()


def row(place: int, task: Task, outcome: Result | RequestError, min_score: float) -> ClassifyData | dict[str, Any]:
    """The answer to one text, or the error.

    Args:
        place: the text's index in the request.
        task: the task that answered.
        outcome: the result or the error for the text.
        min_score: answers that score below it are withheld.
    """
    kind = task.kind
    if isinstance(outcome, RequestError):
        if fits_vllm(kind):
            return ClassifyData(place, None, [], len(task.labels), "error", str(outcome))
        return {"index": place, **dict.fromkeys(kind.columns), "status": "error", "error": str(outcome)}
    result = outcome.at(min_score)
    if fits_vllm(kind):
        values = kind.values(result)
        return ClassifyData(place, values["label"], list(values["scores"].values()), len(task.labels), result.status)
    return {"index": place, **result.fields(), "status": result.status}


def schemas() -> dict[str, dict[str, Any]]:
    """JSON schemas, by name, of answers with their kind's own fields."""
    return {_name(kind): _schema(kind) for kind in KINDS.values() if not fits_vllm(kind)}


def _name(kind: Kind) -> str:
    return "".join(part.capitalize() for part in kind.name.split("-")) + "Data"


def _schema(kind: Kind) -> dict[str, Any]:
    fields = {name: {"anyOf": [_SCHEMAS[column], {"type": "null"}]} for name, column in kind.columns.items()}
    status = {"enum": ["ok", "truncated", "abstained", "error"]}
    return {
        "title": _name(kind),
        "description": f"The answer for one text by a task of the kind '{kind.name}': {kind.title}. Its fields are "
        f'null, and `error` is there, only if the status is "error".',
        "type": "object",
        "properties": {"index": {"type": "integer"}, **fields, "status": status, "error": {"type": "string"}},
        "required": ["index", *fields, "status"],
    }
