"""Resources of `edgetune serve` after a long time at four fifths of its capacity.

    python tests/torture/soak.py soak                   (twenty minutes; --number seconds)

Texts of all lengths, several tasks, clients that go away, bad requests, refused swaps and real ones, at random moments
(Poisson) whether or not others are answered. Memory, threads and descriptors (but those of this script's connections)
are read once a second: after the first quarter they do not grow. Needs Linux.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from serving import Server, run_server
from torture.common import Findings, Line, Parts, command, descriptors, memory_mb, post, threads
from torture.faults import CLASSIFY, KEY, drop, questions
from torture.tiny import canaries

from edgetune_runtime import Bundle

LOAD = 0.8
DROPPED, BAD, SWAPPED = 0.02, 0.02, 0.002
"""Shares of the requests that are dropped, cannot be understood, and swap a task."""

IDLE_S = 2.0
"""After so long a connection is not used again: the server ends those on which nothing comes, maybe at that moment."""

LAZY_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""asyncio's pool, which writes and removes tasks: if two are asked for at once it starts a thread, and keeps it."""

MEMORY_GROWTH_MB = 4.0
"""What memory may grow from the second quarter to the last: some twenty bytes a request, at 300 requests a second."""


def soak(bundle: Path, number: int, seed: int) -> Findings:
    """Ask for a long time.

    Args:
        bundle: what to serve; it is changed.
        number: seconds.
        seed: of all that is random.
    """
    tasks = canaries(Bundle(bundle))
    swaps = [post("/v2/repository/models/canary/load", task.to_bytes(), "authorization: Bearer key") for task in tasks]
    bad = [post(CLASSIFY, message) for message in (b"{", {"model": "none", "input": "x"}, {"input": [1]})]
    asked = questions(bundle)
    found = Findings("soak", number)
    samples: list[tuple[float, int, int]] = []
    lines: list[Line] = []
    with run_server(bundle, "--allow-task-changes", env=KEY) as server:
        capacity = asyncio.run(_capacity(server, [question.request for question in asked], min(10.0, number / 4)))
        found.figures["capacity per s"] = capacity
        server.said.clear()  # the log is kept by the reader of this process, which is not what is measured

        async def ask(line: Line, chance: random.Random) -> None:
            dice = chance.random()
            if dice < DROPPED:
                await drop(server.port, chance.choice(asked).request, chance)
                found.counts["dropped"] += 1
                return
            if dice < DROPPED + BAD:
                reply = await line.ask(chance.choice(bad), 30)
                found.counts["bad"] += 1
                found.expect(400 <= reply.status < 500, f"a bad request got {reply.status}")
            elif dice < DROPPED + BAD + SWAPPED:
                reply = await line.ask(chance.choice(swaps), 30)
                found.counts["swapped"] += 1
                found.expect(reply.status == 200, f"a swap got {reply.status}")
            else:
                question = chance.choice(asked)
                reply = await line.ask(question.request, 30)
                found.counts["refused" if reply.status == 429 else "answered"] += 1
                found.expect(reply.status == 429 or question.answered_by(reply), f"a wrong answer: {reply}")

        async def sample() -> None:
            for second in range(number):
                await asyncio.sleep(1)
                server.said.clear()
                held = sum(line.writer is not None for line in lines)  # a descriptor each, which is no leak
                samples.append((memory_mb(server), threads(server), descriptors(server) - held))
                found.progress(second + 1)

        async def load() -> None:
            chance = random.Random(seed)
            idle: list[tuple[Line, float]] = []
            asking: set[asyncio.Task[None]] = set()

            async def one() -> None:
                if not idle:
                    lines.append(Line(server.port))
                    idle.append((lines[-1], 0.0))
                line, since = idle.pop()
                if time.monotonic() - since > IDLE_S:
                    line.close()
                try:
                    await ask(line, chance)
                except (OSError, TimeoutError) as error:
                    found.fail(f"no answer: {error!r}")
                idle.append((line, time.monotonic()))

            sampling = asyncio.create_task(sample())
            due = time.monotonic()
            while not sampling.done():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(one())
                asking.add(task)
                task.add_done_callback(asking.discard)
                due += chance.expovariate(capacity * LOAD)
            await asyncio.gather(sampling, *asking)
            for line in lines:
                line.close()

        asyncio.run(load())
    _judge(samples, found)
    return found.end()


async def _capacity(server: Server, requests: list[bytes], seconds: float) -> float:
    """Requests a second that eight clients have answered, one after the other each."""
    until = time.monotonic() + seconds
    counts: Counter[int] = Counter()

    async def client(name: int) -> None:
        chance, line = random.Random(name), Line(server.port)
        while time.monotonic() < until:
            counts[(await line.ask(chance.choice(requests), 30)).status] += 1
        line.close()

    await asyncio.gather(*map(client, range(8)))
    return counts[200] / seconds


def _judge(samples: list[tuple[float, int, int]], found: Findings) -> None:
    """Compare the last quarter with the second: the first is the warm-up."""
    quarter = len(samples) // 4
    for place, (name, allowed) in enumerate(
        {"memory MB": MEMORY_GROWTH_MB, "threads": LAZY_THREADS, "descriptors": 8}.items()
    ):
        values = [sample[place] for sample in samples]
        before, after = (statistics.median(values[start : start + quarter]) for start in (quarter, 3 * quarter))
        found.figures |= {f"{name} after warm-up": before, f"{name} at the end": after, f"{name} most": max(values)}
        found.expect(after - before <= allowed, f"{name}: {before:g} after the warm-up, {after:g} at the end")


PARTS: Parts = {"soak": (soak, 1200, 20)}
"""Seconds, and seconds with `--quick`."""


if __name__ == "__main__":
    command("soak", PARTS)()
