"""The engine: many classification tasks on one exported backbone, without PyTorch.

On a CPU each text is a run of its own, at its exact length: nothing is padded, no text has neighbours, and
an answer depends on the text and the task alone, in every precision. One text uses all threads; many texts
run side by side, one thread each. On a GPU texts of like length share a run.

Where no precision is asked for, int8 answers, and close calls are answered anew in fp32: int8 changes the label of few
texts, and nearly all of them are among those whose two best scores are close.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from edgetune_runtime import bank, contract, files, forks, prepared
from edgetune_runtime.arrays import Array
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.errors import BundleError, DataError, TaskError, TextError
from edgetune_runtime.session import check_device, open_session
from edgetune_runtime.task import Task
from edgetune_runtime.text import TextEncoder, Tokens, is_unicode

_GPU_BATCH_SIZE = 32
_BANKS_KEPT = 64  # making one takes a tenth of a millisecond
_EXACT = "fp32"

Status = Literal["ok", "truncated", "abstained"]

CLOSE_CALL = 0.1
"""The difference of the two best scores below which the default precision answers anew in fp32."""


@dataclass(frozen=True)
class Result:
    """The answer for one text.

    Attributes:
        task: the task that answered.
        best: the most probable label.
        scores: label → probability; they sum to 1.
        truncated: whether the end of the text was not read, because it was longer than the task allows.
        abstained: whether the best label's score is below the `min_score` of the call, so there is no answer.
        precision: the precision that answered.
    """

    task: str
    best: str
    scores: Mapping[str, float]
    truncated: bool = False
    abstained: bool = False
    precision: str = _EXACT

    @property
    def label(self) -> str | None:
        """The answer: the most probable label, or `None` where the task abstained."""
        return None if self.abstained else self.best

    @property
    def status(self) -> Status:
        """What became of the text: "abstained" also where it was truncated."""
        if self.abstained:
            return "abstained"
        return "truncated" if self.truncated else "ok"

    def at(self, min_score: float) -> Result:
        """The same, abstaining where the best label's score is below `min_score`."""
        return dataclasses.replace(self, abstained=self.scores[self.best] < min_score)


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    task: Task


class Engine:
    """Classifies texts with the tasks of a bundle. Safe to call from several threads.

    A call looks its tasks up once, when it begins: a task that is swapped or removed meanwhile still
    answers that call whole.

    An engine goes on in a forked process, on a CPU, where it opens its graphs again when it is first used. It pickles
    as what it was made with, and with the tasks that were added and removed; where it is unpickled it opens again, and
    the bundle has to be under the same path there.

    Args:
        bundle: a bundle, or its folder.
        precision: a precision of the bundle, for all texts. `None` is int8 on a CPU, where the bundle has it, with
            close calls in fp32, where it has that; on a GPU fp32.
        device: "cpu" or "cuda".
        threads: CPU threads; all that the process may use.
        batch_size: most texts in one run; 1 on a CPU, 32 on a GPU. Above 1 only for graphs whose answers do
            not depend on the batch.
        prepare: whether the graph is kept as this CPU runs it, in the user's cache folder (see `prepared`).

    Raises:
        BundleError: the bundle is damaged or has no such precision, or the precision cannot be batched.
        DataError: there are fewer than one thread.
        DeviceError: the device is not there.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        precision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int | None = None,
        prepare: bool = True,
    ) -> None:
        self._settings = {
            "precision": precision,
            "device": device,
            "threads": threads,
            "batch_size": batch_size,
            "prepare": prepare,
        }
        check_device(device)
        if threads is not None and threads < 1:
            raise DataError(f"threads is {threads}: expected at least 1, or None for all that the process may use")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        rechecks = precision is None and device == "cpu" and self.bundle.has_graph(_EXACT)
        if precision is None and device != "cpu":
            precision = _EXACT
        self.precision = self.bundle.precision(precision)
        self._recheck = _EXACT if rechecks and self.precision != _EXACT else None
        self.device = device
        self.threads = threads or available_threads()
        self._prepare = prepare and device == "cpu"
        manifest = self.bundle.manifest
        graph = manifest.graphs[self.precision]
        self.batch_size = batch_size or (_GPU_BATCH_SIZE if device != "cpu" and graph.batch_invariant else 1)
        if self.batch_size > 1 and not graph.batch_invariant:
            raise BundleError(
                f"precision {self.precision} cannot run {self.batch_size} texts at once on '{device}': their "
                f"answers would depend on each other; use batch size 1 on the CPU, or --precision fp32"
            )
        self._encoder = TextEncoder(
            self.bundle.read(files.TOKENIZER),
            manifest.max_positions,
            manifest.mask_token,
            self.bundle.vocabulary_size(),
        )
        self._lock = threading.Lock()
        self._session_lock = threading.Lock()
        self._sessions: dict[tuple[str, int], ort.InferenceSession] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._banks: dict[tuple[int, ...], tuple[tuple[Task, ...], dict[str, ort.OrtValue]]] = {}
        self._in_bundle = set(self.bundle.task_names())
        self._tasks: dict[str, Task] = {}
        self._added: set[str] = set()
        forks.after_fork(self._renew)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {
                "bundle": self.bundle.path.absolute(),  # elsewhere another working directory may be the current one
                "settings": self._settings,
                "in_bundle": set(self._in_bundle),
                "added": {name: self._tasks[name] for name in self._added},
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["bundle"], **state["settings"])  # type: ignore[misc]
        self._in_bundle = state["in_bundle"]
        for task in state["added"].values():
            self.add_task(task)

    def _renew(self) -> None:
        # Sessions are opened again when they are needed; task banks on a CPU are memory alone, and stay.
        self._lock, self._session_lock, self._pool = threading.Lock(), threading.Lock(), None
        left, self._sessions = self._sessions, {}
        forks.leave(left)
        if self.device != "cpu":
            left_banks, self._banks = self._banks, {}
            forks.leave(left_banks)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine's threads. Using it again starts them again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that answer: the engine's own, then, where close calls are answered anew, that one."""
        return tuple(filter(None, (self.precision, self._recheck)))

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks that can be asked for, sorted."""
        with self._lock:
            return sorted(self._in_bundle | set(self._tasks))

    def task(self, name: str) -> Task:
        """The task of that name, read from the bundle when first asked for.

        Raises:
            TaskError: there is no such task, or its file is damaged or made for another backbone.
        """
        with self._lock:
            if name in self._tasks:
                return self._tasks[name]
            if name not in self._in_bundle:
                have = ", ".join(sorted(self._in_bundle | set(self._tasks))) or "none"
                raise TaskError(
                    f"no task '{name}' here: the engine has {have}; add one with "
                    f"'edgetune tasks add {self.bundle.path} FILE'"
                )
        loaded = self.bundle.load_task(name)
        with self._lock:
            # Meanwhile another thread may have put a newer one there, which stands, or removed it.
            return self._tasks.setdefault(name, loaded) if name in self._in_bundle else loaded

    def find_task(self, name_or_file: str) -> Task:
        """The task that is meant where a user names one: a file, which is added, or a task by its name.

        Raises:
            TaskError: there is no such task, or its file is damaged or made for another backbone.
        """
        path = Path(name_or_file)
        named = path.is_file() or path.suffix == files.TASK_SUFFIX
        return self.add_task(path) if named else self.task(name_or_file)

    def add_task(self, task: Task | str | Path, name: str | None = None) -> Task:
        """Add a task, or swap the one of the same name, for the calls that begin from now on.

        Args:
            task: a task or its file. The bundle on disk stays as it is.
            name: what to call it; its own name otherwise.

        Raises:
            TaskError: the file is damaged or the task was made for another backbone.
        """
        loaded = task if isinstance(task, Task) else Task.load(Path(task))
        if name is not None:
            loaded = loaded.renamed(name)
        self.bundle.check_task(loaded)
        with self._lock:
            self._tasks[loaded.name] = loaded
            self._added.add(loaded.name)
            self._drop_stale_banks()
        return loaded

    def remove_task(self, name: str) -> None:
        """Remove a task for the calls that begin from now on. The bundle on disk stays as it is.

        Raises:
            TaskError: there is no such task.
        """
        with self._lock:
            known = name in self._tasks or name in self._in_bundle
            self._tasks.pop(name, None)
            self._in_bundle.discard(name)
            self._added.discard(name)
            self._drop_stale_banks()
        if not known:
            raise TaskError(f"no task '{name}' to remove: the engine has {', '.join(self.task_names) or 'none'}")

    def classify(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], task: str | None = None, min_score: float = 0.0
    ) -> list[Result]:
        """Classify texts.

        Args:
            texts: texts, or (text, task name) pairs, which may mix tasks.
            task: the task of the texts that name none.
            min_score: abstain where the best label's score is below it, 0 to 1.

        Returns:
            One result a text, in the same order.

        Raises:
            TaskError: there is no such task.
            DataError: a text is not a string, or has no task, or `min_score` is not from 0 to 1.
        """
        check_min_score(min_score)
        pairs = [self._pair(index, item, task) for index, item in enumerate(_sequence(texts))]
        tasks_by_name = {name: self.task(name) for name in dict.fromkeys(name for _, name in pairs)}
        tasks = [tasks_by_name[name] for _, name in pairs]
        tokens = self.encode([text for text, _ in pairs], tasks)
        results = self.answer(list(zip(tokens, tasks, strict=True)))
        return [result.at(min_score) for result in results]

    def answer(self, rows: Sequence[tuple[Tokens, Task]], threads: int | None = None) -> list[Result]:
        """Classify texts that `encode` tokenized, each by the task given with it.

        Args:
            rows: (tokens, task) pairs.
            threads: CPU threads inside a run, and the rows one after the other; all threads by default, several rows
                side by side.
        """
        ids = [(tokens.ids, task) for tokens, task in rows]
        logits, precisions = self._run(ids, self.precision, threads), [self.precision] * len(rows)
        if self._recheck is not None:
            close = [place for place, (_, task) in enumerate(rows) if _margin(logits[place], task) < CLOSE_CALL]
            anew = self._run([ids[place] for place in close], self._recheck, threads)
            for place, values in zip(close, anew, strict=True):
                logits[place], precisions[place] = values, self._recheck
        return [
            _result(values, task, tokens, precision)
            for values, (tokens, task), precision in zip(logits, rows, precisions, strict=True)
        ]

    def open(self, *threads: int) -> None:
        """Open all that runs of so many threads need, so that no text waits for it.

        Raises:
            BundleError: a graph is missing or damaged.
        """
        for precision in self.precisions:
            for number in threads:
                self._session(precision, number)

    def encode(self, texts: Sequence[str], tasks: Sequence[Task]) -> list[Tokens]:
        """Token ids of texts, each as its own task reads it."""
        return self._encoder.encode(texts, tasks)

    def run(self, rows: Sequence[tuple[Sequence[int], Task]]) -> list[Array]:
        """Logits for rows of token ids, each with its task, all in the engine's precision.

        Args:
            rows: (token ids with special tokens, task) pairs.

        Returns:
            For each row, float32 logits of shape [labels of its task].
        """
        return self._run(rows, self.precision)

    def _run(
        self, rows: Sequence[tuple[Sequence[int], Task]], precision: str, threads: int | None = None
    ) -> list[Array]:
        if not rows:  # which needs no session
            return []
        batches = list(_batches([_Row(list(ids), task) for ids, task in rows], self.batch_size))
        if threads is None and len(batches) > 1 and self.threads > 1 and self.device == "cpu":
            session = self._session(precision, threads=1)
            outputs = self._side_by_side(lambda batch: self._run_batch(session, [row for _, row in batch]), batches)
        else:
            session = self._session(precision, threads or self.threads)
            outputs = (self._run_batch(session, [row for _, row in batch]) for batch in batches)
        logits: list[Array] = [np.empty(0)] * len(rows)
        for batch, output in zip(batches, outputs, strict=True):
            for (index, row), values in zip(batch, output, strict=True):
                logits[index] = values[: len(row.task.labels)]
        return logits

    def _run_batch(self, session: ort.InferenceSession, rows: Sequence[_Row]) -> Array:
        tasks = tuple({id(row.task): row.task for row in rows}.values())
        index = {id(task): position for position, task in enumerate(tasks)}
        input_ids = np.zeros((len(rows), max(len(row.ids) for row in rows)), np.int64)
        attention_mask = np.zeros_like(input_ids)
        for position, row in enumerate(rows):
            input_ids[position, : len(row.ids)] = row.ids
            attention_mask[position, : len(row.ids)] = 1
        text = {
            contract.INPUT_IDS: input_ids,
            contract.ATTENTION_MASK: attention_mask,
            contract.TASK_INDEX: np.array([index[id(row.task)] for row in rows], np.int64),
        }
        feed = {name: ort.OrtValue.ortvalue_from_numpy(array, self.device, 0) for name, array in text.items()}
        bank_values = self._bank(tasks)
        try:
            (output,) = session.run_with_ort_values([contract.LOGITS], {**feed, **bank_values})
        except Exception as error:  # onnxruntime's have no common base
            raise TextError(f"the backbone fails on {len(rows)} texts ({error}): export the bundle again") from error
        return output.numpy()

    def _bank(self, tasks: tuple[Task, ...]) -> dict[str, ort.OrtValue]:
        # On the device, and kept while single tasks come again; mixed banks are as many as the mixtures.
        key = tuple(id(task) for task in tasks)
        cached = self._banks.get(key)
        if cached is not None:
            return cached[1]
        arrays = bank.stack(tasks, self.bundle.manifest.sizes)
        if len(tasks) == 1:  # what a task has not is the graph's default
            arrays = {name: array for name, array in arrays.items() if array.size}
        values = {name: ort.OrtValue.ortvalue_from_numpy(array, self.device, 0) for name, array in arrays.items()}
        if len(tasks) == 1:
            with self._lock:
                if self._tasks.get(tasks[0].name) is tasks[0]:
                    while len(self._banks) >= _BANKS_KEPT:
                        del self._banks[next(iter(self._banks))]
                    self._banks[key] = (tasks, values)
        return values

    def _drop_stale_banks(self) -> None:
        live = {id(task) for task in self._tasks.values()}
        self._banks = {key: kept for key, kept in self._banks.items() if live.issuperset(key)}

    def _session(self, precision: str, threads: int) -> ort.InferenceSession:
        with self._session_lock:
            if (precision, threads) not in self._sessions:
                self._sessions[precision, threads] = self._open_session(precision, threads)
            return self._sessions[precision, threads]

    def _open_session(self, precision: str, threads: int) -> ort.InferenceSession:
        if self._prepare:
            return prepared.open_graph(self.bundle, precision, threads)
        graph, weights = self.bundle.read_graph(precision)
        return open_session(graph, self.device, threads, weights)

    def _side_by_side(
        self, run: Callable[[Sequence[tuple[int, _Row]]], Array], batches: Sequence[Sequence[tuple[int, _Row]]]
    ) -> Iterable[Array]:
        with self._lock:  # so that `close` finds all of them handed in, or none
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="edgetune")
            return self._pool.map(run, batches)

    @staticmethod
    def _pair(index: int, item: object, task: str | None) -> tuple[str, str]:
        text, name = item if isinstance(item, tuple) and len(item) == 2 else (item, task)
        if not isinstance(text, str):
            raise DataError(f"text {index} is a {type(text).__name__}: expected a string, or a (text, task) pair")
        if not is_unicode(text):
            raise DataError(f"text {index} has half of a surrogate pair: expected whole characters")
        if not isinstance(name, str):
            raise DataError(f"text {index} has no task: pass task=NAME, or a (text, task) pair")
        return text, name


def check_min_score(min_score: float) -> None:
    """Raise `DataError` if a score below which a row is not answered is no probability."""
    if not 0 <= min_score <= 1:
        raise DataError(f"min_score is {min_score}: expected a probability, from 0 to 1")


def _sequence(texts: Sequence[object]) -> Sequence[object]:
    if isinstance(texts, str):
        raise DataError("one string came where a list of texts was expected: write [text]")
    return texts


def _batches(rows: Sequence[_Row], size: int) -> Iterator[list[tuple[int, _Row]]]:
    """Rows with their places, at most `size` at once, those of like length together."""
    order = list(enumerate(rows))
    if size > 1:
        order.sort(key=lambda place_and_row: len(place_and_row[1].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def probabilities(logits: Array, temperature: float) -> Array:
    """Softmax of logits at a temperature, in float64.

    Shape:
        logits, output: [..., labels]
    """
    weights = np.exp((logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)) / temperature)
    return weights / weights.sum(axis=-1, keepdims=True)


def _margin(logits: Array, task: Task) -> float:
    """The difference of the two best scores."""
    second, best = np.partition(probabilities(logits, task.temperature), -2)[-2:]
    return float(best - second)


def _result(logits: Array, task: Task, tokens: Tokens, precision: str) -> Result:
    scores = dict(zip(task.labels, map(float, probabilities(logits, task.temperature)), strict=True))
    return Result(task.name, task.labels[int(logits.argmax())], scores, tokens.truncated, precision=precision)
