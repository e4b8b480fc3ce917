"""The engine: many classification tasks on one exported backbone, without PyTorch.

A text passes through the backbone once for each set of parts (prompt, prefix) of its tasks. Tasks with the same parts,
or without parts, share the pass and differ only in their heads. The head is applied after the graph, separately for
each task and text, so an answer depends only on the text and the task.

By default int8 answers, and close calls are answered again in fp32: int8 changes the answers to few texts, and nearly
all of those are close calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune_runtime import contract, files, forks, hub
from edgetune_runtime.arrays import Array, unit_length
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.catalog import Catalog, Changes
from edgetune_runtime.checks import check_min_score, check_text
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.errors import BundleError, DataError
from edgetune_runtime.fitting.class_weight import NONE, ClassWeight
from edgetune_runtime.fitting.draft import fitted_draft, new_draft
from edgetune_runtime.kinds import Kind, Read, Result
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.passes import Runner
from edgetune_runtime.ranking import Ranked, Ranker, best_first
from edgetune_runtime.session import find_device
from edgetune_runtime.setups import DEFAULT, Setup
from edgetune_runtime.sharing import head_logits, shared_passes
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text, TextEncoder, Tokens
from edgetune_runtime.tuned import load as load_tuned

if TYPE_CHECKING:
    from edgetune_runtime.fitting.descriptions import Describing, Descriptions
    from edgetune_runtime.fitting.fit import FitReport

__all__ = ["CLOSE_CALL", "Engine", "Result"]

_EXACT = "fp32"
_TEXTS_AT_ONCE = 256

CLOSE_CALL = 0.1
"""The default precision answers again in fp32 if an answer is at most this far from another one, on the scale of
scores."""


class Engine:
    """Classifies texts with the tasks of a bundle. Thread-safe.

    A call looks up its tasks once, at its start. A task that is swapped or removed meanwhile still completes that call.

    On a CPU, an engine continues to work in a forked process, where it opens its graphs again on first use. It pickles
    its arguments and the tasks that were added and removed. It opens again after unpickling, so the bundle must exist
    under the same path there.

    Args:
        bundle: a bundle, its folder, or its name on the hub: `hf://user/name` or `hf://user/name@revision`.
        precision: a precision of the bundle, for all texts. `None` is the device's default: fp32 on a GPU; on a CPU
            int8 with close calls in fp32, as far as the bundle has them.
        device: one of `devices.DEVICES`.
        threads: CPU threads; all that the process may use.
        batch_size: most texts in one run; 1 on a CPU, 32 on a GPU. Above 1 only for graphs whose answers do
            not depend on the batch.
        prepare: whether the graph is kept as this CPU runs it, in the user's cache folder (see `prepared`).
        tuned: whether what `edgetune tune` chose for the bundle on this CPU is used (see `tuned`); of that, `threads`
            and `batch_size` win, and without `prepare` nothing is.

    Raises:
        BundleError: the bundle is damaged, lacks the precision, or the precision cannot be batched.
        DataError: `threads` is below 1.
        DeviceError: the device is not available.
        MissingPackageError: the bundle is on the hub, and huggingface_hub is not installed.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        precision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int | None = None,
        prepare: bool = True,
        tuned: bool = True,
    ) -> None:
        self._settings = {
            "precision": precision,
            "device": device,
            "threads": threads,
            "batch_size": batch_size,
            "prepare": prepare,
            "tuned": tuned,
        }
        found = find_device(device)
        if threads is not None and threads < 1:
            raise DataError(f"threads is {threads}: expected at least 1, or None for all that the process may use")
        if not isinstance(bundle, Bundle):
            bundle = Bundle(hub.local_folder(bundle, precision or found.default_precision))
        self.bundle = bundle
        self.precision = self.bundle.precision(precision or found.default_precision)
        rechecks = precision is None and self.precision != _EXACT and self.bundle.has_graph(_EXACT)
        self._recheck = _EXACT if rechecks else None
        self.device = device
        self.threads = threads or available_threads()
        graph = self.bundle.manifest.graphs[self.precision]
        self.batch_size = batch_size or (found.batch_size if graph.batch_invariant else 1)
        if self.batch_size > 1 and not graph.batch_invariant:
            raise BundleError(
                f"precision {self.precision} cannot run {self.batch_size} texts at once on '{device}': their "
                f"answers would depend on each other; use batch size 1 on the CPU, or `precision` fp32"
            )
        facts = self.bundle.facts
        self._encoder = TextEncoder(
            self.bundle.read(files.TOKENIZER), facts.max_positions, facts.mask_token, self.bundle.vocabulary_size()
        )
        self._catalog = Catalog(self.bundle)
        self._setups = (
            {name: _without_given(load_tuned(self.bundle, name), threads, batch_size) for name in self.precisions}
            if prepare and tuned and found.prepares
            else {}
        )
        self._runner = Runner(self.bundle, found, self.threads, self.batch_size, prepare, self._setups)
        forks.after_fork(self._renew)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle.path.absolute(),  # the other process may have another working directory
            "settings": self._settings,
            "catalog": self._catalog.state(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["bundle"], **state["settings"])  # type: ignore[misc]
        self._catalog.restore(state["catalog"])

    def _renew(self) -> None:
        self._catalog.renew()
        self._runner.renew()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine's threads. The next use starts them again."""
        self._runner.close()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that answer: the engine's own and the one for close calls, if they are answered again."""
        return tuple(filter(None, (self.precision, self._recheck)))

    @property
    def setups(self) -> dict[str, Setup]:
        """Precision → how it is run here, of those that answer."""
        return {name: self._setups.get(name, DEFAULT) for name in self.precisions}

    @property
    def encoder(self) -> TextEncoder:
        """The tokenizer, which encodes texts according to their tasks."""
        return self._encoder

    @property
    def task_names(self) -> list[str]:
        """Sorted names of the available tasks."""
        return self._catalog.names

    @property
    def catalog(self) -> Catalog:
        """Its tasks. Change them through the engine's methods, which also drop cached data of old tasks."""
        return self._catalog

    def task(self, name: str) -> Task:
        """The task of that name, read from the bundle on first use.

        Raises:
            TaskError: the task does not exist, or its file is damaged or was made for another backbone.
        """
        return self._catalog.task(name)

    def find_task(self, name_or_file: str) -> Task:
        """The task for a user's argument: a file, which is added, or the name of a task.

        Raises:
            TaskError: the task does not exist, or its file is damaged or was made for another backbone.
        """
        found = self._catalog.find(name_or_file)
        self._runner.keep(self._catalog.loaded)
        return found

    def add_task(self, task: Task | str | Path, name: str | None = None) -> Task:
        """Add a task, or replace the one of the same name, for calls that begin from now on.

        Args:
            task: a task or its file. The bundle on disk stays as it is.
            name: its name in the engine; by default the task's own name.

        Raises:
            TaskError: the file is damaged, or the task was made for another backbone.
        """
        added = self._catalog.add(task, name)
        self._runner.keep(self._catalog.loaded)
        return added

    def remove_task(self, name: str) -> None:
        """Remove a task, for calls that begin from now on. The bundle on disk stays as it is.

        Raises:
            TaskError: the task does not exist.
        """
        self._catalog.remove(name)
        self._runner.keep(self._catalog.loaded)

    def store_task(self, name: str, data: bytes, origin: str) -> Task:
        """Add a task, or replace the one of the same name, in the bundle on disk and for calls that begin from now on.

        Args:
            name: its name, whatever its file says.
            data: the bytes of the task file.
            origin: how errors refer to them.

        Raises:
            TaskError: they are not a valid task file, or the task was made for another backbone.
            EdgetuneError: the bundle is not writable.
        """
        stored = self._catalog.store(name, data, origin)
        self._runner.keep(self._catalog.loaded)
        return stored

    def discard_task(self, name: str) -> None:
        """Remove a task, from the bundle on disk and for calls that begin from now on.

        Raises:
            TaskError: the task does not exist, or its file cannot be removed.
        """
        self._catalog.discard(name)
        self._runner.keep(self._catalog.loaded)

    def refresh_tasks(self, names: Collection[str] | None = None) -> Changes:
        """Apply the changes in the bundle on disk, all at once, for calls that begin from now on.

        Tasks that were added only to the engine stay. A task whose new file cannot be used stays in its old version.

        Args:
            names: the tasks to look at; `None` for all.

        Raises:
            BundleError: the folder of tasks links out of the bundle, or cannot be listed.
        """
        changes = self._catalog.refresh(names)
        self._runner.keep(self._catalog.loaded)
        return changes

    def classify(
        self,
        texts: Sequence[Text],
        task: str | None = None,
        min_score: float = 0.0,
        *,
        tasks: Sequence[str] | None = None,
    ) -> list[Result]:
        """Classify texts.

        Args:
            texts: texts; for tasks that take pairs, (text, text_pair) tuples.
            task: the task for all texts.
            min_score: answers that score below it are withheld, 0 to 1; see the task's kind.
            tasks: the task of each text, instead of `task`.

        Returns:
            One result per text, in the same order.

        Raises:
            TaskError: the task does not exist.
            DataError: a text is not a string or a pair of strings, has no task, or does not fit its task; or
                `min_score` is not between 0 and 1, or a task does not support it.
        """
        rows = self._rows(texts, task, tasks)
        check_min_score(min_score, [one for _, one in rows])
        tokens = self.encode([text for text, _ in rows], [one for _, one in rows])
        results = self.answer([(found, one) for found, (_, one) in zip(tokens, rows, strict=True)])
        return [result.at(min_score) for result in results] if min_score else results

    def _rows(self, texts: Sequence[Text], task: str | None, tasks: Sequence[str] | None) -> list[tuple[Text, Task]]:
        """Each text with its task."""
        if isinstance(texts, str):
            raise DataError("one string came instead of a list of texts: write [text]")
        if (task is None) == (tasks is None):
            raise DataError("expected a task for the texts: pass task=NAME, or tasks=[NAME, …] with one for each")
        if isinstance(tasks, str):
            raise DataError("one string came instead of a list of tasks: write task=NAME, or tasks=[NAME, …]")
        names = [str(task)] * len(texts) if tasks is None else list(tasks)
        if len(names) != len(texts):
            raise DataError(f"{len(names)} tasks came for {len(texts)} texts: expected one for each")
        by_name = {name: self.task(name) for name in dict.fromkeys(names)}
        for place, (text, name) in enumerate(zip(texts, names, strict=True)):
            check_text(place, text, by_name[name])
        return [(text, by_name[name]) for text, name in zip(texts, names, strict=True)]

    def encode(self, texts: Sequence[Text], tasks: Sequence[Task]) -> list[Tokens]:
        """Tokenize texts, each as its own task reads it."""
        return self._encoder.encode(texts, tasks)

    def features(
        self, texts: Sequence[Text], task: Task | str, progress: Callable[[int], object] | None = None
    ) -> Array:
        """Features of texts, as a task's head reads them: the backbone's output for a text after the task's prompt.

        Args:
            texts: texts; for a task that takes pairs, (text, text_pair) tuples.
            task: a task, or its name. Its head is not used and may be missing.
            progress: called with the number of finished texts.

        Returns:
            The features in the engine's precision; nothing is computed again in fp32. For a text that is read in
            windows, or piece by piece, the mean of its features.

        Shape:
            output: [texts, hidden], float32

        Raises:
            TaskError: the task does not exist.
            DataError: a text is not what the task takes.
        """
        found = np.empty((len(texts), self.bundle.facts.sizes.hidden), np.float32)
        for place, (_, own) in enumerate(self._each_read(texts, task, progress)):
            found[place] = _mean(own)
        return found

    def read_texts(
        self, texts: Sequence[Text], task: Task | str, progress: Callable[[int], object] | None = None
    ) -> tuple[list[Read], Array]:
        """How a task reads texts, and the features for its head. Arguments and errors are those of `features`.

        Shape:
            output: [texts, hidden], float32; if the task's kind has a `reading`, [pieces of all texts, hidden]
        """
        reads, features = [], [np.empty((0, self.bundle.facts.sizes.hidden), np.float32)]
        for tokens, own in self._each_read(texts, task, progress):
            reads.append(tokens.read)
            features.append(own if tokens.by_piece else _mean(own)[np.newaxis])
        return reads, np.concatenate(features)

    def _each_read(
        self, texts: Sequence[Text], task: Task | str, progress: Callable[[int], object] | None
    ) -> Iterator[tuple[Tokens, Array]]:
        """Texts with the features of their spans. Shape: for each text [spans, hidden]."""
        read = self.task(task) if isinstance(task, str) else task
        self.bundle.facts.check(read)
        if isinstance(texts, str):
            raise DataError("one string came instead of a list of texts: write [text]")
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = texts[start : start + _TEXTS_AT_ONCE]
            for place, text in enumerate(some, start):
                check_text(place, text, read)
            tokens = self.encode(some, [read] * len(some))
            yield from zip(tokens, self.read([(row, read) for row in tokens]), strict=True)
            if progress is not None:
                progress(len(some))

    def embed(self, texts: Sequence[Text], *, task: Task | str | None = None, normalize: bool = False) -> Array:
        """Embed texts as vectors, as sentence-transformers does, for search, clustering or finding duplicates.

        Args:
            texts: texts; for a task that takes pairs, (text, text_pair) tuples.
            task: a task, or its name, whose prompt, template and pooling are used. By default the backbone reads texts
                without a task, up to 256 tokens, with its usual pooling.
            normalize: whether vectors have length 1, so that their dot products are cosines.

        Returns:
            Vectors in the engine's precision. Use an fp32 engine to compare them with vectors of another program.

        Shape:
            output: [texts, hidden], float32

        Raises:
            TaskError: the task does not exist.
            DataError: a text is not what the task takes.
        """
        found = self.features(texts, self.bare_task if task is None else task)
        return unit_length(found) if normalize else found

    @cached_property
    def bare_task(self) -> Task:
        """A task without prompt and head, named after the backbone. It reads texts as the bare backbone does."""
        facts = self.bundle.facts
        draft = new_draft(facts, self._encoder, name=facts.name, labels=(), kind=SINGLE_LABEL, pairs=False)
        return fitted_draft(self._encoder, draft)

    def rank(
        self, query: str, texts: Sequence[str], task: str, *, label: str | None = None, raw_scores: bool = False
    ) -> list[Ranked]:
        """Sort texts by their relevance to a query.

        Args:
            query: the query, which is the first text of each pair.
            texts: the second texts of the pairs.
            task: a task that takes pairs and answers with a number or one label.
            label: for tasks that answer with one label, the label that means "relevant". It may be omitted if there are
                two labels whose names make it clear, such as "yes" and "no".
            raw_scores: whether scores are logits (log-odds) of that label instead of its probability; the probability
                is the sigmoid of the logit. A number is the same either way.

        Returns:
            The texts, most relevant first. A score is the label's probability, as in `classify`, or the task's number.

        Raises:
            TaskError: the task does not exist.
            DataError: the query or a text is not a string, or the task cannot rank, or its label is not known.
        """
        ranker = Ranker(self.task(task), label)
        ranker.check(query, texts)
        given = list(texts)  # a column of a table may have its own index
        tokens = self.encode([(query, text) for text in given], [ranker.task] * len(given))
        results = self.answer([(row, ranker.task) for row in tokens])
        scores = [ranker.score(result, raw_scores) for result in results]
        return [Ranked(place, given[place], scores[place], results[place].truncated) for place in best_first(scores)]

    def fit(
        self,
        texts: Iterable[Any],
        labels: Iterable[Any],
        name: str,
        *,
        kind: Kind | str | None = None,
        class_weight: ClassWeight = NONE,
        descriptions: Describing = "names",
        from_task: Task | str | None = None,
        pooling: str | None = None,
        template: str = contract.TEXT_SLOT,
        max_length: int = contract.DEFAULT_MAX_LENGTH,
        long_texts: str = contract.CUT,
        stride: int = 32,
        seed: int = 0,
        store: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> FitReport:
        """Fit a task to labelled texts, without PyTorch, and add it or replace the one of the same name.

        The head is a logistic regression on features in the engine's own precision; for scores it is a ridge
        regression. Regularization strength, temperature and thresholds are chosen by cross-validation.

        Args:
            texts: a list or column of texts, or of (text, text_pair) pairs.
            labels: for each text a label, a list of labels, or a number.
            name: name of the task.
            kind: the kind of answer; by default derived from the labels.
            class_weight: weight of a row by its label: "none" weighs all rows equally, "balanced" all labels equally;
                or label → weight.
            descriptions: label → descriptions of it, as in `describe`, for some or all labels. A head made from them is
                combined with the fitted head, and held-out rows choose the share of each. They help most with few rows.
                "names" uses the labels' own names if they contain words; "none" uses only the rows.
            from_task: a task, or its name, whose prompt, template and lengths are reused; both tasks then share a pass.
            pooling, template, max_length, long_texts, stride: how texts are read if there is no `from_task`; see
                `Task`.
            seed: decides which rows are held out together in cross-validation.
            store: whether to save the task in the bundle on disk too.
            progress: called with the number of texts whose features are computed.

        Raises:
            DataError: a text or a label is not valid; there are fewer than two different labels, or more labels than
                rows; class weights or descriptions name labels that no row has; or there are descriptions for a task
                that does not have one label per text.
            EdgetuneError: the bundle is not writable.
            MissingPackageError: scikit-learn is not installed.
            TaskError: the name is not valid, or the template lacks a slot or leaves no room for text.
        """
        from edgetune_runtime.fitting.fit import fit  # few programs need it

        origin = self.task(from_task) if isinstance(from_task, str) else from_task
        report = fit(
            self, texts, labels, name, kind=kind, class_weight=class_weight, descriptions=descriptions,
            from_task=origin, pooling=pooling, template=template, max_length=max_length, long_texts=long_texts,
            stride=stride, seed=seed, progress=progress,
        )  # fmt: skip
        self._keep(report.task, store)
        return report

    def describe(
        self,
        descriptions: Descriptions,
        name: str,
        *,
        texts: Sequence[str] = (),
        template: str = contract.TEXT_SLOT,
        max_length: int = contract.DEFAULT_MAX_LENGTH,
        store: bool = True,
    ) -> Task:
        """Make a task without labelled texts, and add it or replace the one of the same name.

        A text gets the label whose descriptions are closest to it. Features are computed in the engine's own precision.

        Args:
            descriptions: label → descriptions of it, such as {"billing": ["invoices", "refunds"]}.
            name: name of the task.
            texts: unlabelled texts; the task is adjusted so that all labels are equally likely on them.
            template: the text around each text and description.
            max_length: maximum number of tokens per text.
            store: whether to save the task in the bundle on disk too.

        Raises:
            DataError: a label has no description, or there are fewer than two labels.
            EdgetuneError: the bundle is not writable.
            TaskError: the name is not valid, or the template lacks a slot or leaves no room for text.
        """
        from edgetune_runtime.fitting.describe import described, new_described

        draft = new_described(self.bundle.facts, self._encoder, name, descriptions, template, max_length)
        task = described(draft, descriptions, lambda given: self.features(given, draft), texts)
        self._keep(task, store)
        return task

    def _keep(self, task: Task, store: bool) -> None:
        if store:
            self.store_task(task.name, task.to_bytes(), f"the task '{task.name}'")
        else:
            self.add_task(task)

    def answer(self, rows: Sequence[tuple[Tokens, Task]], threads: int | None = None) -> list[Result]:
        """Classify texts that `encode` tokenized, each with its own task.

        Args:
            rows: (tokens, task) pairs. Rows with the same tokens and parts share a pass.
            threads: CPU threads per run, with one row at a time; by default all threads, with several rows in parallel.
        """
        logits, precisions = self._logits(rows, self.precision, threads), [self.precision] * len(rows)
        if self._recheck is not None:
            margins = [
                task.kind.margin(own, task, tokens.read) for own, (tokens, task) in zip(logits, rows, strict=True)
            ]
            close = [place for place, margin in enumerate(margins) if margin < CLOSE_CALL]
            again = self._logits([rows[place] for place in close], self._recheck, threads)
            for place, values in zip(close, again, strict=True):
                logits[place], precisions[place] = values, self._recheck
        return [
            task.kind.answer(values, task, tokens.read, precision)
            for values, (tokens, task), precision in zip(logits, rows, precisions, strict=True)
        ]

    def pooled(self, rows: Sequence[tuple[Tokens, Task]], threads: int | None = None) -> list[Array]:
        """Features of texts that `encode` tokenized, each as its own task reads it.

        Args:
            rows: (tokens, task) pairs. Rows with the same tokens and parts share a pass.
            threads: CPU threads per run, with one row at a time; by default all threads, with several rows in parallel.

        Shape:
            output: for each row [hidden], float32
        """
        return [_mean(own) for own in self.read(rows, threads)]

    def read(self, rows: Sequence[tuple[Tokens, Task]], threads: int | None = None) -> list[Array]:
        """Features of all spans of texts. Arguments are those of `pooled`.

        Shape:
            output: for each row [spans of all windows, hidden], float32
        """
        windows = [(window, task) for tokens, task in rows for window in tokens.windows]
        passes, places = shared_passes(windows, self._runner)
        made = self._runner.run(passes, self.precision, threads)
        own = iter(made[place][list(spans)] for place, spans in places)
        return [np.concatenate([next(own) for _ in tokens.windows]) for tokens, _ in rows]

    def share_a_pass(self, one: Task, other: Task) -> bool:
        """Whether two tasks have the same parts, so that they share the features of a text."""
        return self._runner.parts(one) == self._runner.parts(other)

    def open(self, *threads: int) -> None:
        """Open all sessions that runs with so many threads need, so that no text waits for them.

        Args:
            threads: numbers of threads; by default those of a text that is alone, and of several side by side.

        Raises:
            BundleError: a graph is missing or damaged.
        """
        for precision in self.precisions:
            for number in threads or self._runner.thread_counts(precision):
                self._runner.open(precision, number, self._catalog.loaded)

    def run(self, rows: Sequence[tuple[Tokens | Sequence[int], Task]]) -> list[Array]:
        """Compute the logits of texts, all in the engine's precision.

        Args:
            rows: (tokens, task) pairs; tokens from `encode`, or token ids with special tokens.

        Shape:
            output: for each row [labels of its task], float32; if its kind has a `reading`, [pieces, rows of the head]
        """
        read = [
            (tokens if isinstance(tokens, Tokens) else self._encoder.tokens(tokens, task), task)
            for tokens, task in rows
        ]
        found = self._logits(read, self.precision)
        return [task.kind.logits_of(logits) for logits, (_, task) in zip(found, read, strict=True)]

    def _logits(self, rows: Sequence[tuple[Tokens, Task]], precision: str, threads: int | None = None) -> list[Array]:
        """Shape: for each row [spans, labels of its task]."""
        windows = [(window, task) for tokens, task in rows for window in tokens.windows]
        passes, places = shared_passes(windows, self._runner)
        features = self._runner.run(passes, precision, threads)
        if len(rows) == len(windows) == 1:
            return [head_logits(features[0], rows[0][1])]
        logits = iter(
            head_logits(features[place][list(spans)], task)
            for (place, spans), (_, task) in zip(places, windows, strict=True)
        )
        numbers = [len(tokens.windows) for tokens, _ in rows]
        return [
            next(logits) if number == 1 else np.concatenate([next(logits) for _ in range(number)]) for number in numbers
        ]


def _without_given(setup: Setup, threads: int | None, batch_size: int | None) -> Setup:
    """A setup without what the user decided."""
    return replace(
        setup, threads={} if threads is not None else setup.threads, rows=1 if batch_size is not None else setup.rows
    )


def _mean(features: Array) -> Array:
    """The mean of the spans' features; zeros without spans. Shape: [spans, hidden] → [hidden]."""
    found: Array = features.mean(axis=0) if len(features) else np.zeros(features.shape[1], np.float32)
    return found
