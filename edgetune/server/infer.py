"""The Open Inference Protocol v2, for clients of KServe and Triton.

https://github.com/kserve/open-inference-protocol. A task is a model, and the SHA-256 of its file is its version.
Tensors are JSON, or bytes behind the JSON as in Triton's extension for binary data:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from edgetune.server.errors import malformed, unusable
from edgetune.server.messages import decode, encode
from edgetune_runtime.engine import Result
from edgetune_runtime.task import Task

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of a body are JSON, if bytes of tensors follow."""

OUTPUTS = ("label", "scores")

_UNKNOWN_PARAMETERS = {
    "shared_memory_region": "there is no shared memory here: send the data",
    "classification": "classes are not counted here: read 'label', or 'scores' and the model's labels",
}


class InputTensor(msgspec.Struct, omit_defaults=True):
    """The one input: `text`, BYTES, shape [texts] or [texts, 1]; the data flat or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | list[str]] | None = None
    parameters: dict[str, Any] | None = None


class WantedOutput(msgspec.Struct, omit_defaults=True):
    """An output that a client asks for by name."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, omit_defaults=True):
    """The body of `/v2/models/{task}/infer`."""

    inputs: list[InputTensor]
    outputs: list[WantedOutput] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise `RequestError` unless there is one input that can be read, and only outputs that there are."""
        if len(self.inputs) != 1:
            raise unusable(f"{len(self.inputs)} inputs came: expected one, 'text'")
        (tensor,) = self.inputs
        if (tensor.name, tensor.datatype) != ("text", "BYTES"):
            raise unusable(f"the input is {tensor.name[:60]!r}, {tensor.datatype[:60]!r}: expected 'text', 'BYTES'")
        names = self.output_names()
        if odd := [name for name in names if name not in OUTPUTS]:
            raise unusable(f"there is no output {odd[0][:60]!r}: expected some of {', '.join(OUTPUTS)}")
        if len(set(names)) < len(names):
            raise unusable(f"{len(names)} outputs came: expected each of {', '.join(OUTPUTS)} once at the most")
        for parameters in (tensor.parameters, *(output.parameters for output in self.outputs or ())):
            for name, why in _UNKNOWN_PARAMETERS.items():
                if (parameters or {}).get(name):
                    raise unusable(f"the parameter '{name}' came: {why}")

    def texts(self, binary: bytes) -> list[str]:
        """The texts.

        Args:
            binary: what came behind the JSON.

        Raises:
            RequestError: they are not what the tensor says.
        """
        (tensor,) = self.inputs
        size = (tensor.parameters or {}).get("binary_data_size")
        if (0 if size is None else size) != len(binary):
            raise malformed(f"{len(binary)} bytes came behind the JSON: expected the {size or 0} of 'binary_data_size'")
        if (size is None) == (tensor.data is None):
            raise unusable("the input has no data, or has it twice: expected either 'data' or 'binary_data_size'")
        texts = _read_bytes(binary) if tensor.data is None else _flat(tensor.data)
        if tensor.shape not in ([len(texts)], [len(texts), 1]):
            raise unusable(
                f"the input has shape {tensor.shape[:8]} for {len(texts)} texts: expected [{len(texts)}] or "
                f"[{len(texts)}, 1]"
            )
        return texts

    def output_names(self) -> list[str]:
        """The outputs wanted; all if none is named."""
        return [output.name for output in self.outputs] if self.outputs else list(OUTPUTS)

    def binary_outputs(self) -> set[str]:
        """The outputs that are wanted as bytes behind the JSON."""
        default = (self.parameters or {}).get("binary_data_output", False)
        own = {output.name: (output.parameters or {}).get("binary_data", default) for output in self.outputs or ()}
        return {name for name in OUTPUTS if own.get(name, default)}


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """`label`: BYTES, shaped as the input; `scores`: FP32 [texts, labels], row after row."""

    name: Literal["label", "scores"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str | float] | None = None
    parameters: dict[str, int] | None = None


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


def read_request(body: bytes, header_length: str | None) -> tuple[InferRequest, list[str]]:
    """A request and its texts.

    Args:
        body: JSON, and perhaps bytes behind it.
        header_length: the header that says how many bytes are JSON, if it came.

    Raises:
        RequestError: it is not JSON (400) or not the message (422).
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > length:
            raise malformed(f"{HEADER_LENGTH} is {header_length[:40]!r}: expected a number up to {length}")
        length = int(header_length)
    request = decode(body[:length], InferRequest)
    request.check()
    return request, request.texts(body[length:])


def write_response(request: InferRequest, task: Task, results: Sequence[Result]) -> tuple[bytes, dict[str, str]]:
    """The body of a response and its headers: the outputs wanted in their order."""
    binary = request.binary_outputs()
    outputs, tail = [], b""
    for name in request.output_names():
        output = _label(request, results) if name == "label" else _scores(task, results)
        if name in binary:
            data = _as_bytes(output)
            output.data, output.parameters = None, {"binary_data_size": len(data)}
            tail += data
        outputs.append(output)
    head = encode(InferResponse(task.name, task.sha256, outputs, request.id))
    if not binary.intersection(request.output_names()):
        return head, {"content-type": "application/json"}
    return head + tail, {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


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


def _label(request: InferRequest, results: Sequence[Result]) -> OutputTensor:
    return OutputTensor("label", "BYTES", list(request.inputs[0].shape), [result.best for result in results])


def _scores(task: Task, results: Sequence[Result]) -> OutputTensor:
    scores: list[str | float] = [score for result in results for score in result.scores.values()]
    return OutputTensor("scores", "FP32", [len(results), len(task.labels)], scores)


def _flat(data: Sequence[str | list[str]]) -> list[str]:
    return [text for item in data for text in ([item] if isinstance(item, str) else item)]


def _read_bytes(data: bytes) -> list[str]:
    """Texts of a BYTES tensor: each behind its length, 4 bytes, the lowest first."""
    texts, place = [], 0
    while place < len(data):
        begin = place + 4
        place = begin + int.from_bytes(data[place:begin], "little")
        if place > len(data):
            raise malformed("the bytes behind the JSON end within a text: expected texts, each behind its length")
        try:
            texts.append(data[begin:place].decode())
        except UnicodeDecodeError as error:
            raise unusable("a text is not UTF-8: expected UTF-8") from error
    return texts


def _as_bytes(output: OutputTensor) -> bytes:
    values = output.data or []
    if output.datatype == "FP32":
        return struct.pack(f"<{len(values)}f", *values)
    texts = [str(value).encode() for value in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
