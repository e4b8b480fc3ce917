"""Examples of questions and answers for the OpenAPI document, made by the code that answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np

from edgetune.server import texts
from edgetune.server.answers import fits_vllm
from edgetune.server.classify import ClassifyRequest, classify_response
from edgetune.server.embeddings import EmbeddingsRequest, embeddings_response
from edgetune.server.infer import InferRequest, write_response
from edgetune.server.rerank import RerankRequest, ranks
from edgetune.server.tensors import InputTensor
from edgetune_runtime.candidates import NO_PLACE
from edgetune_runtime.contract import POOLINGS
from edgetune_runtime.kinds import KINDS, Kind, Read, Result
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.ranking import Ranker
from edgetune_runtime.task import Task

Examples = dict[str, dict[str, Any]]

_LABELS = ("delivery", "damage", "praise")
_TEXTS = ("the parcel came early", "the box was open and the lamp in it broken")
_QUERY = "where is my parcel?"
_LOGITS = (1.5, 0.5, -1.0)
_SURE = 4.0
_TOKENS = 12  # that the text is said to have


def _task(kind: Kind) -> Task:
    labels = _LABELS[: min(len(_LABELS), kind.labels[1])]
    return Task(
        f"a-{kind.name}-task",
        labels,
        "",
        {},
        method="",
        base_model="",
        pooling=next(iter(POOLINGS)),
        kind_name=kind.name,
    )


def _result(task: Task) -> Result:
    if task.kind.reading is None:
        return task.kind.answer(np.array([_LOGITS[: len(task.labels)]], np.float32), task)
    reading, text = task.kind.reading, _TEXTS[int(task.kind.reading.second)]
    places = (*([NO_PLACE] if reading.or_none else []), *reading.pieces(text))
    logits = np.zeros((len(places), task.head_rows), np.float32)
    logits[np.arange(len(places)), np.arange(len(places)) % task.head_rows] = _SURE
    return task.kind.answer(logits, task, Read(text, places))


def _infer_request(pairs: bool) -> InferRequest:
    named = zip(texts.names(pairs), _TEXTS, strict=False)
    return InferRequest([InputTensor(name, [1], "BYTES", [text]) for name, text in named])


def classify_requests(vllm_only: bool) -> Examples:
    """Bodies of the classify routes.

    Args:
        vllm_only: only those that vLLM's route takes.
    """
    first, second = _TEXTS
    body: dict[str, Any] = {"model": "TASK"}
    several = {"summary": "several tasks", "value": {"model": ["TASK", "ANOTHER"], "input": [first, second]}}
    return {
        "text": {"summary": "a text", "value": body | {"input": first}},
        "texts": {"summary": "texts", "value": body | {"input": [first, second]}},
        "pair": {"summary": "a pair", "value": body | {"input": {texts.TEXT: first, texts.TEXT_PAIR: second}}},
        "pairs": {"summary": "pairs", "value": body | {"input": [[first, second], [second, first]]}},
        **({} if vllm_only else {"tasks": several}),
    }


def classify_answers(vllm_only: bool) -> Examples:
    """Answers of the classify routes: one per kind, and one of several tasks.

    Args:
        vllm_only: only those that vLLM's shape has room for.
    """
    found: Examples = {}
    for kind in KINDS.values():
        if fits_vllm(kind) or not vllm_only:
            task = _task(kind)
            request = ClassifyRequest(request_id="1")
            answer = classify_response(request, [task], [_result(task)], _TOKENS)
            found[kind.name] = {"summary": kind.title, "value": msgspec.to_builtins(answer)}
    if not vllm_only:
        # They are asked about one text, and some kinds take pairs alone.
        tasks = [_task(kind) for kind in KINDS.values() if kind.reading is None or not kind.reading.second]
        request = ClassifyRequest(model=[task.name for task in tasks], request_id="1")
        answer = classify_response(request, tasks, list(map(_result, tasks)), _TOKENS)
        found["tasks"] = {"summary": "several tasks", "value": msgspec.to_builtins(answer)}
    return found


def infer_requests() -> Examples:
    """Bodies of the Open Inference Protocol."""
    return {
        name: {"summary": f"a {name}", "value": msgspec.to_builtins(_infer_request(pairs))}
        for name, pairs in (("text", False), ("pair", True))
    }


def infer_answers() -> Examples:
    """Answers of the Open Inference Protocol, one per kind."""
    found: Examples = {}
    for kind in KINDS.values():
        task = _task(kind)
        body, _ = write_response(_infer_request(False), task, [_result(task)])
        found[kind.name] = {"summary": kind.title, "value": msgspec.json.decode(body)}
    return found


def embeddings_requests() -> Examples:
    """Bodies of `/v1/embeddings`."""
    first, second = _TEXTS
    return {
        "text": {"summary": "a text", "value": {"input": first}},
        "texts": {"summary": "texts, packed", "value": {"input": [first, second], "encoding_format": "base64"}},
        "task": {"summary": "behind a task's prompt", "value": {"model": "TASK", "input": first}},
    }


def embeddings_answers() -> Examples:
    """Answers of `/v1/embeddings`, of vectors that are short."""
    vectors = [np.array(_LOGITS, np.float32)]
    found: Examples = {}
    for packing in ("float", "base64"):
        request = EmbeddingsRequest(_TEXTS[0], encoding_format=packing)
        answer = embeddings_response(request, _task(SCORE), vectors, _TOKENS)
        found[packing] = {"summary": packing, "value": msgspec.to_builtins(answer)}
    return found


def _rerank_request(return_text: bool) -> RerankRequest:
    return RerankRequest(_QUERY, list(_TEXTS[::-1]), model="TASK", return_text=return_text)


def rerank_requests() -> Examples:
    """Bodies of `/rerank`."""
    plain = {"query": _QUERY, "texts": list(_TEXTS[::-1])}
    return {
        "task": {"summary": "by the only task that can rank", "value": plain},
        "label": {
            "summary": "by a label of a task",
            "value": {**plain, "model": "TASK", "label": _LABELS[0], "return_text": True},
        },
    }


def rerank_answers() -> Examples:
    """Answers of `/rerank`."""
    task = dataclasses.replace(_task(SCORE), pairs=True)
    results = [task.kind.answer(np.array([[logit]], np.float32), task) for logit in _LOGITS[1::-1]]
    return {
        name: {"summary": name, "value": msgspec.to_builtins(ranks(_rerank_request(text), Ranker(task), results))}
        for name, text in (("plain", False), ("with texts", True))
    }
