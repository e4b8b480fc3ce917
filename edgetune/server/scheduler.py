"""When a text runs: one queue for all requests and tasks, bounded, with deadlines.

On a CPU a text is a run of its own, and there are as many runs at a time as threads, one thread each; a text that
finds the machine idle gets all threads. If the engine batches (GPU), a run takes what waits, up to a budget of tokens;
rows with the same tokens share a pass if their tasks have the same parts. All texts of a run are answered, or all are
made vectors. Texts run in the order in which they came. A request is accepted whole or refused at once, when what waits
before it would take longer than the deadline; texts of a client that went away, or that waited too long, do not run.
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
"""What is done with texts, each with its task, on so many threads: a method of the engine, such as `answer`."""

_BATCH_TOKENS = 16_384
_CHARACTERS_A_TOKEN = 4
_ROW_TOKENS = 8  # what a text costs beside its tokens
_SMOOTHING = 0.1
_MARGIN = 0.75  # of the longest wait is what may be foreseen, so that next to nothing accepted waits too long


class Ticket(Generic[Answered]):
    """One request's texts on their way through the queue.

    Attributes:
        answer: becomes what came of each text, in their order, or the error of all; belongs to the event loop. What
            came of a text is its answer, or why it has none.
        queue_s: how long the first of the texts waited.
        run_s: how long runs took, all texts together.
        tokens: tokens of all texts.
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
        """Hand the answer to whom it was promised, from any thread."""
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
    tokens: int = field(compare=False)  # about how many


class Scheduler:
    """Runs texts on an engine.

    Args:
        engine: the engine; the scheduler is the only one that runs it.
        queue_rows: most texts that wait.
        queue_s: longest that a request waits for the first of its texts to run.
    """

    def __init__(self, engine: Engine, queue_rows: int, queue_s: float) -> None:
        self._engine = engine
        self._queue_rows = queue_rows
        self._queue_s = queue_s
        self._rows: deque[_Row] = deque()
        self._tokens = 0
        self._token_s = 0.0  # how long a request waits for each token before it, as seen of late
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
        """Run what waits and end."""
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
        """Why so many texts could not be accepted now, and when to come again; `None`: they could."""
        waiting, wait_s = len(self._rows), self._tokens * self._token_s
        if waiting and (waiting + rows > self._queue_rows or wait_s > self._queue_s * _MARGIN):
            return busy(wait_s, f"{waiting} texts wait, for about {wait_s:.1f} s: come again later")
        return None

    def submit(self, texts: Sequence[Text], tasks: Sequence[Task], work: Work[Answered]) -> Ticket[Answered]:
        """Put a request's texts into the queue.

        Args:
            texts: at least one.
            tasks: the task of each.
            work: what is done with them.

        Raises:
            RequestError: there is no room, or the server is stopping.
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
        """Nobody waits for a request's answer any more: those of its texts that have not begun do not run."""
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
        """Whether two rows of a request share a pass: then they are no more work than one."""
        asked_together = one.ticket is other.ticket and one.text == other.text
        return asked_together and self._engine.share_a_pass(one.task, other.task)

    def _learn(self, waited_s: float, tokens: int) -> None:
        # Who finds the queue empty tells that it moves: after a stall the server does not refuse for ever.
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
            if len(batch) > 1:  # of which the others are not to blame
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
