"""Decides when texts run: one bounded queue for all requests and tasks, with deadlines.

On a CPU each text is a separate run with one thread, and there are as many parallel runs as threads; but a text that
finds the machine idle gets all threads. If the engine batches (GPU), a run takes all waiting texts up to a budget of
tokens. Rows with the same tokens share a pass if their tasks have the same parts. A run either answers all its texts,
or embeds all of them. Texts run in order of arrival. A request is accepted as a whole, or rejected immediately if the
texts before it would take longer than the deadline. Texts that waited too long, or whose client disconnected, do not
run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from edgetune.server.errors import RequestError, busy, draining
from edgetune.server.metrics import Metrics
from edgetune_runtime.contract import WINDOWS
from edgetune_runtime.engine import Engine
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text, Tokens

Answered = TypeVar("Answered")

Work = Callable[[Sequence[tuple[Tokens, Task]], int | None], Sequence[Answered]]
"""A method of the engine, such as `answer`, that processes texts with their tasks on a number of threads."""

_BATCH_TOKENS = 16_384
_CHARACTERS_A_TOKEN = 4
_ROW_TOKENS = 8  # cost of a text in addition to its tokens
_SMOOTHING = 0.1
_MARGIN = 0.75  # share of the longest wait that may be predicted, so that almost no accepted text waits too long


class Ticket(Generic[Answered]):
    """The texts of one request on their way through the queue.

    Attributes:
        answer: future of the outcomes of the texts in order, or of an error for all of them; belongs to the event loop.
            An outcome is an answer or an error.
        queue_s: waiting time of the first text.
        run_s: total duration of the runs of all texts.
        tokens: number of tokens of all texts.
    """

    def __init__(self, rows: int, deadline: float, ahead: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[list[Answered | RequestError]] = self._loop.create_future()
        self.outcomes: list[Answered | RequestError | None] = [None] * rows
        self.came = time.monotonic()
        self.deadline = deadline
        self.ahead = ahead
        self.begun = False
        self.over = False
        self.left = rows
        self.queue_s = 0.0
        self.run_s = 0.0
        self.tokens = 0

    def finish(self, error: Exception | None = None) -> None:
        """Deliver the answer; can be called from any thread."""
        self.over = True
        self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result([outcome for outcome in self.outcomes if outcome is not None])


@dataclass(frozen=True)
class _Row:
    ticket: Ticket[Any]
    place: int
    text: Text
    task: Task
    work: Work[Any]
    tokens: int = field(compare=False)  # approximate number


class Scheduler:
    """Runs texts on an engine.

    Args:
        engine: the engine, which only the scheduler runs.
        queue_rows: maximum number of waiting texts.
        queue_s: maximum time until the first text of a request runs.
    """

    def __init__(self, engine: Engine, queue_rows: int, queue_s: float) -> None:
        self._engine = engine
        self._queue_rows = queue_rows
        self._queue_s = queue_s
        self._rows: deque[_Row] = deque()
        self._tokens = 0
        self._token_s = 0.0  # recent waiting time of a request per token before it
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()
        self._workers = 1 if engine.batch_size > 1 else engine.threads
        self._threads: list[threading.Thread] = []
        self.metrics = Metrics(lambda: len(self._rows))

    def start(self) -> None:
        """Open the engine's sessions and begin to run."""
        self._engine.open(*(() if self._workers > 1 else (self._engine.threads,)))
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"edgetune-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Run all waiting texts, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        with self._changed:
            return not self._rows and not self._running

    def lack_of_room(self, rows: int = 1) -> RequestError | None:
        """Why this number of texts cannot be accepted now, and when to retry; `None` if they can."""
        waiting, wait_s = len(self._rows), self._tokens * self._token_s
        if waiting and (waiting + rows > self._queue_rows or wait_s > self._queue_s * _MARGIN):
            return busy(wait_s, f"{waiting} texts wait, for about {wait_s:.1f} s: come again later")
        return None

    def submit(self, texts: Sequence[Text], tasks: Sequence[Task], work: Work[Answered]) -> Ticket[Answered]:
        """Put a request's texts into the queue.

        Args:
            texts: at least one.
            tasks: the task of each.
            work: the engine's method to run on them.

        Raises:
            RequestError: the queue is full, or the server is stopping.
        """
        ticket: Ticket[Answered] = Ticket(len(texts), time.monotonic() + self._queue_s, self._tokens)
        rows = [
            _Row(ticket, place, text, task, work, _about_tokens(text, task))
            for place, (text, task) in enumerate(zip(texts, tasks, strict=True))
        ]
        with self._changed:
            if self._closed:
                raise draining()
            if lack := self.lack_of_room(len(rows)):
                raise lack
            self._rows.extend(rows)
            self._tokens += sum(row.tokens for row in rows)
            self._changed.notify(len(rows))
        return ticket

    def cancel(self, ticket: Ticket[Any]) -> None:
        """Cancel a request whose client no longer waits. Its texts that have not started do not run."""
        ticket.answer.cancel()
        with self._changed:
            if ticket.left and not ticket.over:
                ticket.over = True
                self._rows = deque(row for row in self._rows if row.ticket is not ticket)
                self._tokens = sum(row.tokens for row in self._rows)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            self._run(*taken)
            with self._changed:
                self._running -= 1

    def _take(self) -> tuple[list[_Row], int | None] | None:
        """The rows of the next run and its threads, as `Engine.answer` takes them; `None` at the end."""
        with self._changed:
            while True:
                batch = self._next_batch()
                if batch:
                    alone = not self._running and not self._rows
                    self._running += 1
                    if self._workers == 1:
                        return batch, self._engine.threads
                    return batch, None if alone else 1
                if self._closed:
                    return None
                self._changed.wait()

    def _next_batch(self) -> list[_Row]:
        batch: list[_Row] = []
        tokens, now = 0, time.monotonic()
        while self._rows:
            row = self._rows[0]
            if batch and row.work != batch[0].work:
                break
            shares = bool(batch) and self._shares(batch[-1], row)
            if not shares and (
                len(batch) >= self._engine.batch_size or (batch and tokens + row.tokens > _BATCH_TOKENS)
            ):
                break
            self._rows.popleft()
            self._tokens -= row.tokens
            if row.ticket.over:
                continue
            waited = now - row.ticket.came
            if not row.ticket.begun:
                if now > row.ticket.deadline:
                    row.ticket.finish(busy(waited, f"the request waited {waited:.1f} s, too long: come again later"))
                    continue
                row.ticket.begun, row.ticket.queue_s = True, waited
                self._learn(waited, row.ticket.ahead)
            self.metrics.queue_seconds.observe(waited)
            batch.append(row)
            tokens += row.tokens
        return batch

    def _shares(self, one: _Row, other: _Row) -> bool:
        """Whether two rows of a request share a pass, so that they cost no more than one row."""
        asked_together = one.ticket is other.ticket and one.text == other.text
        return asked_together and self._engine.share_a_pass(one.task, other.task)

    def _learn(self, waited_s: float, tokens: int) -> None:
        # A request that finds the queue empty counts as a wait of 0. Otherwise, after a stall, the server would reject
        # requests forever.
        token_s = waited_s / tokens if tokens else 0.0
        self._token_s += (token_s - self._token_s) * (_SMOOTHING if self._token_s else 1)

    def _run(self, batch: list[_Row], threads: int | None) -> None:
        began = time.monotonic()
        try:
            tokens = self._engine.encode([row.text for row in batch], [row.task for row in batch])
            encoded = time.monotonic()
            pairs = [(ids, row.task) for ids, row in zip(tokens, batch, strict=True)]
            results = batch[0].work(pairs, threads)
        except Exception as error:  # noqa: BLE001 - a worker outlives whatever a text does
            if len(batch) > 1:  # an error that the other texts did not cause
                for row in batch:
                    self._run([row], threads)
            else:
                self._settle(batch, [_failed(error)], [0], time.monotonic() - began)
            return
        ended = time.monotonic()
        lengths = [row.length for row in tokens]
        self.metrics.tokenizing_seconds.observe(encoded - began)
        self.metrics.inference_seconds.observe(ended - encoded)
        self.metrics.batch_rows.observe(len(batch))
        self.metrics.batch_tokens.observe(sum(lengths))
        self._settle(batch, results, lengths, ended - began)

    def _settle(self, batch: Sequence[_Row], outcomes: Sequence[Any], lengths: Sequence[int], seconds: float) -> None:
        with self._changed:
            for row, outcome, length in zip(batch, outcomes, lengths, strict=True):
                ticket = row.ticket
                ticket.outcomes[row.place] = outcome
                ticket.tokens += length
                ticket.run_s += seconds / len(batch)
                ticket.left -= 1
                if not ticket.left:
                    ticket.finish()


def _about_tokens(text: Text, task: Task) -> int:
    characters = len(text) if isinstance(text, str) else sum(map(len, text))
    tokens = characters // _CHARACTERS_A_TOKEN
    return _ROW_TOKENS + (tokens if task.long_texts == WINDOWS else min(tokens, task.max_length))


def _failed(error: Exception) -> RequestError:
    return RequestError(500, "failed", f"the text could not be answered ({type(error).__name__}: {error})")
