"""The ways of running a task that `edgetune bench` compares, each in its own process.

A process per contender keeps their thread pools apart. A contender is told what to run and for how long, and returns
the milliseconds of each run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from edgetune_runtime.errors import BackboneError, EdgetuneError

if TYPE_CHECKING:
    from edgetune_runtime.task import Task

_ENDED_EARLY = "a process of the benchmark ended early: see above, and whether there is enough memory"

Rows = Sequence[Sequence[int]]
Prepare = Callable[["Task", Rows], Callable[[], Any]]


class Setup(Protocol):
    """The description of a way to run a task. It is sent to the process that runs it, so it must be picklable."""

    def start(self) -> Prepare:
        """Load everything, in the process. Returns a function that prepares to run rows of token ids with a task."""


@dataclass(frozen=True)
class EngineSetup:
    """The engine with one precision of a bundle."""

    bundle: str
    precision: str
    device: str
    threads: int

    def start(self) -> Prepare:
        """Open the engine."""
        from edgetune_runtime.engine import Engine

        engine = Engine(self.bundle, self.precision, self.device, self.threads)

        def prepare(task: Task, rows: Rows) -> Callable[[], Any]:
            loaded = engine.add_task(task)
            pairs = [(ids, loaded) for ids in rows]
            return lambda: engine.run(pairs)

        return prepare


@dataclass(frozen=True)
class TorchSetup:
    """The PyTorch path: the same backbone, eager, fp32."""

    model: str
    backbone_sha256: str
    device: str
    threads: int

    def start(self) -> Prepare:
        """Load the backbone."""
        import torch

        from edgetune_export.backbone import batch
        from edgetune_export.loading import load_backbone
        from edgetune_runtime import bank

        torch.set_num_threads(self.threads)
        backbone = load_backbone(self.model)
        if backbone.facts.sha256 != self.backbone_sha256:
            raise BackboneError(
                f"{self.model} is not the backbone that the bundle was exported from: its fingerprint is "
                f"{backbone.facts.sha256[:12]}…, the bundle's {self.backbone_sha256[:12]}…"
            )
        backbone.to(self.device)

        def prepare(task: Task, rows: Rows) -> Callable[[], Any]:
            stacked = bank.stack([task], backbone.sizes, backbone.inputs)
            tensors = {name: torch.tensor(array).to(self.device) for name, array in stacked.items()}
            tokens = [backbone.text_encoder.tokens(ids, task) for ids in rows]
            text = {name: tensor.to(self.device) for name, tensor in batch(tokens, backbone.facts).items()}
            index = torch.zeros(len(rows), dtype=torch.int64, device=self.device)

            def run() -> Any:
                with torch.inference_mode():
                    return backbone(**text, task_index=index, **tensors)[0].cpu()

            return run

        return prepare


class Contender:
    """A process that runs a setup; usable as a context manager."""

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Contender:
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()

    def prepare(self, task: Task, rows: Rows) -> None:
        """Prepare to run these rows of token ids, all with this task."""
        self._send((task.to_bytes(), rows))
        self._answer()

    def run(self, seconds: float) -> list[float]:
        """Run the prepared rows for about this long, and at least once. Returns the milliseconds of each run.

        The first quarter of the runs is not counted, unless a single run takes longer than the time.
        """
        self._send(seconds)
        return self._answer()

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise EdgetuneError(_ENDED_EARLY) from error

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise EdgetuneError(_ENDED_EARLY) from error
        if isinstance(answer, EdgetuneError):
            raise answer
        return answer


def _serve(connection: Connection, setup: Setup) -> None:
    from edgetune_runtime.task import Task

    try:
        prepare = setup.start()
    except EdgetuneError as error:
        connection.send(error)
        return
    connection.send("ready")
    run: Callable[[], Any] = int
    took_ms = 0.0
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        if isinstance(message, float):
            if took_ms < message * 1000:  # long runs do not need warm threads and caches
                _repeated(run, message / 4)
            connection.send(_repeated(run, message * 3 / 4))
        else:
            task, rows = message
            run = prepare(Task.from_bytes(task, "the benchmark's task"), rows)
            run()  # compile now, if anything compiles
            (took_ms,) = _repeated(run, 0)
            connection.send("ready")


def _repeated(run: Callable[[], Any], seconds: float) -> list[float]:
    """Run at least once, and until the time is over. Returns the milliseconds of each run."""
    times: list[float] = []
    while not times or sum(times) < seconds * 1000:
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1000)
    return times
