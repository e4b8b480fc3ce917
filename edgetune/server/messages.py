"""What both dialects share: JSON in typed, bounded messages, and what the server says of its tasks."""

from __future__ import annotations

import time
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from edgetune.server.errors import malformed, unusable
from edgetune_runtime.task import Task

Message = TypeVar("Message")


class TaskSummary(msgspec.Struct):
    """What `/tasks` says of a task.

    `kind` is what an answer is, and `kind_title` the same for people; `pairs`: a text is a pair of texts. `thresholds`
    are there if they decide which labels apply, in the order of `labels`.
    """

    task: str
    version: str
    labels: list[str]
    method: str
    max_length: int
    kind: str
    kind_title: str
    pairs: bool
    thresholds: list[float] | UnsetType = UNSET


class RepositoryModel(msgspec.Struct):
    """An entry of the repository's index."""

    name: str
    version: str
    state: Literal["READY"] = "READY"


class ModelCard(msgspec.Struct):
    """A task as OpenAI's clients and vLLM's know a model."""

    id: str
    created: int
    root: str
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: str = "edgetune"
    parent: str | None = None
    permission: list[str] = []


class ModelList(msgspec.Struct):
    """All tasks as models."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class Error(msgspec.Struct):
    """Why a request is not answered, in one line."""

    error: str


def decode(body: bytes, kind: type[Message]) -> Message:
    """Read a message.

    Raises:
        RequestError: it is not JSON (400) or not the message (422).
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise unusable(f"the body is not as expected: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise malformed("the body is nested too deeply") from error


def encode(message: Any) -> bytes:
    """A message as JSON."""
    return msgspec.json.encode(message)


def task_summary(task: Task) -> TaskSummary:
    """What `/tasks` says of a task."""
    return TaskSummary(
        task=task.name,
        version=task.sha256,
        labels=list(task.labels),
        method=task.method,
        max_length=task.max_length,
        kind=task.kind.name,
        kind_title=task.kind.title,
        pairs=task.pairs,
        thresholds=list(task.kind.thresholds(task)) or UNSET,
    )


def model_card(task: Task) -> ModelCard:
    """What `/v1/models` says of a task."""
    return ModelCard(task.name, int(time.time()), task.base_model, task.max_length)
