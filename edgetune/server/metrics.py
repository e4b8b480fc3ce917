"""The server's metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one server.

    Args:
        queue_rows: returns the number of waiting texts.
    """

    def __init__(self, queue_rows: Callable[[], float]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("edgetune_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.failures = Counter("edgetune_failures", "Failed requests, by reason.", ["reason"], registry=registry)
        self.rows = Counter("edgetune_rows", "Texts answered.", registry=registry)
        self.failed_rows = Counter("edgetune_failed_rows", "Texts that could not be answered.", registry=registry)
        self.tokens = Counter("edgetune_tokens", "Tokens of the answered texts.", registry=registry)
        self.log_lines_dropped = Counter(
            "edgetune_log_lines_dropped", "Log lines that were dropped because nobody read the log.", registry=registry
        )
        self.task_changes = Counter("edgetune_task_changes", "Tasks loaded or unloaded.", ["change"], registry=registry)
        self.request_seconds = _seconds(
            "edgetune_request_seconds", "Time from a request's header to its answer.", registry
        )
        self.queue_seconds = _seconds("edgetune_queue_seconds", "Time that a text waits for its run.", registry)
        self.tokenizing_seconds = _seconds(
            "edgetune_tokenizing_seconds", "Time to tokenize the texts of a run.", registry
        )
        self.inference_seconds = _seconds("edgetune_inference_seconds", "Time of a run of the backbone.", registry)
        self.batch_rows = Histogram(
            "edgetune_batch_rows", "Number of texts in a run.", buckets=_COUNTS, registry=registry
        )
        self.batch_tokens = Histogram(
            "edgetune_batch_tokens", "Number of tokens in a run.", buckets=_COUNTS, registry=registry
        )
        queue = Gauge("edgetune_queue_rows", "Texts that wait for their run.", registry=registry)
        queue.set_function(queue_rows)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def _seconds(name: str, what: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, what, buckets=_SECONDS, registry=registry)
