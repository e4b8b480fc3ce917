"""Workers as the actors of a Ray Data pool. They receive only descriptions of shards; rows do not go through Ray.

All nodes must see the bundle, the inputs and the output folder under the same paths, and have edgetune installed.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import socket
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# Ray reads it on import. Without it, a late thread starts its own cluster after a run has ended.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
import ray
import ray.data
from ray.exceptions import RayError

from edgetune.scoring.parts import Outcome
from edgetune.scoring.worker import MOST_DEATHS, Assignment, Job, Update, Worker
from edgetune_runtime import privacy
from edgetune_runtime.devices import DEVICES
from edgetune_runtime.errors import EdgetuneError

STALL_S = 600.0
"""A run gives up after this many seconds without a sign from any actor. An actor may take this long to start."""

BUSY_S = 30.0
"""Seconds to wait for CPUs that others still use."""

_BEAT_S = 20.0
_LOOK_S = 0.5
_CONNECT_S = 10.0


def make_parts(job: Job, assignments: Sequence[Assignment], workers: int) -> Generator[Update, None, None]:
    """Make parts with a pool of actors; 0 workers means as many as the free CPUs (or GPUs) allow.

    The cluster is the one at `RAY_ADDRESS`, or a local one that ends with the run.

    Raises:
        EdgetuneError: the cluster lacks the resources, there is no progress any more, a worker met a fatal error, or
            several workers died at the same shard.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect()
    try:
        yield from _Run(job, assignments, workers).updates()
    except RayError as error:
        raise _failed(error) from error
    finally:
        if ours:
            ray.shutdown()


def _connect() -> None:
    _check_reachable(os.environ.get("RAY_ADDRESS", ""))
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns about Ray Data's own behaviour
    privacy.turn_off(RAY_USAGE_STATS_ENABLED="0")  # for a cluster that is started here; an existing cluster has its own
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise EdgetuneError(
            f"Ray cannot be reached, or started here ({error}): see RAY_ADDRESS; if the cluster asks for a token "
            f"(as Ray does by itself from 2.60 on), set RAY_AUTH_MODE=token"
        ) from error


@ray.remote(num_cpus=0)
class _Board:
    """The board on which actors report their progress."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._rows: dict[int, int] = {}
        self._beats = 0

    def begin(self, index: int) -> int:
        """Note that a shard was started. Returns how often."""
        self._begun[index] = self._begun.get(index, 0) + 1
        self._rows[index] = 0
        return self._begun[index]

    def report(self, index: int, rows: int) -> None:
        """Note the number of scored rows of a shard."""
        self._rows[index] = rows

    def beat(self) -> None:
        """Note that an actor is alive."""
        self._beats += 1

    def take(self) -> tuple[dict[int, int], int]:
        """Shards with reports since the last call, with their rows, and the number of all beats so far."""
        rows, self._rows = self._rows, {}
        return rows, self._beats


class _Actor:
    """An actor with an engine, on a node."""

    def __init__(self, job: Job, board: Any) -> None:
        self._board = board
        self._error = ""
        try:
            self._worker = Worker(job)
        except EdgetuneError as error:  # reported with the first shard; an error raised here would get lost
            self._error = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._error:
            return {"index": row["index"], "error": self._error}
        assignment = _assignment(row)
        with self._alive():
            try:
                return {"index": row["index"], "outcome": self._make(assignment)}
            except EdgetuneError as error:
                return {"index": row["index"], "error": str(error)}

    def _make(self, assignment: Assignment) -> Outcome:
        if ray.get(self._board.begin.remote(assignment.index)) > MOST_DEATHS:
            raise EdgetuneError(f"{MOST_DEATHS} workers died at {assignment.shard}: try fewer `shard_rows`")
        return self._worker.make(assignment, lambda rows: self._board.report.remote(assignment.index, rows))

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Tell the board regularly that this actor is alive, however long a row takes."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_BEAT_S):
                self._board.beat.remote()

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            over.set()


class _Run:
    """One run on an existing cluster."""

    def __init__(self, job: Job, assignments: Sequence[Assignment], workers: int) -> None:
        gpus = DEVICES[job.settings.device].ray_gpus
        size = min(_affordable(workers, {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}), len(assignments))
        self._board = _Board.remote()  # type: ignore[attr-defined]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        if hasattr(context, "execution_no_progress_timeout_s"):
            context.execution_no_progress_timeout_s = -1  # a shard is one row for Ray, and may take hours
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # we show the progress ourselves
        # One block per shard: by default Ray would put so few bytes into one block, and so give all work to one actor.
        # An actor that dies is restarted and gets its shards again, as often as necessary.
        rows = ray.data.from_items([_row(one) for one in assignments], override_num_blocks=len(assignments))
        self._results = rows.map(
            _Actor,
            fn_constructor_args=(job, self._board),
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=gpus,
        )
        self._finished: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()

    def updates(self) -> Iterator[Update]:
        """The progress, while it runs."""
        threading.Thread(target=self._collect, daemon=True).start()
        moved, seen = time.monotonic(), 0
        while True:
            try:
                result = self._finished.get(timeout=_LOOK_S)
            except queue.Empty:
                under_way, beats = ray.get(self._board.take.remote())
                if under_way or beats != seen:
                    moved, seen = time.monotonic(), beats
                yield from under_way.items()
                if time.monotonic() - moved > STALL_S:
                    raise _stalled() from None
                continue
            if result is None:
                return
            if isinstance(result, Exception):
                raise _failed(result) from result
            if result.get("error"):
                raise EdgetuneError(result["error"])
            moved = time.monotonic()
            yield int(result["index"]), result["outcome"]

    def _collect(self) -> None:
        try:
            for result in self._results.iter_rows():
                self._finished.put(result)
            self._finished.put(None)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that listens
            self._finished.put(error)


def _check_reachable(address: str) -> None:
    """Raise `EdgetuneError` if nobody listens at the address.

    Ray itself would wait a minute and then end the process.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # "auto", "local", or none
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError as error:
        raise EdgetuneError(
            f"there is no Ray cluster at {address} ({error.strerror or error}): see that RAY_ADDRESS is right, or "
            f"unset it, and one of this machine is started"
        ) from error


def _affordable(workers: int, needs: Mapping[str, int]) -> int:
    """The number of workers that can run without waiting for a CPU forever: the wanted number, or as many as possible.

    Args:
        workers: the wanted number; 0 for as many as possible.
        needs: resource → amount that each worker needs.

    Raises:
        EdgetuneError: the cluster lacks the resources, or others occupy them.
    """
    wanted = max(1, workers)
    if _room(ray.cluster_resources(), needs) >= wanted:
        for _ in range(round(BUSY_S / _LOOK_S)):
            room = _room(ray.available_resources(), needs)
            if room >= wanted:
                return workers or room
            time.sleep(_LOOK_S)
    have, free = ray.cluster_resources(), ray.available_resources()
    needed = " and ".join(f"{wanted * number} {kind}s" for kind, number in needs.items())
    found = " and ".join(f"{have.get(kind, 0):g} {kind}s, {free.get(kind, 0):g} of them free" for kind in needs)
    raise EdgetuneError(
        f"{wanted} workers need {needed}, and the Ray cluster has {found}: try fewer `workers`, or wait"
    )


def _room(resources: Mapping[str, float], needs: Mapping[str, int]) -> int:
    """The number of workers for which there is room."""
    return min(int(resources.get(kind, 0)) // number for kind, number in needs.items())


def _stalled() -> EdgetuneError:
    return EdgetuneError(
        f"no actor of Ray was heard of for {STALL_S:.0f} s (free there: {ray.available_resources()}): see 'ray "
        f"status', and run the same command again; what is done stays done"
    )


def _failed(error: Exception) -> EdgetuneError:
    reason = f"{type(error).__name__}: {error}"
    return EdgetuneError(f"Ray failed ({reason}): run the same command again; what is done stays done")


def _row(assignment: Assignment) -> dict[str, Any]:
    return {"index": assignment.index, "assignment": pickle.dumps(assignment)}


def _assignment(row: Mapping[str, Any]) -> Assignment:
    found: Assignment = pickle.loads(row["assignment"])
    return found
