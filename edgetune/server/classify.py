"""vLLM's `POST /classify`, for its clients.

https://docs.vllm.ai/en/latest/models/pooling_models/classify/

A field of vLLM's that would change the answer is refused unless it asks for what is done anyway. Fields that change
nothing here (`user`, `priority`, `cache_salt`) and fields that nobody knows are passed over.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edgetune.server.errors import RequestError, unusable
from edgetune_runtime.engine import Result
from edgetune_runtime.task import Task

_Flag = bool | Literal[0, 1] | None

_DONE_ANYWAY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "messages": ((None,), "chat messages are not read: send the text as 'input'"),
    "add_special_tokens": ((None, True), "special tokens are always added"),
    "softmax": ((None, True), "scores are always probabilities"),
    "activation": ((None, True), "scores are always probabilities"),
    "use_activation": ((None, True), "scores are always probabilities"),
    "truncation_side": ((None, "right"), "a long text is always cut at its end"),
    "padding": ((None, "do_not_pad"), "texts are never padded"),
    "mm_processor_kwargs": ((None, {}), "only text is read"),
}
"""Field → the values that ask for what is done anyway, and what that is."""


class ClassifyRequest(msgspec.Struct):
    """The body of `/classify`. `model` may be left out if there is only one task."""

    input: str | list[str | int | list[int]] | UnsetType = UNSET
    model: str | None = None
    min_score: float = 0.0
    request_id: str | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: str | None = None
    padding: str | None = None
    add_special_tokens: _Flag = True
    use_activation: _Flag = None
    activation: _Flag = None
    softmax: _Flag = None
    messages: Any = None
    mm_processor_kwargs: Any = None

    def texts(self) -> list[str]:
        """The texts, one or several.

        Raises:
            RequestError: there is no input, or it is not text.
        """
        if self.input is UNSET:
            raise unusable("the body is not as expected: Object missing required field `input`")
        rows = [self.input] if isinstance(self.input, str) else self.input
        if not all(isinstance(row, str) for row in rows):
            raise unusable("token ids came as 'input': expected texts, which each task puts into its own template")
        return rows  # type: ignore[return-value]

    def check(self) -> None:
        """Raise `RequestError` if a field asks for what is not done."""
        if not 0 <= self.min_score <= 1:
            raise unusable(f"min_score is {self.min_score}: expected a probability, from 0 to 1")
        for name, (taken, why) in _DONE_ANYWAY.items():
            value = getattr(self, name)
            if value not in taken:
                raise unusable(f"{name} is {msgspec.json.encode(value).decode():.60}: {why}; leave it out")

    def check_length(self, task: Task) -> None:
        """Raise `RequestError` if texts are to be cut before the task would cut them."""
        wanted = self.truncate_prompt_tokens
        if wanted is not None and wanted != -1 and wanted < task.max_length:
            raise unusable(
                f"truncate_prompt_tokens is {wanted}, and task '{task.name}' reads {task.max_length} tokens and cuts "
                f"the rest off: leave it out, or send -1"
            )


class ClassifyData(msgspec.Struct):
    """The answer for one text.

    `label` is null if the status is "abstained" or "error"; `error` is there, and `probs` is empty, only with the
    latter.
    """

    index: int
    label: str | None
    probs: list[float]
    num_classes: int
    status: Literal["ok", "truncated", "abstained", "error"]
    error: str | UnsetType = UNSET


class Usage(msgspec.Struct):
    """Tokens read, special tokens included."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyResponse(msgspec.Struct):
    """The answer of `/classify`: `probs` are in the order of the task's labels."""

    id: str
    model: str
    created: int
    data: list[ClassifyData]
    usage: Usage
    object: Literal["list"] = "list"


def classify_response(
    request: ClassifyRequest, task: Task, outcomes: Sequence[Result | RequestError], tokens: int
) -> ClassifyResponse:
    """Results in the shape of `/classify`; a text that failed has a status of its own."""
    data = [_row(place, task, outcome, request.min_score) for place, outcome in enumerate(outcomes)]
    name = f"classify-{request.request_id or uuid.uuid4().hex}"
    return ClassifyResponse(name, task.name, int(time.time()), data, Usage(tokens, tokens))


def _row(place: int, task: Task, outcome: Result | RequestError, min_score: float) -> ClassifyData:
    classes = len(task.labels)
    if isinstance(outcome, RequestError):
        return ClassifyData(place, None, [], classes, "error", str(outcome))
    result = outcome.at(min_score)
    return ClassifyData(place, result.label, list(result.scores.values()), classes, result.status)
