"""`edgetune site`."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.cli.flags import Command
from edgetune.cli.options import FILE, json_option, note, print_json


@click.command(cls=Command)
@click.argument("bundle", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--node-modules",
    type=FILE,
    default=Path("node_modules"),
    show_default=True,
    help="Folder of npm packages, with onnxruntime-web and @huggingface/tokenizers.",
)
@click.option("--task", "tasks", multiple=True, help="Task of the site; repeatable. [default: all of the bundle]")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="Precision of the site; repeatable. With int8 and fp32, fp32 answers close calls again; it is downloaded at "
    "the first one. [default: int8 if the bundle has it]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing site.")
@json_option
def site(
    bundle: Path,
    out: Path,
    node_modules: Path,
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a static page to the folder OUT that classifies in the browser itself.

    Any file server can serve it. Texts never leave the browser; after the first load it works without a network.

    \b
    Example:
      npm install onnxruntime-web@1.30.0 @huggingface/tokenizers@0.2.0
      edgetune site bundle site && python -m http.server --directory site
    """
    from edgetune.site import build_site
    from edgetune_runtime.bundle import Bundle

    written = build_site(Bundle(bundle), out, node_modules, tasks, precisions, overwrite)
    if as_json:
        told = {"tasks": written.tasks, "precisions": written.precisions}
        print_json({"site": str(out), **told, "total_bytes": written.total_bytes, "first_bytes": written.first_bytes})
        return
    click.echo(
        f"{out}: {', '.join(written.tasks)} in {' and '.join(written.precisions)}; "
        f"{written.first_bytes / 1e6:.1f} MB before the first answer, {written.total_bytes / 1e6:.1f} MB in all"
    )
    note(f"serve it over https or on localhost: python -m http.server --directory {out}")
