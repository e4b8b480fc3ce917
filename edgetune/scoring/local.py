"""Workers as processes on this machine. The backbone's weights are memory-mapped, so all workers share one copy."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from edgetune.scoring.parts import Outcome
from edgetune.scoring.worker import MOST_DEATHS, Assignment, Job, Update, Worker
from edgetune_runtime.errors import EdgetuneError


@dataclass
class _Hired:
    process: SpawnProcess
    line: Connection
    doing: Assignment | None = None


def make_parts(job: Job, assignments: Sequence[Assignment], workers: int) -> Generator[Update, None, None]:
    """Make parts with several processes. A process that dies is replaced, and its shard is repeated.

    Raises:
        EdgetuneError: a worker met a fatal error, or several workers died at the same shard.
    """
    waiting = deque(assignments)
    deaths: dict[int, int] = {}
    hired: list[_Hired] = []
    try:
        for _ in range(min(workers, len(assignments))):
            hired.append(_hire(job))
            _hand_out(hired[-1], waiting)
        while busy := {one.line: one for one in hired if one.doing is not None}:
            for line in wait(list(busy)):
                one = busy[line]  # type: ignore[index]
                assignment = one.doing
                if assignment is None:
                    continue
                try:
                    message = one.line.recv()
                except (EOFError, OSError):
                    one.process.join()
                    deaths[assignment.index] = deaths.get(assignment.index, 0) + 1
                    if deaths[assignment.index] >= MOST_DEATHS:
                        raise _hopeless(assignment, one.process.exitcode) from None
                    yield assignment.index, 0
                    hired.remove(one)
                    hired.append(_hire(job))
                    waiting.appendleft(assignment)
                    _hand_out(hired[-1], waiting)
                    continue
                if isinstance(message, EdgetuneError):
                    raise message
                yield assignment.index, message
                if isinstance(message, Outcome):
                    _hand_out(one, waiting)
    except OSError as error:
        raise EdgetuneError(f"a worker cannot be started ({error.strerror}): try fewer `workers`") from error
    finally:
        for one in hired:
            one.process.kill()  # finished parts are complete, and unfinished parts do not exist
        for one in hired:
            one.process.join()
            one.line.close()


def _hire(job: Job) -> _Hired:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True, name="edgetune-score")
    process.start()
    theirs.close()
    with suppress(OSError):  # it is dead, which is noticed when its line is read
        ours.send(job)
    return _Hired(process, ours)


def _hand_out(one: _Hired, waiting: deque[Assignment]) -> None:
    one.doing = waiting.popleft() if waiting else None
    if one.doing is not None:
        with suppress(OSError):  # as above
            one.line.send(one.doing)


def _hopeless(assignment: Assignment, exit_code: int | None) -> EdgetuneError:
    return EdgetuneError(
        f"{MOST_DEATHS} workers died at {assignment.shard} (the last with {exit_code}; -9 is often too little memory): "
        f"try fewer `workers` or `shard_rows`; what is done stays done"
    )


def _work(line: Connection) -> None:
    """The loop of a worker process: make the requested parts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run handles Ctrl-C and ends its workers
    try:
        job: Job = line.recv()
    except (EOFError, OSError):
        return
    handed_in: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(line, handed_in), daemon=True).start()

    def send(message: object) -> None:
        with suppress(OSError):  # the run has ended, and the other thread ends this process
            line.send(message)

    try:
        worker = Worker(job)
        while True:
            send(worker.make(handed_in.get(), send))
    except EdgetuneError as error:
        send(error)
    except Exception as error:  # noqa: BLE001 - it would be met again by whoever takes the shard next
        traceback.print_exc()
        send(EdgetuneError(f"a worker failed ({type(error).__name__}: {error}): what is done stays done"))


def _listen(line: Connection, handed_in: queue.SimpleQueue[Assignment]) -> None:
    """Receive requests from the run.

    If the run has ended, exit immediately, so that no worker keeps writing without a run.
    """
    try:
        while True:
            handed_in.put(line.recv())
    finally:
        os._exit(1)
