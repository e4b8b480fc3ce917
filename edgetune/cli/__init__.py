"""The command line. Options are declared here; what is heavy is imported when a command runs."""

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
from edgetune.cli.tasks import tasks
from edgetune.cli.train import train
from edgetune.cli.verify import verify
from edgetune_runtime import cpus, privacy
from edgetune_runtime.errors import EdgetuneError


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgetune")
def cli() -> None:
    """Train soft prompts on a frozen transformer, export it once, classify many tasks without PyTorch.

    \b
    edgetune train MODEL --data train.jsonl --name sentiment --out sentiment.safetensors
    edgetune export MODEL bundle --task sentiment.safetensors
    echo "it broke again" | edgetune classify bundle --task sentiment
    """


for command in (train, fit, export, classify, rank, score, serve, site, evaluate, bench, tasks, verify, demo):
    cli.add_command(command)


def _write_utf8() -> None:
    """Write UTF-8 to stdout and stderr whatever the locale says; half of a character, as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def main() -> None:
    """Run the command line; an error that the user can act on is one line and exit status 1."""
    _write_utf8()
    cpus.limit_libraries()
    privacy.turn_off(HF_HUB_DISABLE_TELEMETRY="1", HF_UPDATE_DOWNLOAD_COUNTS="0")  # models and data sets of a hub
    try:
        cli()
    except EdgetuneError as error:
        click.echo(f"edgetune: {error}", err=True)
        sys.exit(1)
