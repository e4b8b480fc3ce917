"""vLLM's `POST /classify`, for its clients, and edgetune's own `POST /v1/classify`, which supports every kind.

https://docs.vllm.ai/en/latest/models/pooling_models/classify/

Both take the same messages, and differ only in the answers that they support. A vLLM field that would change the answer
is rejected, unless it asks for the default behaviour. Fields without effect here (`user`, `priority`, `cache_salt`) and
unknown fields are ignored.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edgetune.server.access import OWN_CLASSIFY, VLLM_CLASSIFY
from edgetune.server.answers import fits_vllm, row
from edgetune.server.errors import RequestError, unfit, unusable
from edgetune.server.texts import Row, TextRow, as_text
from edgetune_runtime.checks import check_min_score
from edgetune_runtime.engine import Result
from edgetune_runtime.errors import DataError
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

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
"""Field → the values that ask for the default behaviour, and a description of it."""


class ClassifyRequest(msgspec.Struct):
    """The body of the classify routes. `model` may be omitted if there is only one task.

    With several names, several tasks answer about each text. Tasks with the same prompt, or without a prompt, share the
    work.
    """

    input: str | TextRow | list[Row] | UnsetType = UNSET
    model: str | list[str] | None = None
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

    @property
    def models(self) -> Sequence[str | None]:
        """The names of the requested tasks; `None` means the only task.

        Raises:
            RequestError: a name in a list is missing or occurs twice.
        """
        if not isinstance(self.model, list):
            return [self.model]
        if not self.model or len(set(self.model)) < len(self.model):
            raise unusable(f"model is {msgspec.json.encode(self.model).decode():.60}: expected names, each once")
        return self.model

    def texts(self) -> list[Text]:
        """The texts, one or several; pairs are tuples.

        Raises:
            RequestError: there is no input, or it is not text.
        """
        if self.input is UNSET:
            raise unusable("the body is not as expected: Object missing required field `input`")
        rows = self.input if isinstance(self.input, list) else [self.input]
        return list(map(as_text, rows))

    def check(self) -> None:
        """Raise `RequestError` if a field asks for something that is not supported."""
        if not 0 <= self.min_score <= 1:
            raise unusable(f"min_score is {self.min_score}: expected a probability, from 0 to 1")
        for name, (taken, why) in _DONE_ANYWAY.items():
            value = getattr(self, name)
            if value not in taken:
                raise unusable(f"{name} is {msgspec.json.encode(value).decode():.60}: {why}; leave it out")

    def check_task(self, task: Task, path: str) -> None:
        """Raise `RequestError` if a task does not support the request, or a route does not support the task's answers.

        Args:
            task: the task.
            path: the route.
        """
        wanted = self.truncate_prompt_tokens
        if wanted is not None and wanted != -1 and wanted < task.max_length:
            raise unusable(
                f"truncate_prompt_tokens is {wanted}, and task '{task.name}' reads {task.max_length} tokens and cuts "
                f"the rest off: leave it out, or send -1"
            )
        if path == VLLM_CLASSIFY and not fits_vllm(task.kind):
            raise unfit(
                f"task '{task.name}' is of the kind '{task.kind.name}' ({task.kind.title}), and vLLM's {path} can only "
                f"tell one label: ask POST {OWN_CLASSIFY}"
            )
        if path == VLLM_CLASSIFY and isinstance(self.model, list):
            raise unfit(f"several models came, and vLLM's {path} asks one: ask POST {OWN_CLASSIFY}")
        try:
            check_min_score(self.min_score, [task])
        except DataError as error:
            raise unfit(str(error)) from error


class Usage(msgspec.Struct):
    """Number of tokens that were read, including special tokens."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyResponse(msgspec.Struct):
    """The answer of the classify routes: one row of `data` per text, in the format of the task's kind.

    If several models are requested, each text has one row per model, with the name in `model`.
    """

    id: str
    model: str | list[str]
    created: int
    data: list[Any]
    usage: Usage
    object: Literal["list"] = "list"


def classify_response(
    request: ClassifyRequest, tasks: Sequence[Task], outcomes: Sequence[Result | RequestError], tokens: int
) -> ClassifyResponse:
    """Results in the format of `/classify`. A text that failed has its own status.

    Args:
        request: the request.
        tasks: the requested tasks.
        outcomes: the outcomes of each text, task by task.
        tokens: number of tokens that were read.
    """
    several = isinstance(request.model, list)
    data = []
    for place, outcome in enumerate(outcomes):
        text, task = place // len(tasks), tasks[place % len(tasks)]
        own = row(text, task, outcome, request.min_score)
        data.append({"model": task.name, **msgspec.to_builtins(own)} if several else own)
    name = f"classify-{request.request_id or uuid.uuid4().hex}"
    model = [task.name for task in tasks] if several else tasks[0].name
    return ClassifyResponse(name, model, int(time.time()), data, Usage(tokens, tokens))
