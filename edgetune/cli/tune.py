"""`edgetune tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.flags import Command
from edgetune.cli.options import BUNDLE, json_option, note, print_json

if TYPE_CHECKING:
    from edgetune.tuning.tune import Tuning
    from edgetune_runtime.setups import Setup


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="Precision to tune; repeatable. [default: int8 and fp32, which answer by default]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Time for each question. Large backbones take longer.",
)
@click.option("--forget", is_flag=True, help="Take back what was chosen, and measure nothing.")
@json_option
def tune(bundle: Path, precisions: tuple[str, ...], seconds: float, forget: bool, as_json: bool) -> None:
    """Choose the fastest way to run BUNDLE's graphs on this CPU, by measuring.

    Equal ways to run a graph take turns: operators of attention and normalization, threads of a text that is alone,
    texts in one run if there are many. Answers stay what they were: a way whose answers to the check texts agree less
    with fp32 is never chosen, and neither is one whose gain is no larger than noise.

    What is chosen is kept in the cache folder, for this bundle, CPU, number of CPUs and version of onnxruntime. Engine,
    classify, score and serve use it. Their --threads wins.

    \b
    Example:
      edgetune tune bundle
    """
    from edgetune_runtime import tuned
    from edgetune_runtime.bundle import Bundle

    opened = Bundle(bundle)
    graphs = opened.manifest.graphs
    usual = [name for name in dict.fromkeys((opened.precision(None), "fp32")) if opened.has_graph(name)]
    chosen = [opened.precision(name) for name in dict.fromkeys(precisions)]
    if forget:
        forgotten = [name for name in chosen or graphs if tuned.forget(opened, name)]
        if as_json:
            print_json({"bundle": str(bundle), "forgotten": forgotten})
        else:
            note(f"{bundle}: forgot what was chosen for {', '.join(forgotten)}" if forgotten else _nothing(bundle))
        return
    tuned.check_kept(opened, usual[0])  # before any work is done
    from edgetune.bench.latency import machine
    from edgetune.tuning.tune import tune as measured
    from edgetune_runtime.cpus import available_threads

    found = [measured(opened, name, seconds=seconds, progress=note) for name in chosen or usual]
    for one in found:
        tuned.save(opened, one.precision, one.setup, [row.to_dict() for row in one.tried])
    if any(one.busy for one in found):
        note("warning: the machine is busy: equal runs took very different times; tune again when it is quiet")
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                **machine(available_threads()),
                "precisions": {one.precision: _told(one) for one in found},
            }
        )
        return
    for one in found:
        click.echo("\n".join(_table(one)))
    for one in found:
        click.echo(f"{one.precision}: {_in_words(one.setup)}")


def _nothing(bundle: Path) -> str:
    return f"{bundle}: nothing was chosen for this CPU, so nothing is forgotten"


def _told(tuning: Tuning) -> dict[str, object]:
    return {
        "setup": tuning.setup.to_dict(),
        "busy": tuning.busy,
        "tried": [row.to_dict() for row in tuning.tried],
    }


def _table(tuning: Tuning) -> list[str]:
    from edgetune.tables import aligned

    rows: list[list[str]] = []
    question = None
    for row in tuning.tried:
        if row.question != question:
            question = row.question
            rows.append([question, "", "", "", ""])
        figures = [f"{row.comparison.ms:.2f}", f"{row.comparison.ratio:.2f}×", f"{row.answers.agreement:.1%}"]
        rows.append([f"{'*' if row.chosen else ' '} {row.name}", row.why, *figures])
    return [*aligned([tuning.precision, "", "ms", "ratio", "same label"], rows, texts=2), ""]


def _in_words(setup: Setup) -> str:
    """A setup, for people."""
    said = []
    if setup.form.attention:
        said.append(f"attention as {setup.form.attention}")
    if setup.form.fuses_normalization:
        said.append("addition and normalization in one operator")
    said += [
        f"{number} thread{'s' if number > 1 else ''} for a text of up to {most} tokens"
        for most, number in setup.threads.items()
    ]
    if setup.rows > 1:
        said.append(f"up to {setup.rows} texts in a run")
    return ", ".join(said) or "as on any CPU: nothing else is faster here"
