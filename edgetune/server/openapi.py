"""The OpenAPI document."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec

from edgetune.server import classify, infer, messages
from edgetune.server.access import CLASSIFY
from edgetune.server.settings import Settings

_JSON = "application/json"
_REASONS = {
    "400": "Not JSON.",
    "401": "No key, or another one.",
    "403": "Tasks cannot be changed here.",
    "404": "No such task or version.",
    "408": "The body came too slowly.",
    "413": "Too many bytes, texts or characters.",
    "415": "Another content type, or a compressed body.",
    "500": "No text could be classified.",
    "422": "Not the message that was expected.",
    "429": "More than the server can do: come again after `Retry-After` seconds.",
    "503": "Starting, or about to end.",
}
_OBJECT: dict[str, Any] = {"type": "object"}


def document(settings: Settings) -> dict[str, Any]:
    """The description of all routes.

    Args:
        settings: whose bounds the schemas have.
    """
    kinds = [
        classify.ClassifyRequest,
        classify.ClassifyResponse,
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
    text = {"type": "string", "maxLength": settings.max_characters}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": settings.max_rows}
    components["ClassifyRequest"]["properties"] |= {
        "input": {"anyOf": [text, texts]},
        "min_score": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    }
    components["ClassifyRequest"]["required"] = ["input"]
    components["InputTensor"]["properties"]["data"] = texts

    ready = {"type": "object", "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}}}
    model = {
        "/infer": {"post": _operation("Classify texts", of[infer.InferResponse], of[infer.InferRequest])},
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
        path: {"post": _operation("Classify texts", of[classify.ClassifyResponse], of[classify.ClassifyRequest])}
        for path in CLASSIFY
    }
    paths |= {
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
        names = [name for name in ("task", "version") if f"{{{name}}}" in path]
        if names:
            operations["parameters"] = [_parameter(name) for name in names]
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
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer.", "content": {media: {"schema": answer}}},
            **{status: _error(status) for status in errors.split()},
        },
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    return found


def _health() -> dict[str, Any]:
    taken = {"200": {"description": "They are."}, "503": {"description": "They are not."}}
    return {"summary": "Whether requests are taken", "responses": taken}


def _error(status: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": _REASONS[status], "content": {_JSON: {"schema": schema}}}


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
