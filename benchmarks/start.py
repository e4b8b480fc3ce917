"""From process start to the first answer, and memory: `edgetune classify` compared with the PyTorch path, and workers.

    python benchmarks/start.py MODEL BUNDLE TASK.safetensors

The PyTorch path loads the same backbone and the same task and answers the same text. Each contender is a new
process; they take turns. Times are wall clock, memory is the process's peak resident size, which Linux does not tell
below that of the process that starts it. The first start of all on a machine prepares the graph and is not counted;
`not prepared` is a start without a cache. Workers are processes that have answered and wait, with one thread each; PSS
counts a page that n processes share as 1/n in each (Linux). `packages alone` are workers that import numpy, onnxruntime
and tokenizers, and no more. The server is ready when it says so, with 100 tasks.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from edgetune_runtime.files import CACHE_VARIABLE

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


WORKER = """
import os, sys
from edgetune_runtime import Engine
engine = Engine(sys.argv[1], "int8", threads=1)
name = engine.add_task(sys.argv[2]).name
for _ in range(int(sys.argv[3])):
    if os.fork() == 0:
        break
engine.classify([sys.argv[4]], task=name)
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.read()
os._exit(0)  # what threads the first one had, the forked have not
"""
"""Argument 3: number of workers to fork after loading the task. Each prints its process id after its answer."""

PACKAGES = """
import os, sys
import numpy, onnxruntime, tokenizers
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.read()
os._exit(0)
"""

WORKERS = 4
TASKS = 100


@click.command()
@click.argument("model")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--runs", default=7, show_default=True, help="Counted runs of each, after one that is not.")
@click.option("--quick", is_flag=True, help="Three counted runs.")
def main(model: str, bundle: Path, task: Path, runs: int, quick: bool) -> None:
    """Compare cold starts, and the memory of workers."""
    edgetune = [sys.executable, "-m", "edgetune"]
    classify = [*edgetune, "classify", str(bundle), "--task", str(task), "--precision"]
    contenders = {
        "torch": [sys.executable, "-c", TORCH, model, str(task)],
        "fp32": [*classify, "fp32"],
        "int8": [*classify, "int8"],
        "int8, not prepared": [*classify, "int8"],
        "import click": [sys.executable, "-c", "import click"],
        "edgetune --help": [*edgetune, "--help"],
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for round_number in range((3 if quick else runs) + 1):
        for name, command in contenders.items():
            figures = run(command, prepared="not prepared" not in name)
            if round_number:
                measured[name].append(figures)
    result = {
        name: {
            "median_s": round(statistics.median(seconds for seconds, _ in figures), 3),
            "peak_mb": round(max(memory for _, memory in figures), 1),
        }
        for name, figures in measured.items()
    }
    click.echo("| | s | peak MB | torch / it |\n|---|---|---|---|")
    for name, row in result.items():
        ratio = result["torch"]["median_s"] / row["median_s"]
        click.echo(f"| {name} | {row['median_s']:.3f} | {row['peak_mb']:.1f} | {ratio:.1f}× |")
    workers = {
        "1": pss_mb(bundle, task, [0]),
        f"{WORKERS}, started apart": pss_mb(bundle, task, [0] * WORKERS),
        f"{WORKERS}, forked when the task is loaded": pss_mb(bundle, task, [WORKERS - 1]),
        "1, packages alone": pss_mb(bundle, task, [0], PACKAGES),
        f"{WORKERS}, started apart, packages alone": pss_mb(bundle, task, [0] * WORKERS, PACKAGES),
    }
    click.echo("\n| int8 workers | PSS together, MB | vs one |\n|---|---|---|")
    for name, memory in workers.items():
        one = workers["1, packages alone" if "alone" in name else "1"]
        click.echo(f"| {name} | {memory:.1f} | {memory / one:.2f}× |")
    with tempfile.TemporaryDirectory() as folder:
        ready = served(bundle, task, Path(folder), 3 if quick else runs)
    click.echo(f"\n| server with {TASKS} tasks | ready, s | its CPU time, s |\n|---|---|---|")
    for name, (seconds, cpu_s) in ready.items():
        click.echo(f"| {name} | {seconds:.3f} | {cpu_s:.2f} |")
    # Not before all is measured: what libraries this process has, workers would share with it.
    from edgetune.bench.latency import machine
    from edgetune_runtime.cpus import available_threads

    environment = machine(available_threads(), "torch", "transformers")
    told = {"contenders": result, "workers_pss_mb": workers, "server_ready_s_and_cpu_s": ready}
    click.echo(json.dumps({"environment": environment, **told}))


def run(command: list[str], prepared: bool) -> tuple[float, float]:
    """Seconds and peak megabytes of one run of a command."""
    environment = dict(os.environ) if prepared else {**os.environ, CACHE_VARIABLE: ""}
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
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
    return seconds, usage.ru_maxrss / 1024


def served(bundle: Path, task: Path, folder: Path, runs: int) -> dict[str, tuple[float, float]]:
    """Medians of the seconds until a server is ready, and of the CPU time that it took by then."""
    from edgetune_runtime import Bundle, Task

    copied = Bundle(shutil.copytree(bundle, folder / "bundle"))
    for number in range(TASKS):
        copied.add_task(Task.load(task).renamed(f"task{number}"))
    command = [sys.executable, "-m", "edgetune", "serve", str(copied.path), "--port", "0", "--no-access-log"]
    found = {}
    # What it does when it has tried nothing yet is the first run, which is told apart.
    for name, more in {"first start": [], "started again": [], "--trust": ["--trust"]}.items():
        environment = {**os.environ, CACHE_VARIABLE: str(folder / "cache")}
        figures = [_ready([*command, *more], environment) for _ in range(1 if name == "first start" else runs)]
        found[name] = tuple(round(statistics.median(column), 3) for column in zip(*figures, strict=True))
    return found


def _ready(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        lines = process.stderr or ()
        if not any(" tasks on http" in line for line in lines):
            raise SystemExit("the server ended before it was ready")
        seconds = time.perf_counter() - began
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.terminate()
        process.communicate()
    return seconds, sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # of it, and of processes that it started


def pss_mb(bundle: Path, task: Path, forks: Sequence[int], program: str = WORKER) -> float:
    """Megabytes of all workers together: processes started apart, each of which forks so many more."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(bundle), str(task), str(more), TEXT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for more in forks
    ]
    try:
        said = [
            process.stdout.readline()
            for process, more in zip(started, forks, strict=True)
            for _ in range(more + 1)
            if process.stdout
        ]
        if not all(said):
            raise SystemExit("a worker ended before it answered: see above")
        workers = [line.strip() for line in said]
        total = 0.0
        for pid in workers:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        return round(total, 1)
    finally:
        for process in started:
            process.communicate()


if __name__ == "__main__":
    main()
