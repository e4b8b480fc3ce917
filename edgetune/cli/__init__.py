"""The command line. Options are declared here; what is heavy is imported when a command runs."""

from __future__ import annotations

import sys

import click

from edgetune.cli.bench import bench
from edgetune.cli.classify import classify
from edgetune.cli.demo import demo
from edgetune.cli.evaluate import evaluate
from edgetune.cli.export import export
from edgetune.cli.score import score
from edgetune.cli.serve import serve
from edgetune.cli.tasks import tasks
from edgetune.cli.train import train
from edgetune.cli.verify import verify
from edgetune_runtime.errors import EdgetuneError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgetune")
def cli() -> None:
    """Train soft prompts on a frozen transformer, export it once, classify many tasks without PyTorch.

    \b
    edgetune train MODEL --data train.jsonl --task sentiment --out sentiment.safetensors
    edgetune export MODEL bundle --task sentiment.safetensors
    echo "it broke again" | edgetune classify bundle --task sentiment
    """


for command in (train, export, classify, score, serve, evaluate, bench, tasks, verify, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error that the user can act on is one line and exit status 1."""
    try:
        cli()
    except EdgetuneError as error:
        click.echo(f"edgetune: {error}", err=True)
        sys.exit(1)
