"""What clients send and get: JSON in typed, bounded messages.

Two dialects: the Open Inference Protocol v2 (https://github.com/kserve/open-inference-protocol), where a task is a
model and the SHA-256 of its file its version, and the shape of vLLM's `/classify`
(https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html). Fields that are not named here are passed over.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from edgetune.server.errors import malformed, too_large, unusable
from edgetune.server.settings import Settings
from edgetune_runtime.engine import Result
from edgetune_runtime.task import Task
from edgetune_runtime.text import is_unicode

Message = TypeVar("Message")


class ClassifyRequest(msgspec.Struct):
    """The body of `/v1/classify`."""

    model: str
    input: str | list[str]
    min_score: float = 0.0

    def texts(self) -> list[str]:
        """The texts, one or several."""
        return [self.input] if isinstance(self.input, str) else self.input


class ClassifyData(msgspec.Struct):
    """The answer for one text; `label` is null where the status is "abstained"."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int
    status: Literal["ok", "truncated", "abstained"]


class Usage(msgspec.Struct):
    """Tokens read, special tokens included."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyResponse(msgspec.Struct):
    """The answer of `/v1/classify`: `probs` are in the order of the task's labels."""

    id: str
    model: str
    created: int
    data: list[ClassifyData]
    usage: Usage
    object: Literal["list"] = "list"


class InputTensor(msgspec.Struct):
    """The one input: `text`, BYTES, shape [texts]."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str]


class WantedOutput(msgspec.Struct):
    """An output that a client asks for by name."""

    name: str


class InferRequest(msgspec.Struct):
    """The body of `/v2/models/{task}/infer`."""

    inputs: list[InputTensor]
    outputs: list[WantedOutput] | None = None
    id: str | None = None

    def texts(self) -> list[str]:
        """The texts.

        Raises:
            RequestError: the inputs are not one tensor as it should be.
        """
        if len(self.inputs) != 1:
            raise unusable(f"{len(self.inputs)} inputs came: expected one, 'text'")
        tensor = self.inputs[0]
        if (tensor.name, tensor.datatype) != ("text", "BYTES"):
            raise unusable(f"the input is {tensor.name[:60]!r}, {tensor.datatype[:60]!r}: expected 'text', 'BYTES'")
        if tensor.shape != [len(tensor.data)]:
            raise unusable(
                f"the input has shape {tensor.shape[:8]} for {len(tensor.data)} texts: expected their number"
            )
        return tensor.data

    def output_names(self) -> list[str]:
        """The outputs wanted; all where none is named.

        Raises:
            RequestError: there is no such output.
        """
        if not self.outputs:
            return list(OUTPUTS)
        names = [output.name for output in self.outputs]
        if odd := [name for name in names if name not in OUTPUTS]:
            raise unusable(f"there is no output {odd[0][:60]!r}: expected some of {', '.join(OUTPUTS)}")
        if len(set(names)) < len(names):
            raise unusable(f"{len(names)} outputs came: expected each of {', '.join(OUTPUTS)} once at the most")
        return names


class OutputTensor(msgspec.Struct):
    """`label`: BYTES [texts]; `scores`: FP32 [texts, labels], row after row."""

    name: Literal["label", "scores"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str | float]


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The answer of `infer`."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class TensorMetadata(msgspec.Struct):
    """An input or output; -1 is any number of texts."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """What the protocol says of a model, and a task's labels in the order of its scores."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    labels: list[str]


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


class Error(msgspec.Struct):
    """Why a request is not answered, in one line."""

    error: str


OUTPUTS = ("label", "scores")


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


def classify_response(task: Task, results: Sequence[Result], tokens: int) -> ClassifyResponse:
    """Results in the shape of `/v1/classify`."""
    data = [
        ClassifyData(place, result.label, list(result.scores.values()), len(task.labels), result.status)
        for place, result in enumerate(results)
    ]
    return ClassifyResponse(f"classify-{uuid.uuid4().hex}", task.name, int(time.time()), data, Usage(tokens, tokens))


def infer_response(
    request_id: str | None, outputs: Sequence[str], task: Task, results: Sequence[Result]
) -> InferResponse:
    """Results in the shape of the Open Inference Protocol, the outputs wanted in their order."""
    made = {
        "label": lambda: OutputTensor("label", "BYTES", [len(results)], [result.best for result in results]),
        "scores": lambda: OutputTensor(
            "scores",
            "FP32",
            [len(results), len(task.labels)],
            [score for result in results for score in result.scores.values()],
        ),
    }
    return InferResponse(task.name, task.sha256, [made[name]() for name in outputs], request_id)


def model_metadata(task: Task) -> ModelMetadata:
    """What the protocol says of a task."""
    return ModelMetadata(
        task.name,
        [task.sha256],
        "edgetune_onnxruntime",
        [TensorMetadata("text", "BYTES", [-1])],
        [TensorMetadata("label", "BYTES", [-1]), TensorMetadata("scores", "FP32", [-1, len(task.labels)])],
        list(task.labels),
    )


def task_summary(task: Task) -> TaskSummary:
    """What `/tasks` says of a task."""
    return TaskSummary(task.name, task.sha256, list(task.labels), task.method, task.max_length)
