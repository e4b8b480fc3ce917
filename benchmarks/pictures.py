"""Plots of the benchmarks' results, as PNG next to their figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from edgetune_runtime import files

OURS, OTHERS, PYTORCH = "#55a868", "#8c8c8c", "#c44e52"


def peers(figures: Mapping[str, Any], folder: Path) -> list[str]:
    """A picture per model: times of every contender and those of edgetune in int8, for a prompt of 20."""
    return [_peers(name, cells, folder) for name, cells in figures["models"].items()]


def bulk(figures: Mapping[str, Any], folder: Path) -> list[str]:
    """Rows per second by data set."""
    found = figures["bulk"]
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 2.6), squeeze=False)
    for axis, (name, row) in zip(axes[0], found.items(), strict=True):
        speeds = row["rows_per_second"]
        _bars(axis, list(speeds), list(speeds.values()))
        axis.set_title(f"{name}, rows a second", fontsize=9)
    for axis in axes[0][1:]:
        axis.set_yticklabels([])
    return [_save(figure, folder / "bulk.png")]


def tasks(figures: Mapping[str, Any], folder: Path) -> list[str]:
    """Memory over the number of resident tasks."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for color, (method, row) in zip((OURS, OTHERS), figures["tasks"].items(), strict=False):
        counts = [int(count) for count in row["resident"]]
        axis.plot(counts, [one["mb"] for one in row["resident"].values()], "o-", color=color, label=f"{method}, memory")
        axis.plot(counts, [count * row["task_mb"] for count in counts], "k:", linewidth=1)
    axis.plot([], [], "k:", linewidth=1, label="their files")
    axis.set(xscale="log", yscale="log", xlabel="resident tasks", ylabel="MB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return [_save(figure, folder / "tasks.png")]


DRAW: Mapping[str, Callable[[Mapping[str, Any], Path], list[str]]] = {"peers": peers, "bulk": bulk, "tasks": tasks}
"""Benchmark → function that draws it into a folder and returns the names of the pictures."""


def _peers(name: str, cells: list[dict[str, Any]], folder: Path) -> str:
    shown = [cell for cell in cells if cell["prompt_length"] == 20]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 3.2), squeeze=False)
    for axis, cell in zip(axes[0], shown, strict=True):
        times = {column: timing["median_ms"] for column, timing in cell["contenders"].items()}
        _bars(axis, list(times), list(times.values()))
        axis.set_title(f"{cell['batch_size']} × {cell['sequence_length']} tokens, prompt 20, ms", fontsize=9)
    for axis in axes[0][1:]:
        axis.set_yticklabels([])
    figure.suptitle(name, fontsize=10)
    return _save(figure, folder / f"peers-{name.replace(' ', '-')}.png")


def _bars(axis: Any, names: list[str], values: list[float]) -> None:
    colors = [OURS if name.startswith("edgetune") else PYTORCH if "PEFT" in name else OTHERS for name in names]
    bars = axis.barh(names, values, color=colors)
    axis.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    axis.invert_yaxis()
    axis.margins(x=0.18)
    axis.tick_params(labelsize=8)


def _save(figure: Figure, path: Path) -> str:
    picture = io.BytesIO()
    figure.tight_layout()
    figure.savefig(picture, format="png", dpi=110)
    plt.close(figure)
    files.write_atomic(path, picture.getvalue())
    return path.name
