"""Shared code of the long tests: command line, requests over raw sockets, and reports."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import click
import httpx
from serving import Server
from torture.tiny import tiny_bundle

_TOLD = 20


@dataclass
class Findings:
    """The findings of one part.

    Attributes:
        part: its name.
        number: how many cases it was to run.
        counts: what happened how often.
        failures: unexpected events, one line each.
    """

    part: str
    number: int
    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    _told: float = 0.0

    def fail(self, what: str) -> None:
        """Note a failure."""
        self.failures.append(what)
        if len(self.failures) <= _TOLD:
            print(f"\n{self.part}: {what}", file=sys.stderr)

    def expect(self, holds: bool, what: str) -> None:
        """Note a failure unless something holds."""
        if not holds:
            self.fail(what)

    def progress(self, done: int) -> None:
        """Report progress on stderr, at most once per second."""
        now = time.monotonic()
        if now - self._told > 1 or done == self.number:
            self._told = now
            text = f"\r{self.part}: {done} of {self.number}, {now - self.began:.0f} s, {len(self.failures)} failures"
            print(text, end="\n" if done == self.number else "", file=sys.stderr, flush=True)

    def end(self) -> Findings:
        """Stop the clock."""
        self.seconds = time.monotonic() - self.began
        return self


Parts = Mapping[str, tuple[Callable[[Path, int, int], Findings], int, int]]
"""Parts of a script by name: what runs it (bundle, number, seed), how many there are, and how many with `--quick`."""


def command(script: str, parts: Parts) -> click.Command:
    """The command line of a script: runs one part or all, each on a tiny bundle of its own."""
    wholes = ", ".join(f"{name} {whole}" for name, (_, whole, _) in parts.items())

    @click.command()
    @click.argument("part", type=click.Choice([*parts, "all"]))
    @click.option("--number", type=click.IntRange(1), help=f"How many. [default: {wholes}]")
    @click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
    @click.option("--quick", is_flag=True, help="A little of it.")
    def main(part: str, number: int | None, seed: int, quick: bool) -> None:
        """Run PART, or all."""
        found = []
        with tempfile.TemporaryDirectory() as scratch:
            bundle = tiny_bundle(Path(scratch))
            for name in parts if part == "all" else [part]:
                run, whole, little = parts[name]
                own = shutil.copytree(bundle, Path(scratch) / name)
                found.append(run(own, number or (little if quick else whole), seed))
        tell(found, {"script": script, "seed": seed})

    return main


def tell(all_findings: Sequence[Findings], settings: Mapping[str, object]) -> None:
    """Print a table and a line of JSON; exit with 1 if anything failed."""
    for found in all_findings:
        figures = [f"{name} {count}" for name, count in sorted(found.counts.items())]
        figures += [f"{name} {figure:.4g}" for name, figure in found.figures.items()]
        print(f"{found.part:<12}{found.number:>8}{found.seconds:>9.1f} s{len(found.failures):>6} failures")
        print(f"            {', '.join(figures)}")
    record = {
        found.part: {
            "number": found.number,
            "seconds": round(found.seconds, 1),
            "counts": found.counts,
            "figures": found.figures,
            "failures": found.failures[:_TOLD],
            "failed": len(found.failures),
        }
        for found in all_findings
    }
    print(json.dumps({**settings, "parts": record}))
    sys.exit(1 if any(found.failures for found in all_findings) else 0)


@dataclass
class Reply:
    """What came back for a request; status 0: not even a whole header."""

    status: int = 0
    head: bytes = b""
    body: bytes = b""
    received: int = 0
    whole: bool = False

    @property
    def closes(self) -> bool:
        """Whether the server said that the connection ends here."""
        return b"connection: close" in self.head.lower()


def post(path: str, message: object, *headers: str) -> bytes:
    """A request with a body of JSON."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


class Line:
    """A connection that stays open between requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection's ends, opened where they are not; raises `OSError`."""
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self.reader, self.writer

    def close(self) -> None:
        """End the connection."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def ask(self, request: bytes, limit_s: float) -> Reply:
        """Send a request and read its answer; raises `OSError` where nothing could be connected to.

        What is broken off gives a reply that is not whole; `TimeoutError` is for the caller.
        """
        reader, writer = await self.open()
        reply = Reply()
        try:
            async with asyncio.timeout(limit_s):
                writer.write(request)
                await self._read(reader, reply)
        except TimeoutError:
            self.close()
            raise
        except OSError:
            pass
        if not reply.whole or reply.closes:
            self.close()
        return reply

    async def _read(self, reader: asyncio.StreamReader, reply: Reply) -> None:
        try:
            reply.head = await reader.readuntil(b"\r\n\r\n")
            reply.received = len(reply.head)
            reply.status = int(reply.head.split(b" ", 2)[1])
            length = reply.head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            reply.body = await reader.readexactly(int(length))
            reply.received += len(reply.body)
            reply.whole = True
        except asyncio.IncompleteReadError as error:
            reply.received += len(error.partial)


class Asker:
    """A client that behaves, in a process of its own: classifies one text after another while the context lasts.

    Attributes:
        seconds: how long each answer took.
        wrong: how many were not the right one.
    """

    def __init__(self, port: int, request: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_ask_all_the_time, args=(port, request, other), daemon=True)
        self.seconds: list[float] = []
        self.wrong = 0

    def __enter__(self) -> Asker:
        self._process.start()
        self._pipe.recv()  # it has begun
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("enough")
        self.seconds, self.wrong = self._pipe.recv()
        self._process.join()

    @property
    def p99(self) -> float:
        """The 99th percentile, in seconds."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def _ask_all_the_time(port: int, request: bytes, pipe: Connection) -> None:
    async def ask() -> tuple[list[float], int]:
        line, seconds, wrong = Line(port), [], 0
        first = None
        while not pipe.poll():
            began = time.monotonic()
            reply = await line.ask(request, 30)
            seconds.append(time.monotonic() - began)
            data = json.loads(reply.body).get("data") if reply.whole else None
            if first is None:
                first = data
                pipe.send("begun")
            wrong += reply.status != 200 or data[0]["label"] != first[0]["label"]  # type: ignore[index]
            await asyncio.sleep(0.003)
        return seconds, wrong

    pipe.send(asyncio.run(ask()))


def metric(server: Server, name: str) -> float:
    """A metric of the server, with Prometheus labels; 0 if it does not exist yet."""
    for line in httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def wait_until_idle(server: Server, seconds: float = 10) -> bool:
    """Whether nothing waits in the queue, within some seconds."""
    until = time.monotonic() + seconds
    while metric(server, "edgetune_queue_rows"):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def logged(server: Server, path: str, seconds: float = 0.2) -> list[dict[str, object]]:
    """The log's lines about a path, of a server that has ended: nothing new has been read for some seconds."""
    seen = -1
    while len(server.said) != seen:
        seen = len(server.said)
        time.sleep(seconds)
    lines = [json.loads(line) for line in server.said if line.startswith("{")]
    return [line for line in lines if line.get("logger") == "edgetune.access" and line["path"] == path]


def descriptors(server: Server) -> int:
    """How many files and sockets a server has open; 0 if the system does not provide it."""
    folder = Path(f"/proc/{server.process.pid}/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def memory_mb(server: Server) -> float:
    """Memory that a server holds; 0 if the system does not provide it."""
    return _told_by_system(server, "VmRSS") / 1024


def threads(server: Server) -> int:
    """How many threads a server has; 0 if the system does not provide it."""
    return _told_by_system(server, "Threads")


def _told_by_system(server: Server, name: str) -> int:
    status = Path(f"/proc/{server.process.pid}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
