"""What both dialects share: JSON in typed, bounded messages, and what the server says of its tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from edgetune.server.errors import malformed, too_large, unusable
from edgetune.server.settings import Settings
from edgetune_runtime.task import Task
from edgetune_runtime.text import is_unicode

Message = TypeVar("Message")


class TaskSummary(msgspec.Struct):
    """What `/tasks` says of a task."""

    task: str
    version: str
    labels: list[str]
    method: str
    max_length: int


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


def check_texts(texts: Sequence[str], settings: Settings) -> None:
    """Raise `RequestError` unless there is at least one text, and none too long or too many."""
    if not texts:
        raise unusable("no text came: expected at least one")
    if len(texts) > settings.max_rows:
        raise too_large(f"{len(texts)} texts came: expected at most {settings.max_rows} a request; send them in parts")
    longest = max(map(len, texts))
    if longest > settings.max_characters:
        raise too_large(f"a text has {longest} characters: expected at most {settings.max_characters}; cut it")
    if not all(map(is_unicode, texts)):
        raise unusable("a text has half of a surrogate pair: expected whole characters")


def task_summary(task: Task) -> TaskSummary:
    """What `/tasks` says of a task."""
    return TaskSummary(task.name, task.sha256, list(task.labels), task.method, task.max_length)


def model_card(task: Task) -> ModelCard:
    """What `/v1/models` says of a task."""
    return ModelCard(task.name, int(time.time()), task.base_model, task.max_length)
