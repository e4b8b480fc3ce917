"""The command line. Options are declared here; heavy modules are imported when a command runs."""

from __future__ import annotations

import io
import sys

import click

from edgetune.cli.bench import bench
from edgetune.cli.classify import classify
from edgetune.cli.demo import demo
from edgetune.cli.evaluate import evaluate
from edgetune.cli.export import export
from edgetune.cli.fit import fit
from edgetune.cli.group import Group
from edgetune.cli.rank import rank
from edgetune.cli.score import score
from edgetune.cli.serve import serve
from edgetune.cli.site import site
from edgetune.cli.sync import pull, push
from edgetune.cli.tasks import tasks
from edgetune.cli.train import train
from edgetune.cli.tune import tune
from edgetune.cli.verify import verify
from edgetune.stderr import is_terminal
from edgetune_runtime import cpus, privacy
from edgetune_runtime.errors import EdgetuneError

_VERSION_HELP = "Show the versions and what the CPU can do, and exit."


def _show_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from importlib.metadata import version

    from edgetune_runtime.session import cpu_name, has_int8_dot_product

    int8 = {True: "with", False: "without", None: "perhaps with"}[has_int8_dot_product()]
    click.echo(
        f"edgetune {version('edgetune')}\nonnxruntime {version('onnxruntime')}\n{cpu_name()}, {int8} int8 dot products"
    )
    context.exit()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help=_VERSION_HELP)
def cli() -> None:
    """Sort texts with many small tasks on one exported transformer, without PyTorch where they run.

    \b
    edgetune export MODEL bundle
    edgetune fit bundle --data tickets.csv --name tickets
    echo "where is my parcel?" | edgetune classify bundle --task tickets
    """


cli.add_section("Once per model", export)
cli.add_section("Make a task (no labelled text: tasks create; a few: fit; hundreds: train)", tasks, fit, train)
cli.add_section("Use tasks", classify, rank, score, serve, site)
cli.add_section("Measure and check", evaluate, bench, tune, verify)
cli.add_section("Share bundles", push, pull)
cli.add_section("See all of it", demo)


def _write_utf8() -> None:
    """Write UTF-8 to stdout and stderr regardless of the locale; lone surrogates are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def main() -> None:
    """Run the command line. An error that the user can act on is printed as one line, with exit status 1."""
    _write_utf8()
    cpus.limit_libraries()
    if not is_terminal():  # progress bars are for people
        privacy.turn_off(HF_HUB_DISABLE_PROGRESS_BARS="1")
    privacy.turn_off(HF_HUB_DISABLE_TELEMETRY="1", HF_UPDATE_DOWNLOAD_COUNTS="0")  # to hubs of models and data sets
    try:
        cli()
    except EdgetuneError as error:
        click.echo(f"edgetune: {error}", err=True)
        sys.exit(1)
