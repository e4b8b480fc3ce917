"""`edgetune serve` under load: accepted and rejected requests, and the cost of HTTP and of many tasks.

    python benchmarks/serving.py BUNDLE

The server has all threads and 100 random prefixes of 20; the load comes from the same machine, so both share its cores.
wrk measures the capacity (closed loop: each connection sends the next request after an answer). In the open loop, this
script sends requests at random times (Poisson), whether or not others are answered, over as many connections as
necessary. Refused means 429. The text has 29 tokens of MiniLM; the queue's deadline is 0.5 s.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click
import numpy as np
import uvloop

from edgetune.bench.latency import Cell, machine, random_task
from edgetune_runtime import Bundle, Engine
from edgetune_runtime.cpus import available_threads

TASKS = 100
QUEUE_S = 0.5
LOADS = (0.5, 1.0, 2.0, 5.0)
TURNS = 3
SENTENCE = "the train was late again and nobody at the station could say why or when another one would come today"
TEXT = f"{SENTENCE}, and so they all went home"

LUA = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
request = function()
  local task = string.format("task-%03d", math.random(0, {last}))
  return wrk.format(nil, nil, nil, string.format('{"model": "%s", "input": "%s"}', task, "{text}"))
end
"""


@dataclass
class Sent:
    """One request of the open loop."""

    status: int
    ms: float


@contextmanager
def serving(bundle: Path, threads: int) -> Iterator[str]:
    """Run a server in a separate process. Yields its address."""
    options = ["--port", "0", "--threads", str(threads), "--precision", "int8", "--no-access-log"]
    command = [sys.executable, "-m", "edgetune", "serve", str(bundle), *options, "--queue-seconds", str(QUEUE_S)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr or ():
            if found := re.search(r"tasks on (http://\S+)", line):
                yield found[1]
                return
        raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait()


def closed_loop(url: str, clients: int, seconds: float, tasks: int, folder: Path) -> tuple[float, float]:
    """Requests per second, and their median in ms."""
    script = folder / f"{tasks}.lua"
    script.write_text(LUA.replace("{last}", str(tasks - 1)).replace("{text}", TEXT))
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{math.ceil(seconds)}s",
        "-s",
        str(script),
        "--latency",
        f"{url}/v1/classify",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise SystemExit(f"not all was answered:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or median is None:
        raise SystemExit(f"wrk said:\n{said}")
    return float(rate[1]), float(median[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[median[2]]


class _Connection(asyncio.Protocol):
    """Sends one request after the other. It is lightweight, because it shares the cores with the server."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Returns a future of the status; 0 if the connection was lost."""
        self._answer = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(body) == int(length[1]) and self._answer:
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(0)

    def usable(self) -> bool:
        return not self._transport.is_closing() and b"connection: close" not in self._buffer


async def open_loop(url: str, rate: float, seconds: float, seed: int) -> list[Sent]:
    """Send requests at random times, `rate` per second on average."""
    host, port = url.removeprefix("http://").split(":")
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    head = f"POST /v1/classify HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n".encode()
    bodies = [json.dumps({"model": f"task-{place:03d}", "input": TEXT}).encode() for place in range(TASKS)]
    requests = [head + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies]
    idle: list[_Connection] = []
    sent: list[Sent] = []

    async def ask(due: float) -> None:
        connection = idle.pop() if idle else (await loop.create_connection(_Connection, host, int(port)))[1]
        status = await connection.ask(chance.choice(requests))
        sent.append(Sent(status, (time.perf_counter() - due) * 1e3))
        if connection.usable():
            idle.append(connection)

    due = time.perf_counter()
    end = due + seconds
    asking = set()
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(ask(due))  # from its scheduled time, not from when this loop sent it
        asking.add(task)
        task.add_done_callback(asking.discard)
        due += chance.expovariate(rate)
    await asyncio.gather(*asking)
    return sent


def loaded(url: str, capacity: float, load: float, seconds: float) -> dict[str, float]:
    """The open loop at a multiple of the capacity."""
    began = time.perf_counter()
    sent = uvloop.run(open_loop(url, capacity * load, seconds, seed=0))
    seconds = time.perf_counter() - began  # until the last answer
    good = [one.ms for one in sent if one.status == 200]
    refused = [one.ms for one in sent if one.status == 429]
    return {
        "load": load,
        "offered_per_s": len(sent) / seconds,
        "answered_per_s": len(good) / seconds,
        "of_capacity": len(good) / seconds / capacity,
        "answered_p50_ms": quantile(good, 0.5),
        "answered_p99_ms": quantile(good, 0.99),
        "refused": len(refused) / len(sent),
        "refused_p50_ms": quantile(refused, 0.5),
        "refused_p99_ms": quantile(refused, 0.99),
        "failed": len(sent) - len(good) - len(refused),
    }


def quantile(values: list[float], share: float) -> float:
    """The quantile of values; 0 if there are none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def alike(url: str, engine: Engine, capacity: float, number: int, folder: Path) -> int:
    """The number of answers of a loaded server that are bit-identical to those of an idle engine."""
    chance = random.Random(1)
    texts = [" ".join(chance.choices(SENTENCE.split(), k=chance.randint(1, 60))) for _ in range(number)]
    names = [f"task-{chance.randrange(TASKS):03d}" for _ in texts]
    expected = [list(result.scores.values()) for result in engine.classify(list(zip(texts, names, strict=True)))]
    background = threading.Thread(target=closed_loop, args=(url, 8, 2 + number / capacity * 12, TASKS, folder))
    background.start()
    found = []
    for text, name in zip(texts, names, strict=True):
        body = json.dumps({"model": name, "input": text}).encode()
        request = Request(f"{url}/v1/classify", body, {"content-type": "application/json"})
        with urlopen(request) as answer:
            found.append(json.load(answer)["data"][0]["probs"])
    if not background.is_alive():
        raise SystemExit("the load ended before the comparison did")
    background.join()
    return sum(one == other for one, other in zip(found, expected, strict=True))


def lone_ms(engine: Engine, seconds: float) -> float:
    """Median of one text at a time on the engine, without HTTP."""
    engine.classify([TEXT], task="task-000")
    took = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        engine.classify([TEXT], task="task-000")
        took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)


def measure(bundle: Path, threads: int, seconds: float, number: int) -> dict[str, Any]:
    """All figures; contenders take turns."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy = Bundle(shutil.copytree(bundle, folder / "bundle"))
        task = random_task(copy.manifest, Cell("prefix", 20, 1, 1))
        for place in range(TASKS):
            tensors = {name: np.roll(tensor, place) for name, tensor in task.tensors.items()}
            copy.add_task(replace(task, name=f"task-{place:03d}", tensors=tensors))
        with (
            Engine(copy, "int8", threads=threads) as engine,
            serving(copy.path, threads) as url,
            serving(copy.path, 1) as single,
        ):
            found["tokens"] = len(engine.encode([TEXT], [engine.task("task-000")])[0].ids)
            names = ("engine_ms", "lone_ms", "lone", "lone_one_thread", "one_task", "tasks")
            turns: dict[str, list[float]] = {name: [] for name in names}
            closed_loop(url, 8, 1, TASKS, folder)
            for turn in range(TURNS):
                click.echo(f"turn {turn + 1} of {TURNS}", err=True)
                turns["engine_ms"].append(lone_ms(engine, seconds / 2))
                rate, median = closed_loop(url, 1, seconds, 1, folder)
                turns["lone_ms"].append(median)
                turns["lone"].append(rate)
                turns["lone_one_thread"].append(closed_loop(single, 1, seconds, 1, folder)[0])
                turns["one_task"].append(closed_loop(url, 8, seconds, 1, folder)[0])
                turns["tasks"].append(closed_loop(url, 8, seconds, TASKS, folder)[0])
            found |= {name: statistics.median(values) for name, values in turns.items()}
            found["http_ms"] = statistics.median(
                lone - alone for lone, alone in zip(turns["lone_ms"], turns["engine_ms"], strict=True)
            )
            found["alike"], found["compared"] = alike(url, engine, found["tasks"], number, folder), number
            found["loads"] = []
            for load in LOADS:
                click.echo(f"open loop at {load:g} of the capacity", err=True)
                found["loads"].append(loaded(url, found["tasks"], load, seconds * 2))
                time.sleep(1)
    return found


def report(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    one, many, lone, single = (found[name] for name in ("one_task", "tasks", "lone", "lone_one_thread"))
    lines = [
        f"One text of {found['tokens']} tokens at a time: engine alone {found['engine_ms']:.2f} ms, over HTTP "
        f"{found['lone_ms']:.2f} ms ({found['http_ms']:+.2f} ms); {lone:.0f} requests/s on all threads, "
        f"{single:.0f} on one.",
        f"8 clients: {one:.0f} requests/s with one task ({one / lone:.2f}× one at a time, {one / single:.2f}× that on "
        f"one thread), {many:.0f} with {TASKS} tasks at random ({many / one:.2f}×).",
        f"Answers under load that are those of a lone engine to the last bit: {found['alike']} of {found['compared']}.",
        "",
        "| load | offered/s | answered/s | of capacity | p50 ms | p99 ms | refused | p50 ms | p99 ms | failed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["loads"]:
        lines.append(
            f"| {row['load']:g}× | {row['offered_per_s']:.0f} | {row['answered_per_s']:.0f} | "
            f"{row['of_capacity']:.0%} | {row['answered_p50_ms']:.0f} | {row['answered_p99_ms']:.0f} | "
            f"{row['refused']:.0%} | {row['refused_p50_ms']:.1f} | {row['refused_p99_ms']:.1f} | {row['failed']} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine. [default: all]")
@click.option("--seconds", default=5.0, show_default=True, help="Time for each contender in each turn.")
@click.option("--quick", is_flag=True, help="A second each.")
def main(bundle: Path, threads: int | None, seconds: float, quick: bool) -> None:
    """Measure the server."""
    if shutil.which("wrk") is None:
        raise click.UsageError("wrk is not installed: apt install wrk")
    threads = threads or available_threads()
    found = measure(bundle, threads, 1.0 if quick else seconds, 50 if quick else 1000)
    click.echo(report(found) + "\n")
    click.echo(json.dumps({"environment": machine(threads, "uvicorn", "starlette", "uvloop"), **found}))


if __name__ == "__main__":
    main()
