"""The OpenAPI document."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec

from edgetune.server import answers, classify, embeddings, examples, infer, messages, rerank
from edgetune.server.access import EMBEDDINGS, OWN_CLASSIFY, RERANK, VLLM_CLASSIFY
from edgetune.server.examples import Examples
from edgetune.server.settings import Settings
from edgetune.server.texts import TextRow, input_schema, names, row_schema, text_schema, texts_schema

_JSON = "application/json"
_REASONS = {
    "400": "Not JSON, or nothing that the task answers.",
    "401": "No key, or another one.",
    "403": "Tasks cannot be changed here.",
    "404": "No such task or version.",
    "408": "The body came too slowly.",
    "413": "Too many bytes, texts or characters.",
    "415": "Another content type, or a compressed body.",
    "500": "No text could be answered.",
    "422": "Not the message that was expected.",
    "429": "More than the server can do: come again after `Retry-After` seconds.",
    "503": "Starting, or about to end.",
}
_OBJECT: dict[str, Any] = {"type": "object"}


def document(settings: Settings) -> dict[str, Any]:
    """The description of all routes.

    Args:
        settings: the settings with the limits for the schemas.
    """
    kinds = [
        classify.ClassifyRequest,
        TextRow,
        classify.ClassifyResponse,
        answers.ClassifyData,
        embeddings.EmbeddingsRequest,
        embeddings.EmbeddingsResponse,
        rerank.RerankRequest,
        rerank.Rank,
        infer.InferRequest,
        infer.InferResponse,
        infer.ModelMetadata,
        messages.ModelList,
        messages.ModelCard,
        messages.TaskSummary,
        messages.RepositoryModel,
        messages.Error,
    ]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    of = dict(zip(kinds, schemas, strict=True))
    components["ClassifyRequest"]["properties"] |= {
        "input": input_schema(settings, of[TextRow]),
        "min_score": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    }
    components["ClassifyRequest"]["required"] = ["input"]
    components["TextRow"]["properties"] = row_schema(settings)
    components["EmbeddingsRequest"]["properties"]["input"] = embeddings.embeddings_input_schema(settings)
    components["RerankRequest"]["properties"] |= {
        "query": text_schema(settings),
        "texts": texts_schema(settings),
        "truncation_direction": {"enum": ["Right", "right", None], "default": None},
    }
    inputs, outputs = components["InputTensor"]["properties"], components["OutputTensor"]["properties"]
    inputs["name"] = {"enum": list(names(pairs=True))}
    inputs["data"] = texts_schema(settings)
    outputs["name"] = {"enum": sorted(infer.OUTPUTS)}
    rows = answers.schemas()
    components |= rows
    response, any_kind = components["ClassifyResponse"], "ClassifyResponseOfAnyKind"
    of_any_kind = {"anyOf": [of[answers.ClassifyData], *map(_ref, rows)]}
    components[any_kind] = {**_with_rows(response, of_any_kind), "title": any_kind}
    components["ClassifyResponse"] = _with_rows(response, of[answers.ClassifyData])

    ready = {"type": "object", "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}}}
    infer_examples = examples.infer_answers(), examples.infer_requests()
    model = {
        "/infer": {
            "post": _operation(
                "Classify texts", of[infer.InferResponse], of[infer.InferRequest], examples=infer_examples
            )
        },
        "/ready": {"get": _operation("Whether a task answers", ready, errors="401 404 503")},
        "": {"get": _operation("A task as a model", of[infer.ModelMetadata], errors="401 404 503")},
    }
    changes = "/v2/repository/models/{task}"
    file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    load = _operation("Load or replace a task; the body is its file", of[messages.TaskSummary])
    load["requestBody"] = {"required": True, "content": file}
    load["responses"]["403"] = _error("403")
    tasks = {"type": "object", "properties": {"tasks": {"type": "array", "items": of[messages.TaskSummary]}}}
    index = {"type": "array", "items": of[messages.RepositoryModel]}
    paths: dict[str, Any] = {
        path: {
            "post": _operation(
                f"Classify texts{what}",
                answer,
                of[classify.ClassifyRequest],
                examples=(examples.classify_answers(vllm_only), examples.classify_requests(vllm_only)),
            )
        }
        for path, what, answer, vllm_only in (
            (VLLM_CLASSIFY, " by a task that gives one label, as vLLM does", of[classify.ClassifyResponse], True),
            (OWN_CLASSIFY, ", in the shape of the task's kind", _ref(any_kind), False),
        )
    }
    paths |= {
        EMBEDDINGS: {
            "post": _operation(
                "Texts as vectors, as OpenAI does it",
                of[embeddings.EmbeddingsResponse],
                of[embeddings.EmbeddingsRequest],
                examples=(examples.embeddings_answers(), examples.embeddings_requests()),
            )
        },
        RERANK: {
            "post": _operation(
                "Texts in the order of their relevance to a query, as text-embeddings-inference does it",
                {"type": "array", "items": of[rerank.Rank]},
                of[rerank.RerankRequest],
                examples=(examples.rerank_answers(), examples.rerank_requests()),
            )
        },
        "/v1/models": {"get": _operation("All tasks as models", of[messages.ModelList], errors="401 503")},
        "/v1/models/{task}": {"get": _operation("A task as a model", of[messages.ModelCard], errors="401 404 503")},
        "/health": {"get": _health()},
        "/ping": {"get": _health(), "post": _health()},
        "/version": {"get": _operation("The server's version", _OBJECT, errors="")},
        "/tasks": {"get": _operation("All tasks", tasks, errors="401 503")},
        "/v2": {"get": _operation("The server", _OBJECT, errors="401 503")},
        "/v2/health/live": {"get": _operation("Whether the process answers", _OBJECT, errors="")},
        "/v2/health/ready": {"get": _operation("Whether requests are taken", ready, errors="503")},
        "/v2/repository/index": {"post": _operation("All tasks", index, errors="401 503")},
        f"{changes}/load": {"post": load},
        f"{changes}/unload": {"post": _operation("Unload a task", _OBJECT, errors="401 403 404 503")},
        "/metrics": {"get": _operation("Figures for Prometheus", {"type": "string"}, errors="401", media="text/plain")},
    }
    for base in ("/v2/models/{task}", "/v2/models/{task}/versions/{version}"):
        paths |= {base + end: operation for end, operation in model.items()}
    for path, operations in paths.items():
        filled = [name for name in ("task", "version") if f"{{{name}}}" in path]
        if filled:
            operations["parameters"] = [_parameter(name) for name in filled]
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgetune", "version": version("edgetune"), "description": __doc__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(
    summary: str,
    answer: dict[str, Any],
    body: dict[str, Any] | None = None,
    errors: str = "400 401 404 408 413 415 422 429 500 503",
    media: str = _JSON,
    examples: tuple[Examples, Examples] = ({}, {}),
) -> dict[str, Any]:
    """An operation, with examples of the answer and of the body."""
    of_answer, of_body = ({"examples": some} if some else {} for some in examples)
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer.", "content": {media: {"schema": answer, **of_answer}}},
            **{status: _error(status) for status in errors.split()},
        },
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": {_JSON: {"schema": body, **of_body}}}
    return found


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _with_rows(response: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The schema of a response with these rows."""
    return {**response, "properties": {**response["properties"], "data": {"type": "array", "items": row}}}


def _health() -> dict[str, Any]:
    taken = {"200": {"description": "They are."}, "503": {"description": "They are not."}}
    return {"summary": "Whether requests are taken", "responses": taken}


def _error(status: str) -> dict[str, Any]:
    return {"description": _REASONS[status], "content": {_JSON: {"schema": _ref("Error")}}}


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
