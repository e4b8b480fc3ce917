"""Change valid task files and bundles randomly, very often, and check that the worst result is an error.

    python tests/torture/mutate.py BUNDLE --number 100000 --seed 0

Each mutation is refused with an `EdgetuneError`, or accepted, and then it has to answer: tasks with finite scores,
tokenizers with ids that the backbone knows. All else is a failure: another exception, a process that ends, more than a
second of CPU time, more than 256 MB of memory. Where a digest would catch a change it is made to fit, so that what lies
behind is reached.

Workers are processes with a limit on their memory; one that ends is counted and replaced. A mutated graph, which can
end the process that loads it, is tried in a child of its own with the limits of the probe: what ends that child is what
the probe is for, and counts as refused.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import click
import numpy as np
import safetensors.numpy

from edgetune_runtime import Bundle, Engine, Task, files, probe
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.parts import HEAD
from edgetune_runtime.task_file import digest
from edgetune_runtime.text import Text, TextEncoder

SLOW_S = 1.0
FAT_BYTES = 256_000_000
HUNG_S = 120.0
FAILURES = ("crashed", "slow", "fat")
GRAPH = files.graph_file("fp32")
TEXTS = ["", "the lamp is broken", "größe 赤い 😀", "lamp " * 50]
SHARES = {
    "task bytes": 30,
    "task header": 20,
    "task tensors": 15,
    "manifest": 15,
    "config": 5,
    "tokenizer": 14,
    "graph": 1,
}
"""Of a hundred mutations, how many are of what; a graph takes a process."""

WORDS = (
    *(
        "",
        "0",
        "-1",
        "1e400",
        "NaN",
        "１２",
        "1_0",
        "../x",
        "/etc/passwd",
        "\x1b[2J",
        "\0",
        "\ud800",
        "{text}",
        "{mask}",
        "{text} {text_pair}",
        "true",
        "score",
        "multi-label",
        "[0.5, 0.5, 0.5]",
        '["kind:score"]',
    ),
    *(None, True, False, 0, -1, 1 << 31, 1 << 63, 1 << 70, 0.5, 1e308, -0.0, [], {}, [[]], {"a": []}, "x" * 3000),
)


# Mutations


def of_bytes(dice: random.Random, data: bytes) -> bytes:
    """A few bytes changed, put in, taken out, repeated; or the end cut off."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        place = dice.randrange(len(changed) + 1)
        kind = dice.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << dice.randrange(8)
        elif kind == 1 and place < len(changed):
            changed[place] = dice.choice((0, 1, 0x22, 0x2C, 0x5C, 0x7B, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            changed[place:place] = dice.randbytes(dice.randrange(1, 9))
        elif kind == 3:
            del changed[place : place + dice.randrange(1, 33)]
        elif kind == 4:
            changed[place:place] = changed[place : place + dice.randrange(1, 33)] * dice.choice((1, 2, 50))
        elif dice.randrange(8) == 0:
            del changed[place:]
    return bytes(changed)


def of_json(dice: random.Random, value: Any) -> Any:
    """A JSON value with something in it changed, taken out or put in twice."""
    holders = [value]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [one for one in inner if isinstance(one, (dict, list)) and one]
        if len(holders) > 3000:
            break
    holder = dice.choice(holders[:50] if dice.randrange(2) else holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return dice.choice(WORDS)
    key = dice.choice(keys)
    kind = dice.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[str(dice.choice(WORDS))] = holder[key]
    elif kind == 2 and isinstance(holder[key], str):
        holder[key] = "".join(map(chr, of_bytes(dice, holder[key].encode("utf-8", "replace"))))
    elif kind == 3 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] += dice.choice((-1, 1, 1 << 16, 1 << 31, -(1 << 40), 0.5))
    elif kind == 4:
        holder[key] = holder[dice.choice(keys)]
    else:
        holder[key] = dice.choice(WORDS)
    return value


def to_json(dice: random.Random, value: Any) -> bytes:
    """JSON, now and then with its text changed too."""
    text = json.dumps(value).encode()
    return of_bytes(dice, text) if dice.randrange(4) == 0 else text


def of_task_header(dice: random.Random, data: bytes) -> bytes:
    """The header's JSON changed, and a digest that fits where one can be made."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    fields = header["__metadata__"]
    if dice.randrange(2):
        fields[dice.choice(list(fields))] = str(dice.choice(WORDS))
    else:
        key = dice.choice([key for key in ("labels", "metrics", "thresholds", "requires") if key in fields])
        fields[key] = to_json(dice, of_json(dice, json.loads(fields[key]))).decode("utf-8", "replace")
    fields = {key: value.encode("utf-8", "replace").decode() for key, value in fields.items()}
    fields.pop("sha256", None)
    fields["sha256"] = digest(fields, safetensors.numpy.load(data))
    header["__metadata__"] = fields
    if dice.randrange(3) == 0:
        header = of_json(dice, header)
    text = to_json(dice, header) if dice.randrange(3) == 0 else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def of_task_tensors(dice: random.Random, data: bytes) -> bytes:
    """Tensors of other numbers, shapes, types or names, and a digest that fits."""
    (length,) = struct.unpack("<Q", data[:8])
    fields = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = safetensors.numpy.load(data)
    for name in dice.sample(sorted(tensors), dice.choice((1, 1, 2))):
        tensor = tensors[name]
        kind = dice.randrange(7)
        if kind == 0:
            tensor.reshape(-1)[dice.randrange(tensor.size)] = dice.choice((np.nan, np.inf, 1e7, 1e30, 1e6, -5.0, 1e-45))
        elif kind == 1:
            tensors[name] = tensor.astype(dice.choice(("float64", "float16", "int64", "uint8", "bool")))
        elif kind == 2:
            tensors[name] = np.zeros(dice.choices((0, 1, 2, 3, 4, 8, 32), k=dice.randrange(6)), np.float32)
        elif kind == 3:
            del tensors[name]
        elif kind == 4:
            tensors[dice.choice(("prompt_embeddings", "prompt_source", "x"))] = tensors.pop(name)
        elif kind == 5:
            tensors[name] = np.ascontiguousarray(tensor[: dice.randrange(len(tensor) + 1)])
        else:
            flat = np.frombuffer(of_bytes(dice, tensor.tobytes()).ljust(tensor.nbytes, b"\x7f"), np.uint8)
            tensors[name] = flat[: tensor.nbytes].view(np.float32).reshape(tensor.shape)
    fields.pop("sha256", None)
    fields["sha256"] = digest(fields, tensors)
    return safetensors.numpy.save(tensors, fields)


# What is done with a mutation


def texts_for(task: Task) -> list[Text]:
    """Texts, or pairs of them, as a task takes them."""
    return list(zip(TEXTS, reversed(TEXTS), strict=True)) if task.pairs else list(TEXTS)


def numbers(value: Any) -> Iterator[float]:
    """All numbers of an answer."""
    if isinstance(value, float):
        yield value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from numbers(inner)


class Victim:
    """A copy of a bundle, whose files are changed one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = Bundle(folder)
        self._add_others()
        self.engine = Engine(self.bundle, "fp32", threads=1, prepare=False)
        self.tasks = self.bundle.task_names()
        names = (files.MANIFEST, files.CONFIG, files.TOKENIZER, GRAPH, *map(files.task_file, self.tasks))
        self.sound = {name: (folder / name).read_bytes() for name in names}
        self.kinds: dict[str, Callable[[random.Random], bool]] = {
            "task bytes": partial(self._task, of_bytes),
            "task header": partial(self._task, of_task_header),
            "task tensors": partial(self._task, of_task_tensors),
            "manifest": partial(self._json_file, files.MANIFEST),
            "config": partial(self._json_file, files.CONFIG),
            "tokenizer": partial(self._json_file, files.TOKENIZER),
            "graph": self._graph,
        }

    def _add_others(self) -> None:
        """Put tasks of the other kinds, of pairs and with fields of a later version beside those of the bundle."""
        one = self.bundle.load_task(self.bundle.task_names()[0])
        shares = tuple(0.5 for _ in one.labels)
        head = {name: tensor[:1] for name, tensor in one.tensors.items() if name in HEAD.tensors}
        number = {"kind_name": "score", "labels": one.labels[:1], "tensors": {**one.tensors, **head}}
        others: dict[str, dict[str, Any]] = {
            "many": {"kind_name": "multi-label", "thresholds": shares},
            "number": number,
            "pairs": {"pairs": True, "graph_inputs": ("spans",)},
            "filled": {"pairs": True, "template": "so: {text} and {text_pair}", **number},
            "later": {"unknown": {"cover": "red"}},
        }
        for name, fields in others.items():
            self.bundle.add_task(dataclasses.replace(one, name=name, **fields))

    def _task(self, mutation: Callable[[random.Random, bytes], bytes], dice: random.Random) -> bool:
        name = dice.choice(self.tasks)
        with self._changed(files.task_file(name), mutation(dice, self.sound[files.task_file(name)])):
            task = self.engine.add_task(self.bundle.load_task(name))
            results = self.engine.classify(texts_for(task), name)
        if not all(np.isfinite(list(numbers(result.fields()))).all() for result in results):
            raise ValueError(f"the task {task} gives scores that are not finite")
        return True

    def _json_file(self, name: str, dice: random.Random) -> bool:
        data = self.sound[name]
        mutated = of_bytes(dice, data) if dice.randrange(3) == 0 else to_json(dice, of_json(dice, json.loads(data)))
        with self._changed(name, mutated):
            bundle = Bundle(self.folder)
            for file in bundle.manifest.files:
                bundle.digest(file)
            vocabulary = bundle.vocabulary_size()
            encoder = TextEncoder(
                bundle.read(files.TOKENIZER),
                bundle.manifest.facts.max_positions,
                bundle.manifest.facts.mask_token,
                vocabulary,
            )
            task = bundle.load_task(dice.choice(self.tasks))
            rows = encoder.encode(texts_for(task), [task] * len(TEXTS))
        if any(max(row.ids) >= vocabulary or len(row.ids) > bundle.manifest.facts.max_positions for row in rows):
            raise ValueError("a token id or a length that the backbone does not have")
        return True

    def _graph(self, dice: random.Random) -> bool:
        """In a child: what ends it is counted as refused."""
        with self._changed(GRAPH, of_bytes(dice, self.sound[GRAPH])):
            child = os.fork()
            if not child:
                try:
                    probe.limit_process(len(self.sound[GRAPH]))
                    probe.check_part(Bundle(self.folder), "fp32")
                except EdgetuneError:
                    os._exit(1)
                os._exit(0)
            _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code > 1:
            raise ValueError(f"the probe of a graph ended with status {code}")
        return code == 0

    @contextmanager
    def _changed(self, name: str, data: bytes) -> Iterator[None]:
        """Other contents of a file, with a SHA-256 in the manifest that fits."""
        (self.folder / name).write_bytes(data)
        if name in self.bundle.manifest.files:
            manifest = json.loads(self.sound[files.MANIFEST])
            manifest["files"][name] = files.sha256(data)
            (self.folder / files.MANIFEST).write_text(json.dumps(manifest))
        try:
            yield
        finally:
            for changed in {name, files.MANIFEST}:
                (self.folder / changed).write_bytes(self.sound[changed])


# Workers


@dataclass(frozen=True)
class Outcome:
    """The result of one mutation."""

    number: int
    kind: str
    status: str
    seconds: float = 0.0
    memory_bytes: int = 0
    told: str = ""


def kind_of(seed: int, number: int) -> tuple[str, random.Random]:
    """The kind of a mutation and the dice that make it, the same whatever ran before."""
    dice = random.Random(f"{seed} {number}")
    (kind,) = dice.choices(list(SHARES), weights=list(SHARES.values()))
    return kind, dice


def work(sound: Path, seed: int, first: int, last: int, answers: Connection) -> None:
    """Make and use the mutations from `first` up to `last`, and send what became of each."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "stderr").open("wb") as panics:
        os.dup2(panics.fileno(), 2)  # panics of tokenizers write pages
        victim = Victim(shutil.copytree(sound, Path(scratch) / "bundle"))
        for name in victim.tasks:
            victim.engine.classify(texts_for(victim.engine.task(name)), name)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * FAT_BYTES, resource.RLIM_INFINITY))
        before = peak_bytes()
        for number in range(first, last):
            kind, dice = kind_of(seed, number)
            began = time.process_time()
            told = ""
            try:
                status = "accepted" if victim.kinds[kind](dice) else "refused"
            except EdgetuneError:
                status = "refused"
            except BaseException as error:  # noqa: BLE001 - any other is what is looked for
                status, told = "crashed", f"{type(error).__name__}: {error}"
            seconds, memory_bytes = time.process_time() - began, peak_bytes() - before
            if status != "crashed" and seconds > SLOW_S:
                status = "slow"
            elif status != "crashed" and memory_bytes > FAT_BYTES:
                status = "fat"
            answers.send(Outcome(number, kind, status, seconds, memory_bytes, told))
            if status == "fat":  # the peak would hide the next one's
                return


def peak_bytes() -> int:
    """The most memory that this process has had. getrusage would count what its parent had when it was made."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class Worker:
    """A process that works through some of the mutations, and is replaced if it ends too early."""

    def __init__(self, sound: Path, seed: int, numbers: range) -> None:
        self._arguments = (sound, seed)
        self._start(numbers)

    def _start(self, numbers: range) -> None:
        self.left = numbers
        context = multiprocessing.get_context("spawn")
        self.answers, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(*self._arguments, numbers.start, numbers.stop, theirs))
        self.process.start()
        theirs.close()

    def next(self) -> Outcome:
        """The next mutation's outcome, which is ready, or the process has ended over it."""
        try:
            outcome: Outcome = self.answers.recv()
        except EOFError:
            self.process.join()
            number, seed = self.left.start, self._arguments[1]
            told = f"the worker ended with status {self.process.exitcode}"
            outcome = Outcome(number, kind_of(seed, number)[0], "crashed", told=told)
        self.left = range(outcome.number + 1, self.left.stop)
        if self.left and outcome.status in ("crashed", "fat"):
            self.stop()
            self._start(self.left)
        return outcome

    def stop(self) -> None:
        """End the process."""
        self.answers.close()
        self.process.kill()
        self.process.join()


def outcomes(sound: Path, seed: int, number: int, workers: int) -> Iterator[Outcome]:
    """Make that many mutations, spread over workers."""
    bounds = [number * place // workers for place in range(workers + 1)]
    running = [Worker(sound, seed, range(*pair)) for pair in pairwise(bounds)]
    try:
        while running := [worker for worker in running if worker.left]:
            ready = wait([worker.answers for worker in running], timeout=HUNG_S)
            for worker in running:
                if not ready:  # nothing came from any of them
                    worker.process.kill()
                if worker.answers in ready:
                    yield worker.next()
    finally:
        for worker in running:
            worker.stop()


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--number", "-n", default=100_000, show_default=True, help="Mutations to make.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same mutations.")
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="Processes that work at once.")
def main(bundle: Path | None, number: int, seed: int, workers: int) -> None:
    """Mutate the files of BUNDLE, or of a tiny one, and count what becomes of it; exit status 1 after a failure."""
    with tempfile.TemporaryDirectory() as scratch:
        sound = bundle or tiny_bundle(Path(scratch))
        began = time.monotonic()
        counts: Counter[tuple[str, str]] = Counter()
        failures: list[Outcome] = []
        slowest, fattest = 0.0, 0
        for outcome in outcomes(sound, seed, number, min(workers, number)):
            counts[outcome.kind, outcome.status] += 1
            slowest, fattest = max(slowest, outcome.seconds), max(fattest, outcome.memory_bytes)
            if outcome.status in FAILURES:
                failures.append(outcome)
            if counts.total() % 10_000 == 0:
                click.echo(f"{counts.total():,} of {number:,}, {len(failures)} failures", err=True)
    columns = ("refused", "accepted", *FAILURES)
    click.echo(f"{'':<14}" + "".join(f"{column:>10}" for column in columns))
    for kind in SHARES:
        click.echo(f"{kind:<14}" + "".join(f"{counts[kind, column]:>10,}" for column in columns))
    click.echo(
        f"{counts.total():,} mutations, seed {seed}: {time.monotonic() - began:.0f} s, the slowest {slowest:.3f} s, "
        f"at most {fattest / 1e6:.0f} MB more memory"
    )
    for failure in failures[:20]:
        click.echo(f"{failure.status}: {failure.kind} {failure.number}: {failure.told:.300}")
    sys.exit(bool(failures))


def tiny_bundle(folder: Path) -> Path:
    """The tests' bundle."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import random_task, save_tiny_bert

    from edgetune_export import export_bundle, load_backbone

    save_tiny_bert(folder / "tiny-bert")
    export_bundle(load_backbone(str(folder / "tiny-bert")), folder / "bundle")
    bundle = Bundle(folder / "bundle")
    bundle.add_task(random_task(bundle, "colour", prefix=6, labels=3, seed=1))
    bundle.add_task(random_task(bundle, "size", prompt=4, labels=2, seed=2))
    return folder / "bundle"


if __name__ == "__main__":
    main()
