"""Processes that are forked from one that uses an engine. Each case is a separate process, because a bug would hang it.

python fork_cases.py BUNDLE CASE
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import gc
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgetune_runtime import Engine, Task, contract, forks

TEXTS = [
    "the lamp is broken and the screen stays black",
    "thank you, this works very well",
    "where is my parcel?",
    "it was charged twice, please send the money back to my account today",
    "good",
    "",
]
Answers = list[tuple[str, dict[str, float], str]]


def answers(engine: Engine) -> Answers:
    """Answers of all tasks, for many texts at once and for each alone, which use different code paths."""
    pairs = [(text, task) for text in TEXTS for task in engine.task_names]
    together = engine.classify([text for text, _ in pairs], tasks=[task for _, task in pairs])
    alone = [engine.classify([text], task)[0] for text, task in pairs]
    return [(result.best, dict(result.scores), result.precision) for result in [*together, *alone]]


def with_close_calls(engine: Engine) -> Engine:
    """Add a task whose scores are so close that fp32 answers, if it exists."""
    task = engine.task("colour")
    head = task.tensors[contract.HEAD_WEIGHT], task.tensors[contract.HEAD_BIAS]
    tensors = {**task.tensors, contract.HEAD_WEIGHT: head[0] * 1e-3, contract.HEAD_BIAS: np.zeros_like(head[1])}
    engine.add_task(dataclasses.replace(task, name="close", tensors=tensors))
    return engine


def in_child(work: Callable[[], object], leave: Callable[[int], object] = os._exit) -> None:
    """Fork, work in the child and leave. Raises an error unless everything succeeded."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:  # noqa: BLE001 - told as a status
            traceback.print_exc()
            sys.stderr.flush()
        leave(status)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"the child ended with {status}")


def expect(engine: Engine, expected: Answers) -> None:
    found = answers(engine)
    if found != expected:
        raise AssertionError(f"{found} instead of {expected}")


def used(bundle: Path, precision: str | None, threads: int, prepare: bool = True) -> None:
    """A used engine answers in a child, in a child of that, and in the parent."""
    engine = with_close_calls(Engine(bundle, precision, threads=threads, prepare=prepare))
    expected = answers(engine)
    assert {one[2] for one in expected} == ({"int8", "fp32"} if precision is None else {precision})

    def work() -> None:
        expect(engine, expected)
        in_child(lambda: expect(engine, expected))
        expect(engine, expected)

    in_child(work)
    expect(engine, expected)
    in_child(work)


def unused(bundle: Path) -> None:
    """An engine that was opened and not used."""
    expected = answers(Engine(bundle, threads=2))
    engine = Engine(bundle, threads=2)
    in_child(lambda: expect(engine, expected))
    expect(engine, expected)


def another(bundle: Path) -> None:
    """A second engine, made in the child of a process that used the first."""
    expected = answers(Engine(bundle, threads=2))
    in_child(lambda: expect(Engine(bundle, threads=2), expected))


def closed(bundle: Path) -> None:
    """Closed in the parent, then used in the child and closed there."""
    engine = Engine(bundle, threads=2)
    expected = answers(engine)
    engine.close()

    def work() -> None:
        with engine:
            expect(engine, expected)
        expect(engine, expected)

    in_child(work)
    expect(engine, expected)


def dropped(bundle: Path) -> None:
    """The child never destroys the parent's sessions, not even when it ends."""
    engines = [Engine(bundle, threads=2)]
    expected = answers(engines[0])

    def work() -> None:
        engines.clear()
        gc.collect()

    in_child(work, leave=sys.exit)
    expect(engines[0], expected)


def preload(bundle: Path) -> None:
    """Like gunicorn with --preload: three workers at once, with threads, while the parent keeps working."""
    engine = with_close_calls(Engine(bundle, threads=2))
    expected = answers(engine)

    def serve() -> None:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for future in [pool.submit(expect, engine, expected) for _ in range(6)]:
                future.result()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(in_child, serve) for _ in range(3)]  # forks of threads that are not the main one
        expect(engine, expected)
        for worker in workers:
            worker.result()
    expect(engine, expected)


ENGINE: Engine


def _classify(text: str) -> str:
    return ENGINE.classify([text, text], task="colour")[0].best


def pool(bundle: Path) -> None:
    """multiprocessing's pool of forked workers, which inherit an engine as a global."""
    global ENGINE
    ENGINE = Engine(bundle, threads=2)
    expected = [_classify(text) for text in TEXTS]
    with multiprocessing.get_context("fork").Pool(2) as workers:
        found = workers.map(_classify, TEXTS, chunksize=1)
    if found != expected:
        raise AssertionError(f"{found} instead of {expected}")


def while_others_classify(bundle: Path) -> None:
    """Forks while other threads open sessions, classify and swap tasks."""
    expected = answers(with_close_calls(Engine(bundle, threads=2)))
    over = threading.Event()
    engines = [with_close_calls(Engine(bundle, threads=2))]

    def busy() -> None:
        while not over.is_set():
            answers(engines[-1])
            engines[-1].add_task(engines[-1].task("close"))

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(12):
            engines.append(with_close_calls(Engine(bundle, threads=2)))  # whose sessions open now
            in_child(lambda: expect(engines[-1], expected))
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def held(lock: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    """A lock that another thread holds."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def locks_that_others_hold(bundle: Path) -> None:
    """The locks of an engine are new in a child."""
    engine = Engine(bundle, threads=2)
    expected = answers(engine)
    with held(engine._catalog._lock), held(engine._runner._lock), held(engine._runner._session_lock):
        in_child(lambda: expect(engine, expected))
    expect(engine, expected)


def forks_wait_for_a_session(bundle: Path) -> None:
    """While onnxruntime opens a session no child is made; the child can open its own."""
    taken, over = threading.Event(), threading.Event()

    def open_one() -> None:
        with forks.waited_for():
            taken.set()
            threading.Event().wait(0.5)
            over.set()

    thread = threading.Thread(target=open_one)
    thread.start()
    taken.wait()

    def work() -> None:
        assert over.is_set()
        answers(Engine(bundle, threads=2))

    in_child(work)
    thread.join()
    with forks.waited_for():  # a fork by a thread that opens one itself, as a signal's handler may
        in_child(lambda: answers(Engine(bundle, threads=2)))


def tasks_are_the_childs_own(bundle: Path) -> None:
    """What a child adds and removes is not seen elsewhere."""
    engine = with_close_calls(Engine(bundle, threads=2))
    expected = answers(engine)

    def work() -> None:
        expect(engine, expected)
        engine.remove_task("close")
        task: Task = engine.task("size")
        engine.add_task(task, name="own")
        assert engine.task_names == ["colour", "own", "size"]

    in_child(work)
    assert engine.task_names == ["close", "colour", "size"]
    expect(engine, expected)


CASES: dict[str, Callable[[Path], None]] = {
    "default, one thread": lambda bundle: used(bundle, None, 1),
    "default, two threads": lambda bundle: used(bundle, None, 2),
    "int8, two threads": lambda bundle: used(bundle, "int8", 2),
    "fp32, two threads": lambda bundle: used(bundle, "fp32", 2),
    "default, not prepared": lambda bundle: used(bundle, None, 2, prepare=False),
    "unused": unused,
    "another": another,
    "closed": closed,
    "dropped": dropped,
    "preload": preload,
    "pool": pool,
    "while others classify": while_others_classify,
    "locks that others hold": locks_that_others_hold,
    "forks wait for a session": forks_wait_for_a_session,
    "tasks are the child's own": tasks_are_the_childs_own,
}

if __name__ == "__main__":
    CASES[sys.argv[2]](Path(sys.argv[1]))
    print("done")
