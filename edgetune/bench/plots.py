"""Pictures of benchmark reports, as PNG."""

from __future__ import annotations

import io
from pathlib import Path

from edgetune.bench.latency import Report
from edgetune_runtime import files

_STYLES = {"torch": "#c44e52", "fp32": "#4c72b0", "int8": "#55a868", "q4": "#8172b3"}


def plot_latency(report: Report, path: Path) -> None:
    """Plot latency over prompt length, with one panel per batch size and text length and one line per contender."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(cell.batch_size, cell.sequence_length) for cell, _ in report.cells})
    methods = list(dict.fromkeys(cell.method for cell, _ in report.cells))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), squeeze=False)
    for axis, (batch, sequence) in zip(axes[0], panels, strict=True):
        here = [
            (cell, timings)
            for cell, timings in report.cells
            if (cell.batch_size, cell.sequence_length) == (batch, sequence)
        ]
        for method, line in zip(methods, ("-", "--"), strict=False):
            for name in here[0][1]:
                points = sorted(
                    (cell.prompt_length, timings[name].median_ms)
                    for cell, timings in here
                    if cell.method == method or cell.prompt_length == 0
                )
                axis.plot(
                    *zip(*points, strict=True),
                    line,
                    marker="o",
                    markersize=3,
                    color=_STYLES.get(name),
                    label=f"{name}, {method}",
                )
        axis.set_title(f"{batch} text{'s' if batch > 1 else ''} of {sequence} tokens", fontsize=10)
        axis.set_xlabel("prompt length")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("median latency, ms")
    axes[0][-1].legend(fontsize=8)
    where = report.environment
    figure.suptitle(f"{where['base_model']}, {where['cpu']}, {where['threads']} threads", fontsize=9)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    files.write_atomic(path, picture.getvalue())
