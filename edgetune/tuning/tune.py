"""Tuning a bundle for the CPU at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgetune.bench.latency import Cell, random_task
from edgetune.tuning.check import Check
from edgetune.tuning.choosing import Tried, choose
from edgetune.tuning.questions import LENGTHS, QUESTIONS, Place
from edgetune.tuning.timing import AGAIN, compare, rounds
from edgetune_runtime import contract, files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.devices import CPU
from edgetune_runtime.external import without_weights
from edgetune_runtime.passes import Pass, Runner
from edgetune_runtime.setups import DEFAULT, Setup
from edgetune_runtime.task import Task
from edgetune_runtime.text import Tokens

_TASKS = 5
_PREFIX = 20
_EXACT = "fp32"
_TIMES = 2  # the check texts, where many are timed: few leave a thread alone with the last

Measure = Callable[[Mapping[str, Callable[[], object]], float], dict[str, list[float]]]


@dataclass(frozen=True)
class Tuning:
    """The result of tuning for one precision.

    Attributes:
        precision: the precision.
        setup: what was chosen.
        tried: all that was measured, question by question.
        busy: whether equal runs took times so different that something else was running.
    """

    precision: str
    setup: Setup
    tried: Sequence[Tried]
    busy: bool


def tune(
    bundle: Bundle,
    precision: str,
    *,
    tasks: Sequence[Task] = (),
    seconds: float = 2.0,
    threads: int | None = None,
    progress: Callable[[str], object] = lambda _: None,
    measure: Measure = rounds,
) -> Tuning:
    """Measure the setups of a precision on this CPU, and choose.

    Each question begins with what those before it chose. Nothing is kept: see `tuned.save`.

    Args:
        bundle: the bundle.
        precision: one of its precisions.
        tasks: tasks whose answers are compared, and the first of which is timed; by default the bundle's first five,
            or a task of random numbers if it has none.
        seconds: about how long each question takes, if a few rounds do not take longer.
        threads: threads that the process may use; as many as there are.
        progress: called with the name of the next measurement.
        measure: times sides, as `rounds` does.

    Raises:
        BundleError: a graph is missing or damaged.
        TaskError: a task was made for another backbone.
    """
    threads = threads or available_threads()
    tasks = tasks or [bundle.load_task(name) for name in bundle.task_names()[:_TASKS]] or [_random(bundle)]
    graph = without_weights(bundle.read(bundle.graph_files(precision)[0]), "weights")
    place = Place(graph, bundle.manifest.graphs[precision].batch_invariant, threads)
    setup, tried, busy = DEFAULT, list[Tried](), False
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def runner(setup: Setup, precision: str = precision) -> Runner:
            made = Runner(bundle, CPU, threads, 1, True, {precision: setup}, Path(folder) / files.PREPARED)
            stack.callback(made.close)
            return made

        exact = _EXACT if bundle.has_graph(_EXACT) else precision
        check = Check(bundle, tasks, runner(DEFAULT, exact), exact)
        alone = {length: one for length in LENGTHS if (one := _random_pass(bundle, tasks[0], length))}
        for question in QUESTIONS:
            setups = {question.present: setup, **question.candidates(place, setup)}
            # A text that is longer than the backbone reads is not timed.
            timed = [[alone[length]] for length in question.lengths if length in alone]
            if not question.lengths:
                timed = [[*check.passes] * _TIMES]
            if len(setups) == 1 or not timed:
                continue
            progress(f"{precision}: {question.name} …")
            runners = {name: runner(one) for name, one in setups.items()}
            answers = check.answers(runners, question.present, precision)
            sides = {**runners, AGAIN: runners[question.present]}
            times = [
                measure(
                    {name: partial(one.run, passes, precision, question.threads) for name, one in sides.items()},
                    seconds / len(timed),
                )
                for passes in timed
            ]
            comparisons = compare(times, question.present)
            rows = choose(precision, question, comparisons, answers)
            setup = setups[next(row.name for row in rows if row.chosen)]
            busy |= comparisons[AGAIN].busy
            tried += rows
    return Tuning(precision, setup, tried, busy)


def _random(bundle: Bundle) -> Task:
    method = "prefix" if contract.PREFIX_KEYS in bundle.facts.inputs else "prompt"
    return random_task(bundle.manifest, Cell(method, _PREFIX, 0, 0))


def _random_pass(bundle: Bundle, task: Task, length: int) -> Pass | None:
    """A text of so many random tokens; `None` if the backbone does not have the positions."""
    if length + task.prompt_length + task.position_offset > bundle.facts.max_positions:
        return None
    ids = np.random.default_rng(0).integers(0, bundle.vocabulary_size(), length).tolist()
    return Pass(Tokens(ids, False, [0] * length, ((0, length),)), task)
