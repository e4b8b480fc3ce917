"""The queue, with a real engine whose runs a test can delay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from conftest import TEXTS, random_task

from edgetune.server.errors import RequestError
from edgetune.server.scheduler import Scheduler, Ticket
from edgetune_runtime import Bundle, Engine, Result, Task
from edgetune_runtime.arrays import Array
from edgetune_runtime.devices import CPU
from edgetune_runtime.kinds import LabelResult
from edgetune_runtime.passes import Pass, Runner
from edgetune_runtime.text import Tokens


class HeldEngine(Engine):
    """An engine that records its runs, delays them while `held`, and fails according to `fails`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.free = threading.Event()
        self.free.set()
        self.began = threading.Semaphore(0)
        self.runs: list[tuple[list[int], int | None]] = []
        self.fails: Callable[[Tokens], bool] = lambda tokens: False

    def answer(self, rows: Sequence[tuple[Tokens, Task]], threads: int | None = None) -> list[Result]:
        self.runs.append(([len(tokens.ids) for tokens, _ in rows], threads))
        self.began.release()
        assert self.free.wait(30)
        if any(self.fails(tokens) for tokens, _ in rows):
            raise RuntimeError("the run failed")
        return super().answer(rows, threads)


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[HeldEngine]:
    with HeldEngine(bundle, "int8", threads=2) as engine:
        yield engine
        engine.free.set()


@pytest.fixture
def batching(bundle: Bundle) -> Iterator[HeldEngine]:
    """An engine that batches, as on a GPU."""
    with HeldEngine(bundle, "fp32", threads=1, batch_size=4) as engine:
        yield engine
        engine.free.set()


def run(
    engine: HeldEngine, test: Callable[[Scheduler], Coroutine[Any, Any, None]], rows: int = 100, wait_s: float = 30.0
) -> None:
    scheduler = Scheduler(engine, rows, wait_s)
    scheduler.start()

    async def whole() -> None:
        try:
            await asyncio.wait_for(test(scheduler), 30)
        finally:
            engine.free.set()
            await asyncio.to_thread(scheduler.close)

    asyncio.run(whole())


def submit(scheduler: Scheduler, engine: Engine, texts: Sequence[str], task: str = "colour") -> Ticket[Result]:
    return scheduler.submit(texts, [engine.task(task)] * len(texts), engine.answer)


async def begun(engine: HeldEngine, runs: int) -> None:
    for _ in range(runs):
        assert await asyncio.to_thread(engine.began.acquire, timeout=30)


def test_answers_are_the_engines_whatever_is_mixed(engine: HeldEngine, bundle: Bundle) -> None:
    async def test(scheduler: Scheduler) -> None:
        tasks = ["colour", "size"] * 20
        tickets = [submit(scheduler, engine, TEXTS, task) for task in tasks]
        found = [await ticket.answer for ticket in tickets]
        with Engine(bundle, "int8", threads=1) as lone:
            expected = {task: lone.classify(TEXTS, task=task) for task in ("colour", "size")}
        assert found == [expected[task] for task in tasks]
        assert {len(rows) for rows, _ in engine.runs} == {1}  # nothing is batched on a CPU
        assert tickets[0].tokens == sum(len(row.ids) for row in engine.encode(TEXTS, [engine.task("colour")] * 8))

    run(engine, test, rows=1000)


def test_a_lone_text_gets_all_threads_and_others_one(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        engine.free.clear()
        first = submit(scheduler, engine, TEXTS[:1])
        await begun(engine, 1)
        second = submit(scheduler, engine, TEXTS[:3])
        engine.free.set()
        await asyncio.gather(first.answer, second.answer)
        assert [threads for _, threads in engine.runs][:3] == [None, 1, 1]  # which is the engine's own choice

    run(engine, test)


def test_a_full_queue_refuses_and_says_when_to_come_again(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        engine.free.clear()
        accepted = [submit(scheduler, engine, TEXTS[:1]) for _ in range(2)]
        await begun(engine, 2)
        accepted.append(submit(scheduler, engine, TEXTS[:3]))
        for texts in (TEXTS[:2], TEXTS[:8]):
            with pytest.raises(RequestError, match="come again") as refused:
                submit(scheduler, engine, texts)
            assert refused.value.status == 429
            assert int(refused.value.headers["retry-after"]) >= 1
        accepted.append(submit(scheduler, engine, TEXTS[:1]))
        engine.free.set()
        assert [len(await ticket.answer) for ticket in accepted] == [1, 1, 3, 1]

    run(engine, test, rows=4)


def test_any_request_is_taken_while_nothing_waits(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        assert len(await submit(scheduler, engine, TEXTS).answer) == len(TEXTS)

    run(engine, test, rows=2)


def test_a_wait_beyond_the_deadline_is_refused_when_it_is_foreseen(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        await submit(scheduler, engine, TEXTS).answer  # so that it knows how long a token takes
        engine.free.clear()
        accepted = []
        with pytest.raises(RequestError, match="come again"):
            for _ in range(10_000):
                accepted.append(submit(scheduler, engine, TEXTS[:1]))
        assert 2 < len(accepted) < 10_000
        for ticket in accepted:
            scheduler.cancel(ticket)
        submit(scheduler, engine, TEXTS)  # there is room again

    run(engine, test, rows=100_000, wait_s=0.05)


def test_after_a_stall_it_accepts_again(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        scheduler._token_s = 10.0  # as if each token had taken so long
        for _ in range(100):
            await submit(scheduler, engine, TEXTS[:1]).answer
        engine.free.clear()
        tickets = [submit(scheduler, engine, TEXTS[:1]) for _ in range(4)]
        engine.free.set()
        await asyncio.gather(*(ticket.answer for ticket in tickets))

    run(engine, test, wait_s=5.0)


def test_what_waited_too_long_does_not_run(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        engine.free.clear()
        running = [submit(scheduler, engine, TEXTS[:1]) for _ in range(2)]
        await begun(engine, 2)
        late = submit(scheduler, engine, TEXTS)
        await asyncio.sleep(0.3)
        engine.free.set()
        with pytest.raises(RequestError, match="waited"):
            await late.answer
        await asyncio.gather(*(ticket.answer for ticket in running))
        assert len(engine.runs) == 2

    run(engine, test, wait_s=0.2)


def test_what_has_begun_is_finished_however_long_it_takes(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        engine.free.clear()
        ticket = submit(scheduler, engine, TEXTS)
        await begun(engine, 1)
        await asyncio.sleep(0.3)
        engine.free.set()
        assert len(await ticket.answer) == len(TEXTS)

    run(engine, test, wait_s=0.2)


def test_a_cancelled_request_does_not_run_and_hinders_nobody(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        engine.free.clear()
        running = [submit(scheduler, engine, TEXTS[:1]) for _ in range(2)]
        await begun(engine, 2)
        gone, next_one = submit(scheduler, engine, TEXTS), submit(scheduler, engine, TEXTS[:1])
        scheduler.cancel(gone)
        scheduler.cancel(running[0])  # while it runs
        engine.free.set()
        assert len(await next_one.answer) == 1
        assert len(await running[1].answer) == 1
        assert len(engine.runs) == 3

    run(engine, test)


def test_a_bad_text_fails_alone(batching: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        batching.free.clear()
        first = submit(scheduler, batching, TEXTS[:1])
        await begun(batching, 1)
        tickets = [submit(scheduler, batching, [text]) for text in TEXTS[:4]]
        lengths = [len(row.ids) for row in batching.encode(TEXTS[:4], [batching.task("colour")] * 4)]
        assert lengths.count(lengths[1]) == 1
        batching.fails = lambda tokens: len(tokens.ids) == lengths[1]
        batching.free.set()
        await first.answer
        for place, ticket in enumerate(tickets):
            if place == 1:
                (failed,) = await ticket.answer
                assert isinstance(failed, RequestError)
                assert (failed.status, "the run failed" in str(failed)) == (500, True)
            else:
                assert await ticket.answer == batching.classify([TEXTS[place]], task="colour")
        assert batching.runs[1] == (lengths, 1)

    run(batching, test)


@pytest.mark.parametrize("kind", ["batching", "engine"])
def test_a_bad_text_leaves_the_others_of_its_request_alone(kind: str, request: pytest.FixtureRequest) -> None:
    held: HeldEngine = request.getfixturevalue(kind)

    async def test(scheduler: Scheduler) -> None:
        expected = held.classify(TEXTS, task="colour")
        lengths = [len(row.ids) for row in held.encode(TEXTS, [held.task("colour")] * len(TEXTS))]
        held.fails = lambda tokens: len(tokens.ids) == lengths[1]
        outcomes = await submit(scheduler, held, TEXTS).answer
        for length, outcome, answer in zip(lengths, outcomes, expected, strict=True):
            if length == lengths[1]:
                assert isinstance(outcome, RequestError)
            else:  # batches of other rows differ in the last bits
                assert isinstance(outcome, LabelResult)
                assert isinstance(answer, LabelResult)
                assert dict(outcome.scores) == pytest.approx(dict(answer.scores), abs=1e-6)

    run(held, test)


class CountingRunner(Runner):
    """A runner that notes how many passes each run has."""

    counts: list[int]

    def run(self, passes: Sequence[Pass], precision: str, threads: int | None = None) -> list[Array]:
        self.counts.append(len(passes))
        return super().run(passes, precision, threads)


def test_rows_of_one_turn_share_passes(batching: HeldEngine, bundle: Bundle) -> None:
    """Requests of several clients with the same text: tasks without parts share its pass."""
    for number in range(2):
        batching.add_task(random_task(bundle, f"head{number}", prefix=0, seed=number))
    batching._runner = runner = CountingRunner(bundle, CPU, threads=1, batch_size=4, prepare=False)
    runner.counts = []

    async def test(scheduler: Scheduler) -> None:
        batching.free.clear()
        first = submit(scheduler, batching, TEXTS[1:2])
        await begun(batching, 1)
        asked = [(TEXTS[0], "head0"), (TEXTS[0], "head1"), (TEXTS[0], "colour"), (TEXTS[1], "head0")]
        tickets = [submit(scheduler, batching, [text], task) for text, task in asked]
        batching.free.set()
        await first.answer
        found = [(await ticket.answer)[0] for ticket in tickets]
        assert [len(rows) for rows, _ in batching.runs] == [1, 4]
        assert runner.counts == [1, 3]
        for outcome, (text, task) in zip(found, asked, strict=True):
            (alone,) = batching.classify([text], task=task)
            assert isinstance(outcome, LabelResult)
            assert isinstance(alone, LabelResult)
            assert outcome.best == alone.best
            assert dict(outcome.scores) == pytest.approx(dict(alone.scores), abs=1e-6)

    run(batching, test)


def test_at_its_end_it_runs_what_waits_and_takes_no_more(engine: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        engine.free.clear()
        ticket = submit(scheduler, engine, TEXTS)
        closing = asyncio.ensure_future(asyncio.to_thread(scheduler.close))
        await begun(engine, 1)
        while not scheduler._closed:
            await asyncio.sleep(0.01)
        with pytest.raises(RequestError, match="stopping") as refused:
            submit(scheduler, engine, TEXTS)
        assert refused.value.status == 503
        engine.free.set()
        await closing
        assert len(await ticket.answer) == len(TEXTS)
        assert scheduler.idle

    run(engine, test)


def test_texts_that_are_made_vectors_are_no_run_with_those_that_are_answered(batching: HeldEngine) -> None:
    async def test(scheduler: Scheduler) -> None:
        batching.free.clear()
        first = submit(scheduler, batching, TEXTS[:1])
        await begun(batching, 1)
        task = batching.task("colour")
        answered = [submit(scheduler, batching, [text]) for text in TEXTS[:2]]
        vectors = [scheduler.submit([text], [task], batching.pooled) for text in TEXTS[:3]]
        answered.append(submit(scheduler, batching, TEXTS[2:3]))
        batching.free.set()
        await first.answer
        for ticket in answered:
            assert [result.task for result in await ticket.answer if not isinstance(result, RequestError)] == ["colour"]
        for text, vector in zip(TEXTS, vectors, strict=False):
            (found,) = await vector.answer
            assert not isinstance(found, RequestError)
            assert found == pytest.approx(batching.features([text], task)[0], abs=1e-5)
        assert [len(rows) for rows, _ in batching.runs] == [1, 2, 1]

    run(batching, test)
