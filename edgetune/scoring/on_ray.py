"""Workers as the actors of a Ray Data pool. What they are handed is where shards lie: rows do not go through Ray.

All nodes see the bundle, the inputs and the output folder under the same paths, and have edgetune installed.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from edgetune.scoring.local import MOST_DEATHS, Update
from edgetune.scoring.shards import Shard
from edgetune.scoring.worker import Assignment, Job, Worker
from edgetune_runtime.errors import EdgetuneError

STALL_S = 600.0
"""Seconds without a scored row after which a run gives up: the longest that a worker may take to start."""

BUSY_S = 30.0
"""Seconds to wait for CPUs that others still hold."""

_LOOK_S = 0.5
_CONNECT_S = 10.0


def make_parts(job: Job, assignments: Sequence[Assignment], workers: int) -> Iterator[Update]:
    """Make parts with a pool of so many actors; 0 is as many as there are free CPUs for.

    The cluster is the one that `RAY_ADDRESS` names, or one of this machine that ends with the run.

    Raises:
        EdgetuneError: the cluster has not the resources, or nothing moves any more; a worker met what ends the run, or
            several died at one shard.
    """
    ours = not ray.is_initialized()
    try:
        if ours:
            _check_reachable(os.environ.get("RAY_ADDRESS", ""))
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what Ray Data does by itself
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        yield from _Run(job, assignments, workers).updates()
    except ConnectionError as error:
        raise EdgetuneError(
            f"the Ray cluster does not let us in ({error}): where it asks for a token (as Ray does by itself from 2.60 "
            f"on), set RAY_AUTH_MODE=token"
        ) from error
    except RayError as error:
        raise EdgetuneError(f"Ray failed ({error}): run the same command again, what is done stays done") from error
    finally:
        if ours:
            ray.shutdown()


@ray.remote(num_cpus=0)
class _Board:
    """Where actors write how far they are."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._rows: dict[int, int] = {}

    def begin(self, index: int) -> int:
        """Note that a shard is begun; gives how often."""
        self._begun[index] = self._begun.get(index, 0) + 1
        self._rows[index] = 0
        return self._begun[index]

    def report(self, index: int, rows: int) -> None:
        """Note that so many rows of a shard are scored."""
        self._rows[index] = rows

    def take(self) -> dict[int, int]:
        """Shards of which something was noted since the last time, and their rows."""
        rows, self._rows = self._rows, {}
        return rows


class _Actor:
    """What holds an engine on a node."""

    def __init__(self, job: Job, board: Any) -> None:
        self._board = board
        self._error = ""
        try:
            self._worker = Worker(job)
        except EdgetuneError as error:  # told with the first shard: an actor that cannot start is started for ever
            self._error = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._error:
            return {"index": row["index"], "error": self._error}
        assignment = _assignment(row)
        begun = ray.get(self._board.begin.remote(assignment.index))
        if begun > MOST_DEATHS:
            shard = assignment.shard
            place = f"the {shard.rows:,} rows of {shard.path} from {shard.first:,} on"
            return {"index": row["index"], "error": f"{MOST_DEATHS} workers died at {place}: try fewer --shard-rows"}
        try:
            outcome = self._worker.make(assignment, lambda rows: self._board.report.remote(assignment.index, rows))
        except EdgetuneError as error:
            return {"index": row["index"], "error": str(error)}
        return {"index": row["index"], "outcome": outcome}


class _Run:
    """One run on a cluster that is there."""

    def __init__(self, job: Job, assignments: Sequence[Assignment], workers: int) -> None:
        gpus = 1 if job.settings.device == "cuda" else 0
        size = min(_affordable(workers, job.threads, gpus), len(assignments))
        self._board = _Board.remote()  # type: ignore[attr-defined]
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its progress is ours to show
        # A block for each: left to itself Ray makes one block of so few bytes, and so the work of one actor. An actor
        # that dies is started again and its shards are handed in again, as often as it takes.
        rows = ray.data.from_items([_row(one) for one in assignments], override_num_blocks=len(assignments))
        self._results = rows.map(
            _Actor,
            fn_constructor_args=(job, self._board),
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_cpus=job.threads,
            num_gpus=gpus,
        )
        self._finished: queue.SimpleQueue[dict[str, Any] | BaseException | None] = queue.SimpleQueue()

    def updates(self) -> Iterator[Update]:
        """How far it is, while it runs."""
        threading.Thread(target=self._collect, daemon=True).start()
        moved = time.monotonic()
        while True:
            try:
                result = self._finished.get(timeout=_LOOK_S)
            except queue.Empty:
                for index, rows in ray.get(self._board.take.remote()).items():
                    moved = time.monotonic()
                    yield index, rows
                if time.monotonic() - moved > STALL_S:
                    raise _stalled() from None
                continue
            if result is None:
                return
            if isinstance(result, BaseException):
                raise result
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
    """Raise `EdgetuneError` where nobody listens: Ray waits a minute for it, and then ends the process."""
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


def _affordable(workers: int, threads: int, gpus: int) -> int:
    """How many workers there will be, none of which waits for a CPU for ever: those wished, or as many as there can be.

    Raises:
        EdgetuneError: the cluster has not the resources, or others keep them.
    """
    wanted = max(1, workers)
    if _room(ray.cluster_resources(), threads, gpus) >= wanted:
        for _ in range(round(BUSY_S / _LOOK_S)):
            room = _room(ray.available_resources(), threads, gpus)
            if room >= wanted:
                return workers or room
            time.sleep(_LOOK_S)
    needs = f"{wanted * threads} CPUs" + (f" and {wanted * gpus} GPUs" if gpus else "")
    have, free = ray.cluster_resources(), ray.available_resources()
    cpus, cards = (f"{have.get(kind, 0):g} {kind}s, {free.get(kind, 0):g} of them free" for kind in ("CPU", "GPU"))
    raise EdgetuneError(
        f"{wanted} workers need {needs}, and the Ray cluster has {cpus}{f', and {cards}' if gpus else ''}: try fewer "
        f"--workers, or wait"
    )


def _room(resources: Mapping[str, float], threads: int, gpus: int) -> int:
    """For how many workers there is room."""
    cpus = int(resources.get("CPU", 0)) // threads
    return min(cpus, int(resources.get("GPU", 0)) // gpus) if gpus else cpus


def _stalled() -> EdgetuneError:
    return EdgetuneError(
        f"no row was scored on Ray for {STALL_S:.0f} s (free there: {ray.available_resources()}): see 'ray status', "
        f"and run the same command again; what is done stays done"
    )


def _row(assignment: Assignment) -> dict[str, Any]:
    shard = dataclasses.asdict(assignment.shard)
    return {"index": assignment.index, "part": assignment.part, **shard, "path": str(assignment.shard.path)}


def _assignment(row: Mapping[str, Any]) -> Assignment:
    values = dict(row)
    index, part, path = values.pop("index"), values.pop("part"), values.pop("path")
    return Assignment(int(index), Shard(path=Path(path), **values), part)
