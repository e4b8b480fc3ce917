"""`edgetune serve` under load when clients disconnect, tasks are swapped, and it is stopped or killed.

    python tests/torture/faults.py all                  (or one of: drops, swaps, sigterms, kills)

- `drops`: three of ten clients go away at a random moment; all others get the engine's own answers, and in time.
- `swaps`: versions of a task are swapped; every answer is of one version, and of the one that it names.
- `sigterms`: SIGTERM at random moments; whatever the log says was answered has reached its client whole.
- `kills`: SIGKILL before and after every system call that writes a task, and at random moments while a server takes
  tasks; the task's file is whole, the old one or the new one, and the bundle is served again.

Together they take some ten minutes on two cores; `--quick` one. Needs Linux.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
from conftest import TEXTS
from serving import Server, run_server
from torture.common import Findings, Line, Parts, Reply, command, descriptors, logged, metric, post, wait_until_idle
from torture.tiny import VERSIONS, canaries

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import EdgetuneError

CLASSIFY = "/v1/classify"
KEY = {"EDGETUNE_TASK_KEY": "key"}
BEARER = {"authorization": "Bearer key"}


@dataclass(frozen=True)
class Question:
    """A request, and what the engine answers."""

    request: bytes
    labels: list[str]
    scores: list[float]

    def answered_by(self, reply: Reply) -> bool:
        """Whether a reply is the right one."""
        if reply.status != 200 or not reply.whole:
            return False
        answer = json.loads(reply.body)
        if "outputs" in answer:
            labels, scores = (output["data"] for output in answer["outputs"])
        else:
            labels = [row["label"] for row in answer["data"]]
            scores = [score for row in answer["data"] for score in row["probs"]]
        return labels == self.labels and scores == self.scores


def questions(bundle: Path) -> list[Question]:
    """Requests of one text and of many, to both routes and tasks."""
    found = []
    with Engine(bundle, threads=1) as engine:
        for texts, task in itertools.product(([TEXTS[0]], [TEXTS[5]], TEXTS, TEXTS * 5), ("colour", "size")):
            results = engine.classify(texts, task=task)
            labels = [result.best for result in results]
            scores = [score for result in results for score in result.scores.values()]
            tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
            for request in (
                post(CLASSIFY, {"model": task, "input": texts}),
                post(f"/v2/models/{task}/infer", {"inputs": [tensor]}),
            ):
                found.append(Question(request, labels, scores))
    return found


def drops(bundle: Path, number: int, seed: int, clients: int = 24, share: float = 0.3) -> Findings:
    """Some clients drop; the others are asked for their answers.

    Args:
        bundle: what to serve.
        number: requests, those that drop among them.
        seed: of all that is random.
        clients: requests at a time.
        share: of requests that drop.
    """
    asked = questions(bundle)
    queue_s, grace_s = 5.0, 3.0
    with run_server(bundle, "--queue-seconds", f"{queue_s}", "--queue-rows", "100000", "--no-access-log") as server:
        found = Findings("drops", number)
        wait_until_idle(server)
        open_before = descriptors(server)
        places = iter(range(number))
        longest = 0.0

        async def client(name: int) -> None:
            nonlocal longest
            chance = random.Random(f"{seed} {name}")
            line = Line(server.port)
            for place in places:
                question = chance.choice(asked)
                if chance.random() < share:
                    found.counts[f"dropped in {await drop(server.port, question.request, chance)}"] += 1
                else:
                    began = time.monotonic()
                    try:
                        reply = await line.ask(question.request, queue_s + grace_s)
                        right = question.answered_by(reply)
                        found.counts["answered" if right else "wrong"] += 1
                        found.expect(right, f"request {place}: {reply}")
                    except TimeoutError:
                        found.fail(f"request {place}: no answer within {queue_s + grace_s} s")
                    longest = max(longest, time.monotonic() - began)
                    if name % 2:
                        line.close()
                found.progress(place + 1)
            line.close()

        async def load() -> None:
            await asyncio.gather(*map(client, range(clients)))

        asyncio.run(load())
        found.end().figures["longest wait s"] = longest
        found.expect(wait_until_idle(server), "texts wait in the queue though nobody asks")
        found.figures["gone clients seen"] = metric(server, 'edgetune_failures_total{reason="client_gone"}')
        found.expect(httpx.get(f"{server.url}/v2/health/ready").status_code == 200, "the server is not ready")
        for question in asked:
            found.expect(question.answered_by(ask_once(server, question.request)), "a wrong answer afterwards")
        time.sleep(0.5)  # for the last connections to end
        left = descriptors(server) - open_before
        found.figures["descriptors left"] = left
        found.expect(left < 8, f"{left} more descriptors are open than before")
        server.process.terminate()
        found.expect(server.process.wait(30) == 0, "the exit status is not 0")
        log = [line for line in server.said if '"level": "error"' in line or "Traceback" in line]
        found.expect(not log, f"the log has {len(log)} errors: {log[:1]}")
    return found


async def drop(port: int, request: bytes, chance: random.Random) -> str:
    """Send a request in part or whole and go away; gives at which moment."""
    head = request.index(b"\r\n\r\n") + 4
    moment = chance.choice(("header", "body", "waiting", "answer"))
    size = {"header": chance.randrange(head), "body": chance.randrange(head, len(request))}.get(moment, len(request))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request[:size])
        if moment == "answer":
            await reader.read(1)
        else:
            await asyncio.sleep(chance.expovariate(200))
    except OSError:  # the server was first
        pass
    if chance.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    return moment


def ask_once(server: Server, request: bytes) -> Reply:
    """Send a request on a connection of its own."""

    async def ask() -> Reply:
        line = Line(server.port)
        try:
            return await line.ask(request, 30)
        finally:
            line.close()

    return asyncio.run(ask())


def swaps(bundle: Path, number: int, seed: int, clients: int = 4) -> Findings:
    """Versions of a task are swapped while clients ask.

    Args:
        bundle: what to serve; it is changed.
        number: swaps.
        seed: of all that is random.
        clients: requests at a time.
    """
    tasks = canaries(Bundle(bundle))
    tensors = [
        {"name": "text", "shape": [rows], "datatype": "BYTES", "data": (TEXTS * 3)[:rows]} for rows in (1, 3, 20)
    ]
    asked = [post("/v2/models/canary/infer", {"inputs": [tensor]}) for tensor in tensors]
    asked += [post(CLASSIFY, {"model": "canary", "input": tensor["data"]}) for tensor in tensors]
    options = ("--allow-task-changes", "--queue-seconds", "5", "--no-access-log")
    with run_server(bundle, *options, env=KEY) as server, server.client(headers=BEARER) as changing:
        found = Findings("swaps", number)
        load_canary(changing, tasks[0])
        over = threading.Event()

        async def client(name: int) -> None:
            chance = random.Random(f"{seed} {name}")
            line = Line(server.port)
            while not over.is_set():
                reply = await line.ask(chance.choice(asked), 10)
                problem = mixed(reply, tasks)
                found.counts["answers"] += 1
                if problem:
                    found.fail(f"{problem}: {reply}")
            line.close()

        async def load() -> None:
            await asyncio.gather(*map(client, range(clients)))

        askers = threading.Thread(target=asyncio.run, args=(load(),))
        askers.start()
        try:
            chance = random.Random(seed)
            version = 0
            for place in range(number):
                version = (version + chance.randrange(1, VERSIONS)) % VERSIONS
                answer = load_canary(changing, tasks[version])
                found.counts["swapped"] += answer.status_code == 200
                found.expect(answer.status_code == 200, f"swap {place}: {answer.status_code} {answer.text}")
                after = changing.post(CLASSIFY, json={"model": "canary", "input": "good"}).json()
                right = after["data"][0]["label"] == f"version{version}"
                found.expect(right, f"swap {place}: what is asked afterwards gets {after}, not version {version}")
                found.progress(place + 1)
        finally:
            over.set()
            askers.join()
        stored = Bundle(bundle).load_task("canary").sha256
        found.expect(stored == tasks[version].sha256, "the bundle has another version than the one loaded last")
        found.expect(found.counts["answers"] >= number, "fewer answers than swaps: this was no load")
    return found.end()


def load_canary(client: httpx.Client, task: Task) -> httpx.Response:
    """Load a version over HTTP."""
    return client.post("/v2/repository/models/canary/load", content=task.to_bytes())


def mixed(reply: Reply, tasks: list[Task]) -> str:
    """What is wrong with an answer of some version; empty if nothing is."""
    if reply.status != 200 or not reply.whole:
        return "no answer"
    answer = json.loads(reply.body)
    if "outputs" not in answer:
        names = {row["label"] for row in answer["data"]}
        classes = {row["num_classes"] for row in answer["data"]} | {len(row["probs"]) for row in answer["data"]}
        fits = [names == {f"version{version}"} and classes == {len(task.labels)} for version, task in enumerate(tasks)]
        return "" if any(fits) else "rows of several versions"
    version = [task.sha256 for task in tasks].index(answer["model_version"])
    labels, scores = answer["outputs"]
    rows, classes = scores["shape"]
    if labels["data"] != [f"version{version}"] * rows:
        return f"labels of others than version {version}"
    row = [float(place == version) for place in range(len(tasks[version].labels))]
    return "" if classes == len(row) and scores["data"] == row * rows else f"scores of others than version {version}"


def sigterms(bundle: Path, number: int, seed: int, clients: int = 6) -> Findings:
    """Servers are told to end while clients ask.

    Args:
        bundle: what to serve.
        number: servers.
        seed: of all that is random.
        clients: requests at a time.
    """
    found = Findings("sigterms", number)
    for place in range(number):
        chance = random.Random(f"{seed} {place}")
        options = (
            "--drain-seconds",
            str(chance.choice((0, 0.2, 0.5))),
            "--queue-seconds",
            chance.choice(("0.02", "5")),
        )
        with run_server(bundle, *options) as server:
            got = asyncio.run(_until_it_ends(server, clients, chance))
            status = server.process.wait(60)
            answered = sum(line["status"] == 200 for line in logged(server, CLASSIFY))
            errors = [line for line in server.said if "Traceback" in line or '"status": 5' in line]
        errors = [line for line in errors if '"status": 503' not in line]
        lost = answered - got["200"]
        found.counts += got
        found.counts["lost"] += abs(lost)
        found.expect(lost == 0, f"server {place}: {answered} answers in the log, {got['200']} at clients")
        found.expect(status == 0, f"server {place}: exit status {status}")
        found.expect(not got["cut short"], f"server {place}: {got['cut short']} answers were cut short")
        found.expect(not errors, f"server {place}: its log has {errors[:1]}")
        odd = set(got) - {"200", "429", "503", "refused", "closed before an answer"}
        found.expect(not odd, f"server {place}: clients got {sorted(odd)}")
        found.progress(place + 1)
    return found.end()


async def _until_it_ends(server: Server, clients: int, chance: random.Random) -> Counter[str]:
    """Ask until nobody listens any more; gives what clients got."""
    got: Counter[str] = Counter()
    bodies = [post(CLASSIFY, {"model": "colour", "input": (TEXTS * 10)[:rows]}) for rows in (1, 8, 16, 80)]

    async def client(name: int) -> None:
        line = Line(server.port)
        while True:
            try:
                reply = await line.ask(chance.choice(bodies), 30)
            except OSError:
                got["refused"] += 1
                return
            except TimeoutError:
                got["no answer within 30 s"] += 1
                return
            if reply.whole:
                got[str(reply.status)] += 1
            elif reply.received:
                got["cut short"] += 1
            else:  # the server had ended the connection: what the log says shows whether an answer was lost
                got["closed before an answer"] += 1
            if reply.status != 200:
                await asyncio.sleep(0.02)
            if name % 2:
                line.close()

    async def end() -> None:
        await asyncio.sleep(chance.uniform(0, 0.4))
        server.process.send_signal(signal.SIGTERM)

    await asyncio.gather(end(), *map(client, range(clients)))
    return got


def kills(bundle: Path, number: int, seed: int) -> Findings:
    """Servers, and the function that they write tasks with, are killed while they write.

    Args:
        bundle: what to serve; it is changed.
        number: servers killed at random moments; the system calls are killed at once each.
        seed: of all that is random.
    """
    found = Findings("kills", number)
    tasks = canaries(Bundle(bundle), prefix=40)
    for change, before, after in (
        ("add", None, tasks[0]),
        ("replace", tasks[0], tasks[1]),
        ("remove", tasks[1], None),
    ):
        _kill_calls(bundle, change, before, after, found)
    _kill_servers(bundle, number, seed, tasks, found)
    tasks_folder = bundle / "tasks"
    found.figures["partial files left"] = len(list(tasks_folder.glob("*.partial")) + list(tasks_folder.glob(".*")))
    return found.end()


def _kill_calls(bundle: Path, change: str, before: Task | None, after: Task | None, found: Findings) -> None:
    """Kill a process before, and after, every system call of a change to the bundle."""
    file = bundle / "tasks" / "canary.safetensors"
    calls = 0
    while True:
        file.unlink(missing_ok=True)
        if before is not None:
            Bundle(bundle).add_task(before)
        killed = _change_in_a_child(bundle, after, calls)
        left = file.read_bytes() if file.exists() else None
        what = f"{change}, killed at {calls}"
        whole = [task.to_bytes() if task is not None else None for task in (before, after)]
        found.expect(left in whole, f"{what}: the file is torn, {len(left or b'')} bytes")
        if killed == "ended":
            found.expect(left == whole[1], f"{what}: nothing was changed")
            break
        if killed != "killed":
            found.fail(f"{what}: the process {killed}")
            break
        found.counts[f"{change}: {'new' if left == whole[1] else 'old'} after a kill"] += 1
        expected = ["colour", "size"] if left is None else ["canary", "colour", "size"]
        _check_loads(bundle, expected, what, found)
        if calls % 2:  # every state of the disk is the same before a call as after the one before it
            _check_served(bundle, [task for task in (before, after) if task is not None], left is not None, what, found)
        calls += 1
    found.expect(calls > 1, f"{change}: {calls} system calls were seen")


def _check_loads(bundle: Path, expected: list[str], what: str, found: Findings) -> None:
    try:
        loaded = [Bundle(bundle).load_task(name).name for name in Bundle(bundle).task_names()]
    except EdgetuneError as error:
        found.fail(f"{what}: {error}")
    else:
        found.expect(loaded == expected, f"{what}: the bundle has {loaded}")


def _check_served(bundle: Path, versions: list[Task], there: bool, what: str, found: Findings) -> None:
    with run_server(bundle, "--no-access-log") as server, server.client() as client:
        listed = [one["task"] for one in client.get("/tasks").json()["tasks"]]
        found.expect(listed == (["canary"] if there else []) + ["colour", "size"], f"{what}: the server has {listed}")
        found.expect("task_left_out" not in "".join(server.said), f"{what}: the server left a task out")
        answer = ask_once(server, post(CLASSIFY, {"model": "canary", "input": "good"}))
        if there:
            label = json.loads(answer.body)["data"][0]["label"]
            found.expect(any(label in task.labels for task in versions), f"{what}: the server answers {label}")
        else:
            found.expect(answer.status == 404, f"{what}: the server answers {answer}")
    found.counts["servers after killed calls"] += 1


def _change_in_a_child(bundle: Path, task: Task | None, calls: int) -> str:
    """Add a task in another process that kills itself at a system call; gives what became of it.

    Args:
        bundle: the bundle.
        task: what to add; `None`: the canary is removed.
        calls: moments to live through; each call has one before and one after it.
    """
    child = os.fork()
    if not child:
        try:
            _KillingCalls(calls).patch()
            if task is not None:
                Bundle(bundle).add_task(task)
            else:
                Bundle(bundle).remove_task("canary")
            os._exit(0)
        finally:  # reached if an error was raised: the child must not continue like the parent
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return "ended" if status == 0 else f"failed with {status}"


class _KillingCalls:
    """Stands in the way of the calls that write to a disk, and kills the process at one of them."""

    def __init__(self, moments: int) -> None:
        self._left = moments

    def patch(self) -> None:
        """From now on. Files that are opened by their number to be written are so by `os.write`, in three parts."""
        names = ("open", "write", "fsync", "chmod", "replace", "rename", "unlink", "close")
        for name in names:
            setattr(os, name, self._wrapped(getattr(os, name)))
        fdopen = os.fdopen
        os.fdopen = lambda handle, mode="r": (  # type: ignore[assignment]
            _PlainFile(handle) if "w" in mode else fdopen(handle, mode)
        )

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def killing(*arguments: Any, **named: Any) -> Any:
            self._moment()
            result = call(*arguments, **named)
            self._moment()
            return result

        return killing

    def _moment(self) -> None:
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class _PlainFile:
    """A file without a buffer, so that every part that is written is a call of its own."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __enter__(self) -> _PlainFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._handle)

    def write(self, data: bytes) -> None:
        """Write in three parts."""
        third = len(data) // 3
        for part in (data[:third], data[third : 2 * third], data[2 * third :]):
            os.write(self._handle, part)

    def flush(self) -> None:
        """Nothing is buffered."""

    def fileno(self) -> int:
        """Its number."""
        return self._handle


def _kill_servers(bundle: Path, number: int, seed: int, tasks: list[Task], found: Findings) -> None:
    """Kill servers at random moments while they take tasks; each serves what the one before left."""
    Bundle(bundle).add_task(tasks[0])
    file = bundle / "tasks" / "canary.safetensors"
    whole = [task.to_bytes() for task in tasks]
    onto = 0  # the version on disk
    for place in range(number):
        chance = random.Random(f"{seed} {place}")
        with run_server(bundle, "--allow-task-changes", "--no-access-log", env=KEY) as server:
            reply = ask_once(server, post("/v2/models/canary/infer", _one_text()))
            found.expect(not mixed(reply, tasks), f"server {place}: {reply}")
            version = json.loads(reply.body)["model_version"]
            found.expect(version == tasks[onto].sha256, f"server {place}: it has not the version on disk")
            sent, answered = _load_until_it_dies(server, tasks, onto, chance)
        left = file.read_bytes()
        found.counts["tasks loaded"] += answered
        if left not in whole:
            found.fail(f"server {place}: the file is torn, {len(left)} bytes")
            Bundle(bundle).add_task(tasks[0])
            left = whole[0]
        _check_loads(bundle, ["canary", "colour", "size"], f"server {place}", found)
        allowed = {sent[answered], sent[-1]}  # the last that was answered, or the one under way
        onto = whole.index(left)
        found.counts["the one under way is on disk" if onto == sent[-1] else "the one before is on disk"] += 1
        found.expect(onto in allowed, f"server {place}: version {onto} is on disk, expected one of {allowed}")
        found.progress(place + 1)
    _check_served(bundle, [tasks[onto]], True, "after the last", found)


def _one_text() -> dict[str, object]:
    return {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]}


def _load_until_it_dies(server: Server, tasks: list[Task], onto: int, chance: random.Random) -> tuple[list[int], int]:
    """Load versions until the server is killed; gives the one before and those sent, and how many were answered."""
    delay = chance.uniform(0.005, 0.25)
    timer = threading.Timer(delay, server.process.kill)
    sent = [onto]
    answered = 0
    with server.client(headers=BEARER) as client:
        timer.start()
        try:
            while True:
                sent.append(chance.choice([version for version in range(VERSIONS) if version != sent[-1]]))
                load_canary(client, tasks[sent[-1]]).raise_for_status()
                answered += 1
        except httpx.TransportError:
            server.process.wait(30)
    return sent, answered


PARTS: Parts = {
    "drops": (drops, 10_000, 1_000),
    "swaps": (swaps, 1_000, 100),
    "sigterms": (sigterms, 100, 5),
    "kills": (kills, 100, 5),
}
"""Each part, how many of it there are, and how many with `--quick`."""


if __name__ == "__main__":
    command("faults", PARTS)()
