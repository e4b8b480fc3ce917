"""Passes through the backbone: token ids and a task's parts in, features out.

On a CPU each pass is a run of its own, at its exact length: nothing is padded, no text has neighbours, and the
features depend on the text and the parts alone, in every precision. One pass uses all threads; many run side by side,
one thread each. If `edgetune tune` found that it pays, and that features are the same to the bit, passes of like length
with the same parts share a run. On a GPU passes of like length share a run.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort

from edgetune_runtime import bank, contract, forks, prepared
from edgetune_runtime.arrays import Array
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.devices import Device
from edgetune_runtime.errors import TextError
from edgetune_runtime.parts import HEAD
from edgetune_runtime.pieces import stacked_spans
from edgetune_runtime.session import open_session
from edgetune_runtime.setups import DEFAULT, Setup
from edgetune_runtime.task import Task
from edgetune_runtime.text import Tokens

_BANKS_KEPT = 64  # making one takes a tenth of a millisecond
_LENGTHS_KEPT = 128  # making the inputs of one takes a fiftieth of a millisecond
_MOST_PADDING = 1.25  # the longest text of a run, over its shortest
_FEWEST_SPANS = 2
"""Where there is one, onnxruntime adds up in another order. So the features of a span are the same to the bit whatever
other spans are read with it."""

PartsKey = tuple[str, str]


@dataclass(frozen=True)
class Pass:
    """One text with the parts of a task.

    Attributes:
        tokens: the text.
        task: a task that has the parts; its head is not used.
    """

    tokens: Tokens
    task: Task


class Runner:
    """Runs passes in the graphs of a bundle. Safe to use from several threads.

    Args:
        bundle: the bundle.
        device: what the graphs run on.
        threads: CPU threads.
        batch_size: most passes in one run.
        prepare: whether graphs are kept as this CPU runs them (see `prepared`).
        setups: precision → how it is run here.
        cache: folder for prepared graphs; `prepared.cache_folder()`.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        threads: int,
        batch_size: int,
        prepare: bool,
        setups: Mapping[str, Setup] = MappingProxyType({}),
        cache: Path | None = None,
    ) -> None:
        self._bundle, self._device = bundle, device
        self._threads, self._batch_size = threads, batch_size
        self._prepare = prepare and device.prepares
        self._setups, self._cache = setups, cache
        self._inputs = frozenset(bundle.facts.inputs)
        self._first_generation = contract.is_first_generation(self._inputs)
        self._lock, self._session_lock = threading.Lock(), threading.Lock()
        self._sessions: dict[tuple[str, str, int], ort.InferenceSession] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._banks: dict[PartsKey, dict[str, ort.OrtValue]] = {}
        self._plain_inputs: dict[int, dict[str, ort.OrtValue]] = {}

    def renew(self) -> None:
        """Make it usable in a forked process: graphs are opened again when they are needed."""
        self._lock, self._session_lock, self._pool = threading.Lock(), threading.Lock(), None
        left, self._sessions = self._sessions, {}
        forks.leave(left)
        if not self._device.survives_fork:  # banks on a CPU are memory alone, and stay
            left_values, self._banks, self._plain_inputs = (self._banks, self._plain_inputs), {}, {}
            forks.leave(left_values)

    def close(self) -> None:
        """End the threads. Using it again starts them again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def parts(self, task: Task) -> PartsKey:
        """The key that tasks must share to share a pass over the same tokens."""
        pools = self._first_generation or task.pooling in contract.TRANSFORMS
        return task.parts_sha256, task.pooling if pools else ""

    def keep(self, tasks: Collection[Task]) -> None:
        """Drop what is kept for the parts of other tasks."""
        live = {self.parts(task) for task in tasks}
        with self._lock:
            self._banks = {key: kept for key, kept in self._banks.items() if key in live}

    def open(self, precision: str, threads: int, tasks: Collection[Task]) -> None:
        """Open all that runs of these tasks with so many threads need, so that no text waits for it.

        Raises:
            BundleError: a graph is missing or damaged.
        """
        for variant in {self._bundle.facts.variant_for(task) for task in tasks} or {contract.BASE}:
            self._session(precision, variant, threads)

    def thread_counts(self, precision: str) -> set[int]:
        """The numbers of threads that runs have: texts that are alone, and several side by side."""
        several = {1} if self._device.threads else set()
        lone = self._setup(precision).threads.values()
        return {self._threads, *several, *(min(number, self._threads) for number in lone)}

    def run(self, passes: Sequence[Pass], precision: str, threads: int | None = None) -> list[Array]:
        """Features of each pass.

        Args:
            passes: the passes.
            precision: a precision of the bundle.
            threads: CPU threads inside a run, and the runs one after the other; `None` for all threads, or as many as
                the setup says for one run, several runs side by side.

        Shape:
            output: a list of [spans of the pass, hidden]

        Raises:
            BundleError: a graph is missing or damaged, or fails on a text (`TextError`).
        """
        if not passes:  # which needs no session
            return []
        batches = [part for batch in self._batches(passes, precision, threads) for part in self._fitting(batch)]
        if threads is None and len(batches) > 1 and self._threads > 1 and self._device.threads:
            outputs = self._side_by_side(lambda batch: self._run_batch(precision, 1, batch), batches)
        else:
            number = threads or self._threads_alone(precision, batches)
            outputs = (self._run_batch(precision, number, batch) for batch in batches)
        features: list[Array] = [np.empty(0)] * len(passes)
        for batch, output in zip(batches, outputs, strict=True):
            for (place, one), values in zip(batch, output, strict=True):
                features[place] = values[: len(one.tokens.spans)]
        return features

    def _setup(self, precision: str) -> Setup:
        return self._setups.get(precision, DEFAULT)

    def _threads_alone(self, precision: str, batches: Sequence[_Batch]) -> int:
        tokens = max(len(one.tokens.ids) for batch in batches for _, one in batch)
        return self._setup(precision).threads_for(tokens, self._threads)

    def _batches(self, passes: Sequence[Pass], precision: str, threads: int | None) -> Iterable[_Batch]:
        rows = self._setup(precision).rows if self._bundle.manifest.graphs[precision].batch_invariant else 1
        if self._batch_size > 1 or rows == 1:
            return _batches(passes, self._batch_size)
        by_parts: dict[PartsKey, list[tuple[int, Pass]]] = defaultdict(list)
        for place, one in enumerate(passes):
            by_parts[self.parts(one.task)].append((place, one))
        # All threads get something to do.
        most = min(rows, math.ceil(len(passes) / self._threads)) if threads is None else rows
        batches = [batch for group in by_parts.values() for batch in _of_like_length(group, most)]
        # The longest first, so that no thread is left with one at the end.
        return sorted(batches, key=lambda batch: -len(batch) * len(batch[-1][1].tokens.ids))

    def _fitting(self, batch: _Batch) -> list[_Batch]:
        """A batch; its passes one by one if what fills them up would have positions that the backbone does not.

        That is so if a text that takes all positions comes together with a task whose texts begin behind a prompt.
        """
        if len(batch) == 1:
            return [batch]
        longest = max(len(one.tokens.ids) for _, one in batch)
        offset = max(one.task.position_offset for _, one in batch)
        fits = longest + offset <= self._bundle.facts.max_positions
        return [batch] if fits else [[row] for row in batch]

    def _run_batch(self, precision: str, threads: int, batch: _Batch) -> Array:
        """Features of a batch. Shape: [batch, spans, hidden]."""
        rows = [one for _, one in batch]
        tasks = {self.parts(one.task): one.task for one in rows}
        variant = self._bundle.facts.variant_for(*tasks.values())
        session = self._session(precision, variant, threads)
        arrays = {contract.INPUT_IDS: _padded([one.tokens.ids for one in rows])}
        feed: dict[str, ort.OrtValue] = {}
        if len(rows) == 1:
            feed |= self._plain(len(rows[0].tokens.ids))
        else:
            row_of = {key: row for row, key in enumerate(tasks)}
            arrays[contract.ATTENTION_MASK] = _padded([[1] * len(one.tokens.ids) for one in rows])
            arrays[contract.TASK_INDEX] = np.array([row_of[self.parts(one.task)] for one in rows], np.int64)
        if contract.TOKEN_TYPE_IDS in self._inputs and (len(rows) > 1 or any(rows[0].tokens.type_ids)):
            arrays[contract.TOKEN_TYPE_IDS] = _padded([one.tokens.type_ids for one in rows])
        if contract.SPANS in self._inputs:
            arrays[contract.SPANS] = stacked_spans([one.tokens.spans for one in rows], _FEWEST_SPANS)
        feed |= {name: self._value(array) for name, array in arrays.items()} | self._bank(tasks, variant)
        try:
            (output,) = session.run_with_ort_values([contract.FEATURES], feed)
        except Exception as error:  # onnxruntime's have no common base
            raise TextError(f"the backbone fails on {len(rows)} texts ({error}): export the bundle again") from error
        features: Array = output.numpy()
        return features[:, np.newaxis] if self._first_generation else features

    def _plain(self, length: int) -> dict[str, ort.OrtValue]:
        """The inputs that are the same for all single texts of a length."""
        kept = self._plain_inputs.get(length)
        if kept is not None:
            return kept
        arrays = {
            contract.ATTENTION_MASK: np.ones((1, length), np.int64),
            contract.TASK_INDEX: np.zeros(1, np.int64),
        }
        if contract.TOKEN_TYPE_IDS in self._inputs:
            arrays[contract.TOKEN_TYPE_IDS] = np.zeros((1, length), np.int64)
        values = {name: self._value(array) for name, array in arrays.items()}
        with self._lock:
            while len(self._plain_inputs) >= _LENGTHS_KEPT:
                del self._plain_inputs[next(iter(self._plain_inputs))]
            self._plain_inputs[length] = values
        return values

    def _bank(self, tasks: dict[PartsKey, Task], variant: str) -> dict[str, ort.OrtValue]:
        # On the device, and kept while single tasks come again; mixed banks are as many as the mixtures.
        key = next(iter(tasks))
        kept = self._banks.get(key) if len(tasks) == 1 else None
        if kept is not None:
            return kept
        facts, sizes = self._bundle.facts, self._bundle.facts.sizes
        # The head is applied behind the graph: a graph that is fed none gives features alone.
        names = contract.BANK_INPUTS.keys() & {*facts.inputs_of(variant)} - {*HEAD.tensors}
        arrays = bank.stack(list(tasks.values()), sizes, names)
        if len(tasks) > 1:
            no_head = {name: sizes.shape(name, tasks=len(tasks), labels=0) for name in HEAD.tensors}
            arrays |= {name: np.zeros(shape, np.float32) for name, shape in no_head.items()}
            return {name: self._value(array) for name, array in arrays.items()}
        # The graph has defaults for the parts that the task lacks.
        values = {name: self._value(array) for name, array in arrays.items() if array.size}
        with self._lock:
            while len(self._banks) >= _BANKS_KEPT:
                del self._banks[next(iter(self._banks))]
            self._banks[key] = values
        return values

    def _value(self, array: Array) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._device.memory, 0)

    def _session(self, precision: str, variant: str, threads: int) -> ort.InferenceSession:
        key = precision, variant, threads
        with self._session_lock:
            if key not in self._sessions:
                self._sessions[key] = self._open_session(*key)
            return self._sessions[key]

    def _open_session(self, precision: str, variant: str, threads: int) -> ort.InferenceSession:
        if self._prepare:
            form = self._setup(precision).form
            return prepared.open_graph(self._bundle, precision, variant, threads, form, self._cache)
        graph, weights = self._bundle.graph_source(precision, variant)
        return open_session(graph, self._device, threads, self._bundle.facts.inputs_of(variant), weights)

    def _side_by_side(self, run: Callable[[_Batch], Array], batches: Sequence[_Batch]) -> Iterable[Array]:
        with self._lock:  # so that `close` finds all of them handed in, or none
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="edgetune")
            return self._pool.map(run, batches)


_Batch = Sequence[tuple[int, Pass]]


def _batches(passes: Sequence[Pass], size: int) -> Iterator[_Batch]:
    """Passes with their places, at most `size` at once, those of like length together."""
    order = list(enumerate(passes))
    if size > 1:
        order.sort(key=lambda place_and_pass: len(place_and_pass[1].tokens.ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _of_like_length(passes: list[tuple[int, Pass]], most: int) -> Iterator[_Batch]:
    """Passes in the order of their length, at most `most` at once, and little of a run is padding."""
    batch: list[tuple[int, Pass]] = []
    for row in sorted(passes, key=lambda place_and_pass: len(place_and_pass[1].tokens.ids)):
        tokens = len(row[1].tokens.ids)
        if batch and (len(batch) == most or tokens > _MOST_PADDING * len(batch[0][1].tokens.ids)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]]) -> Array:
    """Rows filled up with zeros on the right. Shape: [rows, longest]."""
    found = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found
