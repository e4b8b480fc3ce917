"""OpenAI's `POST /v1/embeddings`, for its clients.

https://platform.openai.com/docs/api-reference/embeddings/create

Vectors have length 1, like those of OpenAI and text-embeddings-inference, unless `normalize` is false. `user` and
unknown fields are ignored.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from edgetune.server.errors import unfit, unusable
from edgetune.server.settings import Settings
from edgetune.server.texts import text_schema, texts_schema
from edgetune_runtime.arrays import Array, unit_length
from edgetune_runtime.task import Task


class EmbeddingsRequest(msgspec.Struct):
    """The body of `/v1/embeddings`.

    `model` is a task whose prompt is used. Without it, or with the backbone's own name, the backbone reads the texts
    without a task. `base64` packs a vector as little-endian float32.
    """

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None
    normalize: bool = True

    def texts(self) -> list[str]:
        """The texts, one or several.

        Raises:
            RequestError: they contain token ids.
        """
        rows = [self.input] if isinstance(self.input, str) else self.input
        texts = [row for row in rows if isinstance(row, str)]
        if len(texts) < len(rows):
            raise unusable("token ids came as 'input': expected texts, which the bundle's own tokenizer reads")
        return texts

    def check_task(self, task: Task, size: int) -> None:
        """Raise `RequestError` unless a task reads single texts, and vectors have the requested size.

        Args:
            task: the task that reads the texts.
            size: size of a vector.
        """
        if task.pairs:
            raise unfit(
                f"task '{task.name}' takes pairs of texts, and vectors are made of single ones: name another 'model', "
                f"or leave it out"
            )
        if self.dimensions not in (None, size):
            raise unusable(f"dimensions is {self.dimensions}, and vectors of '{task.name}' have {size}: leave it out")


class Embedding(msgspec.Struct):
    """A text's vector: numbers, or base64 if requested."""

    embedding: list[float] | str
    index: int
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(msgspec.Struct):
    """Tokens read, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct):
    """The answer of `/v1/embeddings`."""

    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"


def embeddings_response(
    request: EmbeddingsRequest, task: Task, features: Sequence[Array], tokens: int
) -> EmbeddingsResponse:
    """Features in the format of `/v1/embeddings`.

    Args:
        request: the request.
        task: the task that read the texts.
        features: the features of each text. Shape: [hidden].
        tokens: number of tokens that were read.
    """
    vectors = np.stack(features)
    if request.normalize:
        vectors = unit_length(vectors)
    packed = _as_base64 if request.encoding_format == "base64" else _as_numbers
    data = [Embedding(packed(vector), place) for place, vector in enumerate(vectors)]
    return EmbeddingsResponse(data, task.name, EmbeddingsUsage(tokens, tokens))


def _as_numbers(vector: Array) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _as_base64(vector: Array) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def embeddings_input_schema(settings: Settings) -> dict[str, Any]:
    """JSON schema of `input`."""
    return {"anyOf": [text_schema(settings), texts_schema(settings)]}
