"""`edgetune tasks sync`."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from edgetune.cli.flags import Command, in_flags
from edgetune.cli.options import json_option, note, note_unread_tasks, print_json
from edgetune_runtime.errors import needs

_EVERY_S = 5.0


@click.command(cls=Command)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be given again.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="Only this precision; may be given again. [default: all that SRC has, or no more than DST has]",
)
@click.option("--delete", is_flag=True, help="Remove tasks from DST that SRC does not have.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@json_option
def sync(
    source: str,
    destination: str,
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    delete: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy the bundle SRC to DST, or only the tasks that changed where DST has it already.

    Each is a folder or a URL: s3://, gs://, sftp:// and what else fsspec reaches, and http(s):// to copy from. All is
    checked against its SHA-256, and every task against its backbone, before it takes its place. Nothing is seen half
    written, and what a sync that was interrupted left is cleared or gone on with by the next. docs/fleet.md says more.

    \b
    Example:
      edgetune tasks sync bundle s3://models/support
      edgetune tasks sync https://models.example.org/support bundle --precision int8 --delete
    """
    from edgetune import sync as syncing
    from edgetune.sync.places import Folder
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.errors import TaskError

    with needs("sync"):
        here, there = syncing.open_place(source), syncing.open_place(destination)
    report = syncing.sync(
        here,
        there,
        tasks=tasks,
        precisions=precisions,
        delete=delete,
        dry_run=dry_run,
        progress=_Progress(),
    )
    report.failed = {name: in_flags(why) for name, why in report.failed.items()}
    if isinstance(here, Folder):
        note_unread_tasks(Bundle(here.path))
    if as_json:
        print_json({"source": here.name, "destination": there.name, "dry_run": dry_run, **asdict(report)})
    else:
        for done in ("copied", "added", "replaced", "removed"):
            for name in getattr(report, done):
                click.echo(f"{done:<9} {name}")
        for name in report.failed:
            click.echo(f"failed    {name}")
        would = "would be " if dry_run else ""
        click.echo(
            f"{len(report.added):,} added, {len(report.replaced):,} replaced, {len(report.removed):,} removed, "
            f"{report.unchanged:,} unchanged; {report.bytes:,} bytes {would}transferred"
        )
        if report.left_out:
            note(f"left out: {', '.join(report.left_out)}")
    if report.failed:
        first, *others = report.failed
        also = f" (and {len(others):,} more failed: {', '.join(others)})" if others else ""
        raise TaskError(report.failed[first] + also)


class _Progress:
    """Tells of copies that take long, a line every few seconds."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + _EVERY_S

    def __call__(self, path: str, done: int, total: int | None) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            note(f"{path}: {done / 1e6:,.1f}{f' of {total / 1e6:,.1f}' if total else ''} MB")
