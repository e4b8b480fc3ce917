"""The routes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgetune.server import infer, messages, metrics
from edgetune.server.access import CLASSIFY, EMBEDDINGS, RERANK, TASK_CHANGES, Access
from edgetune.server.classify import ClassifyRequest, classify_response
from edgetune.server.embeddings import EmbeddingsRequest, embeddings_response
from edgetune.server.errors import RequestError, too_large
from edgetune.server.openapi import document
from edgetune.server.rerank import RerankRequest, ranks
from edgetune.server.responses import error_response, json_response
from edgetune.server.scheduler import Answered, Ticket, Work
from edgetune.server.service import Service
from edgetune.server.texts import check_texts, misfit
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/dom.js": ("dom.js", "text/javascript"),
    "/transport.js": ("server.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def build_app(service: Service) -> ASGIApp:
    """The whole application of a service."""
    routes = Routes(service)
    model = "/v2/models/{task}"
    found = [
        Route("/v2", routes.server_metadata),
        Route("/v2/health/live", routes.live),
        Route("/v2/health/ready", routes.ready),
        Route("/health", routes.health),
        Route("/ping", routes.health, methods=["GET", "POST"]),
        Route("/version", routes.version),
        Route("/v1/models", routes.models),
        Route("/v1/models/{task}", routes.model),
        Route("/v2/repository/index", routes.repository_index, methods=["POST"]),
        Route(TASK_CHANGES + "{task}/load", routes.load_task, methods=["POST"]),
        Route(TASK_CHANGES + "{task}/unload", routes.unload_task, methods=["POST"]),
        Route(EMBEDDINGS, routes.embeddings, methods=["POST"]),
        Route(RERANK, routes.rerank, methods=["POST"]),
        Route("/tasks", routes.tasks),
        Route("/metrics", routes.metrics),
        Route("/openapi.json", routes.openapi),
    ]
    for path in (model, model + "/versions/{version}"):
        found += [
            Route(path + "/infer", routes.infer, methods=["POST"]),
            Route(path + "/ready", routes.model_ready),
            Route(path, routes.model_metadata),
        ]
    found += [Route(path, routes.classify, methods=["POST"]) for path in CLASSIFY]
    found += [Route(path, routes.page) for path in _PAGE]
    app = Starlette(
        routes=found,
        exception_handlers={EdgetuneError: _refused, HTTPException: _refused_by_starlette, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return Access(app, service)


class Routes:
    """The handlers of the routes.

    Args:
        service: the service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._engine = service.engine
        self._catalog = service.catalog
        self._scheduler = service.scheduler
        self._settings = service.settings
        self._openapi = json_response(document(service.settings))

    async def server_metadata(self, request: Request) -> Response:
        """Name, version and extensions of the server."""
        return json_response(
            {
                "name": "edgetune",
                "version": version("edgetune"),
                "extensions": ["model_repository", "binary_tensor_data", "classify"],
            }
        )

    async def live(self, request: Request) -> Response:
        """Whether the process is alive."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether requests are accepted."""
        return json_response({"ready": self._service.ready}, 200 if self._service.ready else 503)

    async def health(self, request: Request) -> Response:
        """Whether requests are accepted, in vLLM's form: only the HTTP status."""
        return Response(status_code=200 if self._service.ready else 503)

    async def version(self, request: Request) -> Response:
        """The version, in vLLM's form."""
        return json_response({"version": version("edgetune")})

    async def models(self, request: Request) -> Response:
        """All tasks, in the format of OpenAI's (and vLLM's) list of models."""
        return json_response(messages.ModelList(list(map(messages.model_card, self._catalog.tasks()))))

    async def model(self, request: Request) -> Response:
        """A task, in the format of OpenAI's model."""
        return json_response(messages.model_card(self._task(request)))

    async def model_metadata(self, request: Request) -> Response:
        """A task, in the protocol's format for models."""
        return json_response(infer.model_metadata(self._task(request)))

    async def model_ready(self, request: Request) -> Response:
        """Whether a task is ready."""
        task = self._task(request)
        return json_response({"name": task.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Classify, with the Open Inference Protocol."""
        task = self._task(request)
        header_length = request.headers.get(infer.HEADER_LENGTH)
        # Triton's clients never send a content type, even if bytes follow the JSON.
        self._check_content(request, "", "application/json", "application/octet-stream")
        body = await self._body(request, self._settings.max_body_bytes)
        message, texts = infer.read_request(body, header_length, task)
        outcomes, ticket = await self._answer(request, texts, [task], self._engine.answer)
        results = _all_answered(outcomes)
        content, headers = infer.write_response(message, task, results)
        return Response(content, headers={**headers, **_timing(ticket)})

    async def classify(self, request: Request) -> Response:
        """Classify, in vLLM's format or in the format of the task's kind."""
        self._check_content(request, "application/json")
        message = messages.decode(await self._body(request, self._settings.max_body_bytes), ClassifyRequest)
        message.check()
        tasks = [self._catalog.named(name) for name in message.models]
        for task in tasks:
            message.check_task(task, request.scope["path"])
        outcomes, ticket = await self._answer(request, message.texts(), tasks, self._engine.answer)
        if all(isinstance(outcome, RequestError) for outcome in outcomes):
            raise outcomes[0]  # type: ignore[misc]
        return json_response(classify_response(message, tasks, outcomes, ticket.tokens), headers=_timing(ticket))

    async def embeddings(self, request: Request) -> Response:
        """Embed texts, in OpenAI's format."""
        self._check_content(request, "application/json")
        message = messages.decode(await self._body(request, self._settings.max_body_bytes), EmbeddingsRequest)
        task = self._catalog.reading(message.model)
        message.check_task(task, self._engine.bundle.facts.sizes.hidden)
        outcomes, ticket = await self._answer(request, [*message.texts()], [task], self._engine.pooled)
        response = embeddings_response(message, task, _all_answered(outcomes), ticket.tokens)
        return json_response(response, headers=_timing(ticket))

    async def rerank(self, request: Request) -> Response:
        """Rank texts by their relevance to a query, in the format of text-embeddings-inference."""
        self._check_content(request, "application/json")
        message = messages.decode(await self._body(request, self._settings.max_body_bytes), RerankRequest)
        message.check()
        ranker = message.ranker(self._catalog.ranking(message.model))
        outcomes, ticket = await self._answer(request, message.pairs(), [ranker.task], self._engine.answer)
        return json_response(ranks(message, ranker, _all_answered(outcomes)), headers=_timing(ticket))

    async def tasks(self, request: Request) -> Response:
        """All tasks."""
        return json_response({"tasks": list(map(messages.task_summary, self._catalog.tasks()))})

    async def repository_index(self, request: Request) -> Response:
        """All tasks, in the format of Triton's model repository."""
        return json_response([messages.RepositoryModel(task.name, task.sha256) for task in self._catalog.tasks()])

    async def load_task(self, request: Request) -> Response:
        """Load a task, or replace the one of that name. The request body is the task file."""
        data = await self._body(request, self._settings.max_task_bytes)
        task = await asyncio.to_thread(self._catalog.put, request.path_params["task"], data)
        self._service.metrics.task_changes.labels("load").inc()
        return json_response(messages.task_summary(task))

    async def unload_task(self, request: Request) -> Response:
        """Remove a task from the server and the bundle."""
        await asyncio.to_thread(self._catalog.remove, request.path_params["task"])
        self._service.metrics.task_changes.labels("unload").inc()
        return json_response({})

    async def metrics(self, request: Request) -> Response:
        """Metrics for Prometheus."""
        return Response(self._service.metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        return self._openapi

    async def page(self, request: Request) -> Response:
        """The web page for trying tasks."""
        file, media_type = _PAGE[request.scope["path"]]
        content = (resources.files("edgetune.server") / "page" / file).read_bytes()
        return Response(content, 200, {"content-security-policy": _POLICY, "cache-control": "no-cache"}, media_type)

    def _task(self, request: Request) -> Task:
        return self._catalog.task(request.path_params["task"], request.path_params.get("version"))

    async def _answer(
        self, request: Request, texts: list[Text], tasks: Sequence[Task], work: Work[Answered]
    ) -> tuple[list[Answered | RequestError], Ticket[Answered]]:
        """The outcome of each text for each task, and the ticket of the run.

        Texts that a task does not accept do not run.
        """
        rows = [(text, task) for text in texts for task in tasks]
        check_texts([text for text, _ in rows], self._settings)
        misfits = [misfit(text, task) for text, task in rows]
        fitting = [row for row, why in zip(rows, misfits, strict=True) if why is None]
        if not fitting:
            raise next(filter(None, misfits))
        ticket = self._scheduler.submit([text for text, _ in fitting], [task for _, task in fitting], work)
        gone = asyncio.ensure_future(request.receive())  # the body has been read, so the next message means the end
        try:
            await asyncio.wait((ticket.answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not ticket.answer.done():
                raise _client_gone()
            answered = iter(ticket.answer.result())
        finally:
            gone.cancel()
            self._scheduler.cancel(ticket)
        outcomes: list[Answered | RequestError] = [why or next(answered) for why in misfits]
        failures = [outcome for outcome in outcomes if isinstance(outcome, RequestError)]
        self._service.metrics.rows.inc(len(outcomes) - len(failures))
        self._service.metrics.failed_rows.inc(len(failures))
        self._service.metrics.tokens.inc(ticket.tokens)
        told = {"failed_rows": len(failures), "error": str(failures[0])} if failures else {}
        request.scope["state"] |= {
            "rows": len(outcomes),
            "tokens": ticket.tokens,
            "task": ",".join(task.name for task in tasks),
            **told,
        }
        return outcomes, ticket

    def _check_content(self, request: Request, *types: str) -> None:
        """Raise `RequestError` unless the body has one of these types ("" means no type) and is not compressed."""
        sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent not in types:
            raise RequestError(415, "media_type", "expected the header 'Content-Type: application/json'")
        coding = request.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise RequestError(415, "media_type", f"the body is compressed ({coding[:40]}): send it as it is")

    async def _body(self, request: Request, limit: int) -> bytes:
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise too_large(f"the body has {announced} bytes: expected at most {limit}")
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.client_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large(f"the body has more than {limit} bytes: expected at most that")
        except TimeoutError as error:
            late = f"the body did not come within {self._settings.client_s:g} s"
            raise RequestError(408, "slow_client", late, {"connection": "close"}) from error
        except ClientDisconnect as error:
            raise _client_gone() from error
        return bytes(body)


def _all_answered(outcomes: Sequence[Answered | RequestError]) -> list[Answered]:
    """The answers, for a protocol without a status per text; raises the error of the first text that failed."""
    answered = []
    for outcome in outcomes:
        if isinstance(outcome, RequestError):
            raise outcome
        answered.append(outcome)
    return answered


def _timing(ticket: Ticket[Any]) -> dict[str, str]:
    """https://www.w3.org/TR/server-timing/, in milliseconds."""
    return {"server-timing": f"queue;dur={ticket.queue_s * 1e3:.2f}, run;dur={ticket.run_s * 1e3:.2f}"}


def _client_gone() -> RequestError:
    return RequestError(499, "client_gone", "the client went away")  # no client reads it; it is for the log


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):  # for example a full disk
        error = RequestError(500, "failed", str(error))
    return error_response(error, request.scope)


async def _refused_by_starlette(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = error.detail
    if error.status_code == 404:
        message = "there is nothing at this path: /openapi.json describes what there is"
    elif error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        message = f"{request.method} is not for this path: expected {allowed}"
    refusal = RequestError(error.status_code, "path", message, error.headers)
    return error_response(refusal, request.scope)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(RequestError(500, "failed", "the server failed: its log says why"), request.scope)
