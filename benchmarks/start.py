"""From process start to the first answer, and the memory it takes: `edgetune classify` beside the PyTorch path.

    python benchmarks/start.py MODEL BUNDLE TASK.safetensors

The PyTorch path loads the same backbone and the same task and answers the same text. Each contender is a new
process; they take turns. Times are wall clock, memory is the process's peak resident size.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import click

from edgetune_runtime.session import cpu_name

TEXT = "a gorgeous , witty , seductive movie ."

TORCH = """
import sys
from pathlib import Path
from edgetune_export.loading import load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Task
task = Task.load(Path(sys.argv[2]))
backbone = load_backbone(sys.argv[1])
print(task.labels[int(torch_logits(backbone, task, [sys.stdin.read().strip()]).argmax())])
"""


@click.command()
@click.argument("model")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--runs", default=7, show_default=True, help="Counted runs of each, after one that is not.")
def main(model: str, bundle: Path, task: Path, runs: int) -> None:
    """Compare cold starts."""
    edgetune = [sys.executable, "-m", "edgetune"]
    contenders = {
        "torch": [sys.executable, "-c", TORCH, model, str(task)],
        "fp32": [*edgetune, "classify", str(bundle), "--task", str(task), "--precision", "fp32"],
        "int8": [*edgetune, "classify", str(bundle), "--task", str(task), "--precision", "int8"],
        "import click": [sys.executable, "-c", "import click"],
        "edgetune --help": [*edgetune, "--help"],
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for round_number in range(runs + 1):
        for name, command in contenders.items():
            figures = run(command)
            if round_number:
                measured[name].append(figures)
    result = {
        name: {
            "median_s": round(statistics.median(seconds for seconds, _ in figures), 3),
            "peak_mb": round(max(memory for _, memory in figures), 1),
        }
        for name, figures in measured.items()
    }
    click.echo(f"{'':<18}{'s':>8}{'peak MB':>10}{'torch / it':>12}")
    for name, row in result.items():
        ratio = result["torch"]["median_s"] / row["median_s"]
        click.echo(f"{name:<18}{row['median_s']:>8.3f}{row['peak_mb']:>10.1f}{ratio:>11.1f}×")
    help_ratio = result["edgetune --help"]["median_s"] / result["import click"]["median_s"]
    click.echo(f"edgetune --help takes {help_ratio:.2f}× the time of import click. {cpu_name()}, {os.cpu_count()} CPUs")
    packages = {name: version(name) for name in ("edgetune", "onnxruntime", "torch", "transformers")}
    click.echo(
        json.dumps({"cpu": cpu_name(), "date": time.strftime("%Y-%m-%d"), "versions": packages, "contenders": result})
    )


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of one run of a command."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("no pipes")
        process.stdin.write(f"{TEXT}\n".encode())
        process.stdin.close()
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode != 0 or (not answer and "import" not in command[-1]):
        raise SystemExit(f"{' '.join(command[:4])} failed")
    return seconds, usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
