"""Shared by all protocols: JSON as typed messages with limits, and the descriptions of tasks."""

from __future__ import annotations

import time
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from edgetune.server.errors import malformed, unusable
from edgetune_runtime.task import Task

Message = TypeVar("Message")


class TaskSummary(msgspec.Struct):
    """The description of a task in `/tasks`.

    `kind` is the kind of answer, and `kind_title` its name for people. `pairs` says whether a text is a pair of texts.
    `thresholds`, in the order of `labels`, are present if they decide which labels apply.
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
    """A task in the format of OpenAI's and vLLM's models."""

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
    """The reason why a request was rejected, in one line."""

    error: str


def decode(body: bytes, kind: type[Message]) -> Message:
    """Parse a message.

    Raises:
        RequestError: it is not JSON (400) or not a valid message (422).
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
    """The description of a task in `/tasks`."""
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
    """The description of a task in `/v1/models`."""
    return ModelCard(task.name, int(time.time()), task.base_model, task.max_length)
