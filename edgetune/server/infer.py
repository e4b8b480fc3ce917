"""The Open Inference Protocol v2, for clients of KServe and Triton.

https://github.com/kserve/open-inference-protocol. A task is a model, and its version is the SHA-256 of its file. The
outputs depend on the task's kind. A pair of texts is sent as two inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgetune.server import texts
from edgetune.server.errors import malformed, unfit, unusable
from edgetune.server.messages import decode, encode
from edgetune.server.tensors import InputTensor, OutputTensor, read_texts
from edgetune_runtime.engine import Result
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.kinds.kind import Output
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

HEADER_LENGTH = "inference-header-content-length"
"""The header with the length of a body's JSON, if bytes of tensors follow it."""

OUTPUTS = {output.name for kind in KINDS.values() for output in kind.outputs}
"""The outputs of all kinds."""

_UNKNOWN_PARAMETERS = {
    "shared_memory_region": "there is no shared memory here: send the data",
    "classification": "classes are not counted here: read {outputs} and the model's labels",
}


class WantedOutput(msgspec.Struct, omit_defaults=True):
    """An output that a client requests by name."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, omit_defaults=True):
    """The body of `/v2/models/{task}/infer`: the input `text`, and `text_pair` for tasks that take pairs."""

    inputs: list[InputTensor]
    outputs: list[WantedOutput] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None

    def check(self, task: Task) -> None:
        """Raise `RequestError` unless the inputs fit the task, and the task has the requested outputs."""
        self._check_inputs(task)
        have = [output.name for output in task.kind.outputs]
        names = self.output_names(task)
        if odd := [name for name in names if name not in have]:
            if odd[0] in OUTPUTS:
                raise unfit(f"task '{task.name}' has no output '{odd[0]}': expected some of {', '.join(have)}")
            raise unusable(f"there is no output {odd[0][:60]!r}: expected some of {', '.join(have)}")
        if len(set(names)) < len(names):
            raise unusable(f"{len(names)} outputs came: expected each of {', '.join(have)} once at the most")
        given = [*(tensor.parameters for tensor in self.inputs), *(output.parameters for output in self.outputs or ())]
        for name in (name for parameters in given for name in _UNKNOWN_PARAMETERS if (parameters or {}).get(name)):
            why = _UNKNOWN_PARAMETERS[name].format(outputs=", or ".join(map(repr, have)))
            raise unusable(f"the parameter '{name}' came: {why}")

    def _check_inputs(self, task: Task) -> None:
        wanted, other = texts.names(task.pairs), texts.names(not task.pairs)
        names = [tensor.name for tensor in self.inputs]
        told = " and ".join(map(repr, wanted))
        if sorted(names) == sorted(other):
            takes, came = "pairs of texts" if task.pairs else "single texts", " and ".join(map(repr, other))
            raise unfit(f"task '{task.name}' takes {takes}, and {came} came: expected {told}")
        if len(names) != len(wanted):
            raise unusable(f"{len(names)} inputs came: expected {'two' if task.pairs else 'one'}, {told}")
        for tensor in self.inputs:
            if tensor.name not in wanted or tensor.datatype != "BYTES":
                raise unusable(f"the input is {tensor.name[:60]!r}, {tensor.datatype[:60]!r}: expected {told}, 'BYTES'")
        if len(set(names)) < len(names):
            raise unusable(f"the input {names[0]!r} came twice: expected {told}")

    def texts(self, task: Task, binary: bytes) -> list[Text]:
        """The texts; pairs are tuples.

        Args:
            task: the requested task; the request must have passed `check` for it.
            binary: the bytes after the JSON.

        Raises:
            RequestError: they do not match the tensors' description.
        """
        read = read_texts(self.inputs, binary)
        by_name = {tensor.name: own for tensor, own in zip(self.inputs, read, strict=True)}
        if not task.pairs:
            return list(by_name[texts.TEXT])
        first, second = by_name[texts.TEXT], by_name[texts.TEXT_PAIR]
        if len(first) != len(second):
            raise unusable(f"{len(first)} texts came with {len(second)} second texts: expected as many of both")
        return list(zip(first, second, strict=True))

    def shape(self) -> list[int]:
        """The shape of outputs with one value per text, which is the shape of the first input."""
        return next(list(tensor.shape) for tensor in self.inputs if tensor.name == texts.TEXT)

    def output_names(self, task: Task) -> list[str]:
        """The requested outputs; by default all outputs of the task."""
        wanted = self.outputs or task.kind.outputs
        return [output.name for output in wanted]

    def binary_outputs(self, task: Task) -> set[str]:
        """The outputs that are requested as bytes after the JSON."""
        default = (self.parameters or {}).get("binary_data_output", False)
        own = {output.name: (output.parameters or {}).get("binary_data", default) for output in self.outputs or ()}
        return {name for name in self.output_names(task) if own.get(name, default)}


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The answer of `infer`."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class TensorMetadata(msgspec.Struct):
    """An input or output; -1 means any number of texts."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """The protocol's description of a model, plus the task's labels in the order of its scores."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    labels: list[str]


def read_request(body: bytes, header_length: str | None, task: Task) -> tuple[InferRequest, list[Text]]:
    """Parse a request and its texts.

    Args:
        body: JSON, possibly followed by bytes.
        header_length: the header with the length of the JSON, if it was sent.
        task: the requested task.

    Raises:
        RequestError: it is not JSON (400), not a valid message (422) or not for this task (400).
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > length:
            raise malformed(f"{HEADER_LENGTH} is {header_length[:40]!r}: expected a number up to {length}")
        length = int(header_length)
    request = decode(body[:length], InferRequest)
    request.check(task)
    return request, request.texts(task, body[length:])


def write_response(request: InferRequest, task: Task, results: Sequence[Result]) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a response, with the requested outputs in order."""
    of_kind = {output.name: output for output in task.kind.outputs}
    outputs = [_tensor(of_kind[name], request, task, results) for name in request.output_names(task)]
    binary = request.binary_outputs(task)
    tail = b"".join([output.take_binary() for output in outputs if output.name in binary])
    head = encode(InferResponse(task.name, task.sha256, outputs, request.id))
    if not binary:
        return head, {"content-type": "application/json"}
    return head + tail, {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def model_metadata(task: Task) -> ModelMetadata:
    """The protocol's description of a task."""
    return ModelMetadata(
        task.name,
        [task.sha256],
        "edgetune_onnxruntime",
        [TensorMetadata(name, "BYTES", [-1]) for name in texts.names(task.pairs)],
        [TensorMetadata(output.name, output.datatype, _shape(output, task, [-1])) for output in task.kind.outputs],
        list(task.labels),
    )


def _tensor(output: Output, request: InferRequest, task: Task, results: Sequence[Result]) -> OutputTensor:
    shape = _shape(output, task, [len(results)] if output.by_label else request.shape())
    return OutputTensor(output.name, output.datatype, shape, [value for one in results for value in output.of(one)])


def _shape(output: Output, task: Task, rows: list[int]) -> list[int]:
    return [*rows, len(task.labels)] if output.by_label else rows
