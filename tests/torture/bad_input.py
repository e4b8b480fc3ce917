"""Invalid requests to `edgetune serve`: invalid as HTTP, JSON or messages, or slow.

    python tests/torture/bad_input.py all               (or one of: document, raw)

- `document`: schemathesis makes cases from the server's own OpenAPI document, once as it is and once with the names of
  tasks that there are, so that requests get past the look-up. No 5xx, and every answer is one that the document has.
- `raw`: sockets that send what no sound client would, from a table of kinds with variations. No 5xx, no connection that
  hangs, no more answers than requests, the process lives and keeps its memory; a client that behaves is asking all the
  time, and how much longer it waits is told.

Both together take some minutes on two cores; `--quick` one. Needs Linux, and schemathesis for `document`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
from conftest import HIDDEN, random_task
from serving import Server, run_server
from torture.cases import CLIENT_S, KINDS, LOAD, SOUND, Case, task_files
from torture.common import Asker, Findings, Parts, command, memory_mb, metric
from torture.tiny import canary

from edgetune_runtime import Bundle

SILENCE_S = 0.3
MEMORY_MB = 50
KEY = {"EDGETUNE_TASK_KEY": "key"}


@dataclass
class Seen:
    """The result of a case: the answers' statuses, and whether the connection ended."""

    statuses: list[int]
    rest: bytes
    closing: bool
    ended: bool
    seconds: float


_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def answers(data: bytes, bodiless: bool) -> tuple[list[int], bool, bytes]:
    """The statuses of the whole answers in some bytes, whether the last ends the connection, and what is left."""
    statuses, closing = [], False
    while (end := data.find(b"\r\n\r\n")) >= 0:
        found, length = _HEAD.match(data), _LENGTH.search(data[: end + 2])
        if found is None:
            break
        size = 0 if length is None or bodiless else int(length[1])
        if len(data) < end + 4 + size:
            break
        if found[1] != b"100":
            statuses.append(int(found[1]))
            closing = b"\r\nconnection: close\r\n" in data[: end + 2].lower()
        data = data[end + 4 + size :]
    return statuses, closing, data


async def attack(port: int, case: Case, grace_s: float) -> Seen:
    """Send a case and read until the server ends the connection, or has answered and is silent."""
    began = time.monotonic()
    limit = began + CLIENT_S + grace_s
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        with contextlib.suppress(OSError):
            for part in case.parts:
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    writer.write(part)
                    await writer.drain()

    sending = asyncio.create_task(send())
    data, ended = b"", False
    try:
        while not ended:
            late = time.monotonic() > limit  # bytes that have already arrived are still read
            try:
                chunk = await asyncio.wait_for(reader.read(1 << 16), SILENCE_S)
            except TimeoutError:
                statuses, closing, rest = answers(data, case.bodiless)
                if late or (sending.done() and statuses and not rest and not closing and not case.ends):
                    break
                continue
            except OSError:
                chunk = b""
            data += chunk
            ended = not chunk
    finally:
        sending.cancel()
        writer.transport.abort()
    statuses, closing, rest = answers(data, case.bodiless)
    return Seen(statuses, rest, closing, ended, time.monotonic() - began)


def problem(case: Case, seen: Seen) -> str:
    """What is wrong with the result of a case; empty if nothing is."""
    if any(status >= 500 for status in seen.statuses):
        return "a status of 500 or more"
    if len(seen.statuses) > case.most:
        return f"{len(seen.statuses)} answers to at most {case.most} requests"
    if seen.rest:
        return f"an answer that is cut short or no HTTP: {seen.rest[:60]!r}"
    if not seen.ended and (case.ends or seen.closing or not seen.statuses):
        return f"the connection hangs after {seen.seconds:.1f} s"
    return ""


def raw(
    bundle: Path, number: int, seed: int, attackers: int = 6, calm_s: float = 8.0, grace_s: float = 2.0
) -> Findings:
    """Attack a server over raw sockets.

    Args:
        bundle: what to serve; it may be changed.
        number: cases at least; every kind has as many.
        seed: of all that is random.
        attackers: connections at a time.
        calm_s: how long the client that behaves is alone at first.
        grace_s: how much longer than the server waits for clients a connection may last.
    """
    table = {**KINDS, "task files": task_files(canary(Bundle(bundle), 0).renamed("spare").to_bytes())}
    rounds = -(-number // len(table))
    cases = [
        (name, place, make(random.Random(f"{seed} {name} {place}")))  # now, so that attackers lose no time with it
        for place in range(rounds)
        for name, make in table.items()
    ]
    random.Random(seed).shuffle(cases)
    options = ("--client-seconds", str(CLIENT_S), "--allow-task-changes", "--no-access-log")
    with run_server(bundle, *options, env=KEY) as server:
        with Asker(server.port, SOUND) as calm:
            time.sleep(calm_s)
        found = Findings("raw", len(cases))
        before = memory_mb(server)
        left = iter(enumerate(cases))

        async def attacker() -> None:
            for done, (name, place, case) in left:
                seen = await attack(server.port, case, grace_s)
                wrong = problem(case, seen)
                if wrong:
                    found.fail(f"{name} ({place}): {wrong}; {seen.statuses}; sent {case.parts[:3]!r:.300}")
                for status in list(map(str, seen.statuses)) or ["closed without an answer"]:
                    found.counts[status] += 1
                found.progress(done + 1)

        async def load() -> None:
            await asyncio.gather(*[attacker() for _ in range(attackers)])

        with Asker(server.port, SOUND) as busy:
            asyncio.run(load())
        found.end()
        grown = memory_mb(server) - before
        found.figures |= {"memory MB": before, "grown MB": grown, "sound answers meanwhile": len(busy.seconds)}
        found.figures |= {"p99 ms alone": calm.p99 * 1e3, "p99 ms": busy.p99 * 1e3, "p99 ratio": busy.p99 / calm.p99}
        found.expect(server.process.poll() is None, "the process has ended")
        found.expect(grown < MEMORY_MB, f"the memory grew by {grown:.0f} MB")
        found.expect(busy.wrong == 0, f"the client that behaves got {busy.wrong} wrong answers")
        errors = [line for line in server.said if '"level": "error"' in line or "Traceback" in line]
        found.expect(not errors, f"the log has {len(errors)} errors: {errors[:1]}")
        server.process.terminate()
        found.expect(server.process.wait(30) == 0, "the exit status is not 0")
    return found


CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)


def document(bundle: Path, number: int, seed: int) -> Findings:
    """Let schemathesis make cases of the server's own document.

    Args:
        bundle: what to serve; it is changed.
        number: requests at least.
        seed: of all that is random.
    """
    spare = canary(Bundle(bundle), 0).to_bytes()
    alike = random_task(Bundle(bundle), "alike", labels=1, seed=3)
    Bundle(bundle).add_task(dataclasses.replace(alike, kind_name="score", pairs=True))
    with (
        run_server(bundle, "--allow-task-changes", "--no-access-log", env=KEY) as server,
        server.client(headers={"authorization": "Bearer key"}) as client,
        tempfile.TemporaryDirectory() as scratch,
    ):
        found = Findings("document", number)
        whole = client.get("/openapi.json").json()
        own, named = Path(scratch) / "own.json", Path(scratch) / "named.json"
        own.write_text(json.dumps(whole))
        named.write_text(json.dumps(with_names(whole)))
        over = threading.Event()

        def keep_loading() -> None:
            while not over.wait(0.05):
                client.post(LOAD, content=spare)

        loading = threading.Thread(target=keep_loading)
        loading.start()
        done = before = requests(server)
        try:
            for turn in itertools.count():
                examples = min(400, max(10, (number - int(done - before)) // 25))
                file, mode = ((own, "all"), (named, "all"), (named, "positive"))[turn % 3]
                _schemathesis(server, file, mode, examples, seed + turn, found)
                done = requests(server)
                found.progress(min(number, int(done - before)))
                if done - before >= number and turn >= 2:
                    break
        finally:
            over.set()
            loading.join()
        found.end()
        found.counts |= statuses(server)
        found.counts["200"] -= int(metric(server, 'edgetune_task_changes_total{change="load"}'))
        found.figures["requests"] = done - before
        found.figures["loads beside"] = metric(server, 'edgetune_task_changes_total{change="load"}')
        found.figures["unloads"] = metric(server, 'edgetune_task_changes_total{change="unload"}')
        found.expect(not any(status.startswith("5") for status in found.counts), "a status of 500 or more")
        found.expect(found.figures["unloads"] > 0, "no task was unloaded: the cases do not get that far")
        found.expect(found.counts["200"] > number / 20, "hardly any case is answered well")
        server.process.terminate()
        found.expect(server.process.wait(30) == 0, "the exit status is not 0")
    return found


def with_names(whole: dict[str, Any]) -> dict[str, Any]:
    """A document in which tasks that there are stand for any string."""
    text = json.dumps(whole)
    changed: dict[str, Any] = json.loads(text)
    for path, operations in changed["paths"].items():
        for parameter in operations.get("parameters", []):
            names = ["spare"] if "repository" in path else ["colour", "size"]
            if parameter["name"] == "task":
                parameter["schema"]["enum"] = names
    schemas = changed["components"]["schemas"]
    for message in ("ClassifyRequest", "EmbeddingsRequest"):
        schemas[message]["properties"]["model"]["enum"] = ["colour", "size"]
    schemas["EmbeddingsRequest"]["properties"]["dimensions"] = {"enum": [None, HIDDEN]}
    schemas["RerankRequest"]["properties"] |= {"model": {"enum": ["alike", None]}, "label": {"const": None}}
    tensor = schemas["InputTensor"]["properties"]
    tensor["name"]["enum"], tensor["datatype"]["enum"] = ["text"], ["BYTES"]
    tensor["shape"], tensor["data"]["maxItems"] = {"const": [1]}, 1
    return changed


def statuses(server: Server) -> dict[str, int]:
    """Answers so far, by status."""
    found: dict[str, int] = {}
    for line in httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines():
        if line.startswith("edgetune_requests_total{"):
            status = line.partition('status="')[2].partition('"')[0]
            found[status] = found.get(status, 0) + int(float(line.rpartition(" ")[2]))
    return found


def requests(server: Server) -> int:
    """Answers so far, but for those to what loads tasks all the time."""
    return sum(statuses(server).values()) - int(metric(server, 'edgetune_task_changes_total{change="load"}'))


def _schemathesis(server: Server, file: Path, mode: str, examples: int, seed: int, found: Findings) -> None:
    command = [
        *(str(Path(sys.executable).with_name("st")), "run", str(file), "--url", server.url, "--checks", CHECKS),
        *(
            "--header",
            "Authorization: Bearer key",
            "--max-examples",
            str(examples),
            "--seed",
            str(seed),
            "--mode",
            mode,
        ),
        *("--continue-on-failure", "--request-timeout", "10", "--generation-database", "none", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--warnings", "off"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)
    if ran.returncode:
        sections = re.split(r"\n(?=_{5,}|={5,})", ran.stdout)
        told = [part for part in sections if "Reproduce with" in part or "rror" in part[:200]] or [ran.stderr]
        for part in told:
            found.fail(f"{file.stem}: {part[:1500]}")


PARTS: Parts = {
    "document": (document, 10_000, 1_000),
    "raw": (raw, 500, 50),
}
"""Each part, how many cases it has, and how many with `--quick`."""


if __name__ == "__main__":
    command("bad_input", PARTS)()
