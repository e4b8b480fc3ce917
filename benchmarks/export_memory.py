"""Memory and time of `edgetune export`, and of an engine that opens the result, compared with the weights.

    python benchmarks/export_memory.py --model bert-base --model bert-large

Models have random weights, because only sizes matter here. Each export is a separate process, measured from start to
end. Its peak is the largest resident size that the system counted for it, as in `/usr/bin/time -f %M`, including the
pages of mapped files. CPU seconds are summed over all its threads, and depend less on the machine's other load. An
engine is opened twice: the first time it prepares the graph for this CPU, the second time it maps the stored result.
Ratios are relative to the size of the fp32 weights, or of the engine's graph.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import random_models
from random_models import MODELS

from edgetune_runtime import Bundle
from edgetune_runtime.files import CACHE_VARIABLE

OPEN = """
import sys
from edgetune_runtime import Engine, Task
with Engine(sys.argv[1], sys.argv[2], threads=1) as engine:
    facts = engine.bundle.facts
    bare = Task("bare", (), facts.sha256, {}, "none", facts.name, facts.poolings[0])
    print(engine.features(["good morning"], bare).shape)
"""


@click.command()
@click.option("--model", "names", multiple=True, type=click.Choice(list(MODELS)), default=["bert-base"])
@click.option("--precision", "precisions", multiple=True, default=["fp32", "int8"])
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", show_default=True)
def main(names: tuple[str, ...], precisions: tuple[str, ...], dtype: str) -> None:
    """Measure; a line of JSON for each model."""
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            # In a separate process: on Linux a process's reported peak is never below that of its parent.
            made = run([sys.executable, random_models.__file__, name, dtype, str(folder / name)])
            weights_mb = float(made.output)
            chosen = [part for one in precisions for part in ("--precision", one)]
            exported = run(
                [sys.executable, "-m", "edgetune", "export", str(folder / name), str(folder / "bundle"), *chosen]
            )
            row: dict[str, Any] = {
                "model": name,
                "stored": dtype,
                "fp32_weights_mb": round(weights_mb),
                "export": exported.told(weights_mb),
            }
            bundle = Bundle(folder / "bundle")
            for precision in precisions:
                graph = bundle.graph_files(precision)
                graph_mb = sum((bundle.path / file).stat().st_size for file in graph) / 1e6
                command = [sys.executable, "-c", OPEN, str(bundle.path), precision]
                first, again = (run(command, cache=folder / "cache") for _ in range(2))
                row[precision] = {
                    "graph_mb": round(graph_mb),
                    "first_open": first.told(graph_mb),
                    "open": again.told(graph_mb),
                }
            print(json.dumps(row), flush=True)


@dataclass(frozen=True)
class Ended:
    """A process that ended successfully."""

    output: str
    seconds: float
    cpu_seconds: float
    peak_mb: float

    def told(self, of_mb: float) -> dict[str, float]:
        """Its figures."""
        return {
            "peak_mb": round(self.peak_mb),
            "ratio": round(self.peak_mb / of_mb, 2),
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
        }


def run(command: list[str], cache: Path | None = None) -> Ended:
    """Run a command to its end."""
    environment = {**os.environ, CACHE_VARIABLE: str(cache or "")}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if process.stdout is None:
            raise SystemExit("no pipe")
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Ended(output, time.perf_counter() - began, cpu_seconds, usage.ru_maxrss * 1024 / 1e6)


if __name__ == "__main__":
    main()
