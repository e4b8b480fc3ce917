"""Many tasks in a browser: one backbone with task files, and transformers.js with a fine-tuned model for each task.

    python benchmarks/transformers_js.py MODEL DATA NODE_MODULES

MODEL is exported twice: as a bundle in int8, and as a sequence classifier that is quantized as transformers.js's own
script does it (dtype q8). Bytes and times do not depend on what was learned. So each classifier is the same model with
a head of its own, and each task of the bundle has random parts: a head alone, which is what `fit` makes, or a prefix of
20 and a head, which is what `train` makes. npm installs transformers.js in the version below. NODE_MODULES is a folder
of npm packages (`npm ci` in web/), DATA has ag_news/test.jsonl. File servers on this machine serve pages of headless
Chromium, each side in a browser of its own; the sides take turns. It takes a quarter of an hour.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from selenium import webdriver
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from edgetune.bench.latency import Cell, machine, random_task
from edgetune.data.labelled import read_labelled
from edgetune_export import load_backbone
from edgetune_export.export import export_bundle
from edgetune_runtime import Bundle

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/web")]

from browser import run_browser  # noqa: E402
from files_served import ISOLATED, FileServer, run_in, serving_files  # noqa: E402

VERSION = "4.3.2"
COUNTS = (1, 5, 20)
THREADS = (1, 2)
PREFIX = 20
LABELS = ("business", "science", "sports", "world")
TURNS, TEXTS_PER_TURN = 10, 5

HEADER = """
| threads | tasks | | MB | MB, gzip | s to the first answer | ms per text | ms, a text by all tasks | ms, another task \
| MB of memory |
|---|---|---|---|---|---|---|---|---|---|"""
"""Of a table in Markdown."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
        name: what tables call it.
        open: JavaScript that gives its object, with `threads` in `given[0]`.
        tasks: folder of the task files, of /tasks/.
    """

    name: str
    open: str
    tasks: str = ""


SIDES = (
    Side("edgetune, heads", "(await import('/js/many_tasks.js')).edgetune(given[0])", "heads"),
    Side("edgetune, prefixes", "(await import('/js/many_tasks.js')).edgetune(given[0])", "prefixes"),
    Side("transformers.js", "(await import('/js/many_tasks.js')).transformers(given[0], '.asyncify')"),
    Side("transformers.js, less wasm", "(await import('/js/many_tasks.js')).transformers(given[0], '')"),
)


@dataclass
class Page:
    """A side in a browser, and what was measured."""

    side: Side
    driver: webdriver.Chrome
    server: FileServer
    folders: dict[str, Path]
    began: float = 0.0
    first_s: float = 0.0
    all_s: dict[int, float] = field(default_factory=dict)
    swaps_ms: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def open(self, threads: int) -> None:
        """Load the page and the first task, and answer."""
        self.began = time.perf_counter()
        self.driver.get(f"{self.server.url}/js/many_tasks.html")
        if not run_in(self.driver, "return globalThis.crossOriginIsolated;"):
            raise SystemExit("the page is not isolated, so it has one thread")
        run_in(self.driver, f"globalThis.side = await {self.side.open};", threads)
        self.add("task-0")
        self.first_s = time.perf_counter() - self.began
        self.swaps_ms.clear()

    def add(self, name: str) -> None:
        """Another task, until it has answered once."""
        code = """
            const began = performance.now();
            await globalThis.side.add(given[0]);
            const label = await globalThis.side.answer("oil prices rose again", given[0]);
            return [label, performance.now() - began];"""
        label, spent_ms = run_in(self.driver, code, name)
        self.labels.append(label)
        self.swaps_ms.append(spent_ms)

    def times_ms(self, code: str, *given: object) -> list[float]:
        """Milliseconds of each round of `code`, which has `text` and `k`, for the texts in `given[0]`."""
        loop = f"""
            const times = [];
            for (const [k, text] of given[0].entries()) {{
              const began = performance.now();
              {code}
              times.push(performance.now() - began);
            }}
            return times;"""
        times: list[float] = run_in(self.driver, loop, *given)
        return times

    def memory_mb(self) -> float:
        """Memory of the page, of wasm and JavaScript."""
        return float(run_in(self.driver, "return (await performance.measureUserAgentSpecificMemory()).bytes;")) / 1e6

    def downloaded_mb(self) -> tuple[float, float]:
        """What was sent, as it is and if the server had compressed it."""
        files = [self.folders[start] / path.removeprefix(start) for path in self.server.sent for start in self.folders
                 if path.startswith(start)]  # fmt: skip
        return sum(self.server.sent.values()) / 1e6, sum(map(compressed_bytes, files)) / 1e6


@cache
def compressed_bytes(file: Path) -> int:
    """Size of a file as gzip makes it."""
    return len(gzip.compress(file.read_bytes(), 6))


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("node_modules", type=click.Path(path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), help="Where models and packages are kept. [default: nowhere]")
@click.option("--out", type=click.Path(path_type=Path), help="Where all figures go, as JSON.")
def main(model: str, data: Path, node_modules: Path, work: Path | None, out: Path | None) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        prepare(model, folder)
        folders = {
            **{"/web/": ROOT / "web", "/js/": ROOT / "benchmarks/javascript", "/npm/": node_modules},
            **{"/npm2/": folder / "npm/node_modules", "/models/": folder / "models", "/bundle/": folder / "bundle"},
        }
        texts = [row.text for row in read_labelled(str(data / "ag_news/test.jsonl")).rows[: TURNS * TEXTS_PER_TURN]]
        click.echo(HEADER)
        found = [row for threads in THREADS for row in measured(threads, folders, folder, texts)]
    loads = [row["load_average"] for row in found]
    click.echo(f"\nload average from {min(loads):.1f} to {max(loads):.1f}")
    if out is not None:
        about = {"transformers.js": VERSION, **machine(1)}
        out.write_text(json.dumps({"tasks": found, **about}) + "\n", encoding="utf-8")


def measured(threads: int, folders: dict[str, Path], folder: Path, texts: Sequence[str]) -> list[Row]:
    """All sides with more and more tasks, each in a new browser."""
    found = []
    with ExitStack() as stack:
        pages = []
        for side in SIDES:
            own = {**folders, "/tasks/": folder / "tasks" / side.tasks}
            server = stack.enter_context(serving_files(own, ISOLATED))
            profile = stack.enter_context(tempfile.TemporaryDirectory())
            driver = stack.enter_context(run_browser(Path(profile)))
            driver.set_script_timeout(600)
            pages.append(Page(side, driver, server, own))
        for page in pages:
            page.open(threads)
        for count in COUNTS:
            for page in pages:
                for place in range(len(page.labels), count):
                    page.add(f"task-{place}")
            names = [f"task-{place}" for place in range(count)]
            times: dict[str, dict[str, list[float]]] = {page.side.name: {"one": [], "all": []} for page in pages}
            for turn in range(TURNS):
                some = texts[turn * TEXTS_PER_TURN : (turn + 1) * TEXTS_PER_TURN]
                for page in pages:
                    own_times = times[page.side.name]
                    one = "await globalThis.side.answer(text, given[1][k % given[1].length]);"
                    own_times["one"] += page.times_ms(one, some, names)
                    own_times["all"] += page.times_ms("await globalThis.side.all(text, given[1]);", some, names)
            for page in pages:
                if len(set(page.labels)) < min(count, 2):
                    raise SystemExit(f"{page.side.name}: {count} tasks with random heads all say {page.labels[0]!r}")
                sent, compressed = page.downloaded_mb()
                row = {
                    **{"side": page.side.name, "threads": threads, "tasks": count},
                    **{"downloaded_mb": sent, "compressed_mb": compressed, "first_answer_s": page.first_s},
                    "median_ms": statistics.median(times[page.side.name]["one"]),
                    "all_tasks_ms": statistics.median(times[page.side.name]["all"]),
                    "swap_ms": statistics.median(page.swaps_ms) if page.swaps_ms else None,
                    "memory_mb": page.memory_mb(),
                    "load_average": os.getloadavg()[0],
                }
                found.append(row)
                click.echo(line_of(row))
    return found


def line_of(row: Row) -> str:
    """A row as a line of the table."""
    swap = "–" if row["swap_ms"] is None else f"{row['swap_ms']:.0f}"
    numbers = [row[name] for name in ("median_ms", "all_tasks_ms")]
    return (
        f"| {row['threads']} | {row['tasks']} | {row['side']} | {row['downloaded_mb']:.1f} "
        f"| {row['compressed_mb']:.1f} | {row['first_answer_s']:.1f} | {' | '.join(f'{ms:.1f}' for ms in numbers)} "
        f"| {swap} | {row['memory_mb']:.0f} |"
    )


def prepare(model: str, folder: Path) -> None:
    """The bundle, the tasks, the classifiers and transformers.js, if they are not in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "bundle").exists():
        export_bundle(load_backbone(model), folder / "bundle", precisions=["int8"])
    if not (folder / "tasks").exists():
        make_tasks(Bundle(folder / "bundle"), folder / "tasks")
    if not (folder / "models").exists():
        make_classifiers(model, folder / "models")
    if not (folder / "npm").exists():
        (folder / "npm").mkdir()
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder / "npm")]
        subprocess.run([*command, f"@huggingface/transformers@{VERSION}"], check=True, stdout=subprocess.DEVNULL)


def make_tasks(bundle: Bundle, folder: Path) -> None:
    """Tasks of a head alone, and tasks with a prefix, each with numbers of its own."""
    made = random_task(bundle.manifest, Cell("prefix", PREFIX, 1, 1))
    hidden = made.tensors["head_weight"].shape[1]
    prefix = {name: array for name, array in made.tensors.items() if not name.startswith("head")}
    for place in range(max(COUNTS)):
        random, head = np.random.default_rng(place), random_head(place, hidden)
        own = {name: random.normal(0, 0.1, array.shape).astype(np.float32) for name, array in prefix.items()}
        for kind, tensors in (("heads", head), ("prefixes", {**own, **head})):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            task = replace(made, name=f"task-{place}", labels=LABELS, tensors=tensors)
            (folder / kind / f"task-{place}.safetensors").write_bytes(task.to_bytes())


def random_head(seed: int, hidden: int) -> dict[str, np.ndarray]:
    """A head for the labels."""
    random = np.random.default_rng(seed)
    shapes = {"head_weight": (len(LABELS), hidden), "head_bias": (len(LABELS),)}
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def make_classifiers(model: str, folder: Path) -> None:
    """The model as a sequence classifier for each task, in the files that transformers.js asks for."""
    labels = dict(enumerate(LABELS))
    classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(LABELS), id2label=labels)
    classifier.eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    taken = dict(tokenizer("a text", return_tensors="pt"))
    axes = {0: "batch", 1: "sequence"}
    with tempfile.TemporaryDirectory() as scratch:
        whole, small = Path(scratch) / "model.onnx", Path(scratch) / "model_quantized.onnx"
        torch.onnx.export(
            classifier,
            (taken,),
            str(whole),
            input_names=list(taken),
            output_names=["logits"],
            dynamic_axes={**dict.fromkeys(taken, axes), "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(whole, small, weight_type=QuantType.QInt8, extra_options={"EnableSubgraph": True})
        graph = onnx.load(small)
        bias = next(one for one in graph.graph.initializer if one.name == "classifier.bias")
        for place in range(max(COUNTS)):
            own = folder / f"task-{place}"
            (own / "onnx").mkdir(parents=True)
            classifier.config.save_pretrained(own)
            tokenizer.save_pretrained(own)
            head = 10 * random_head(place, 1)["head_bias"]  # its weights are the same, and small
            bias.CopyFrom(onnx.numpy_helper.from_array(head, bias.name))
            onnx.save(graph, own / "onnx/model_quantized.onnx")


if __name__ == "__main__":
    main()
