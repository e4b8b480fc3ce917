"""`edgetune tasks sync`, `push` and `pull`: the same copying, between different places."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetune.cli.flags import Command, in_flags
from edgetune.cli.options import CHANGED_BUNDLE, json_option, note, note_unread_tasks, print_json
from edgetune_runtime.errors import needs

if TYPE_CHECKING:
    from edgetune.sync import Report

Options = TypeVar("Options", bound=Callable[..., Any])

_EVERY_S = 5.0


def sync_options(command: Options) -> Options:
    """Options for what is copied and how it is reported."""
    options = [
        click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be given again."),
        click.option(
            "--precision",
            "precisions",
            multiple=True,
            metavar="NAME",
            help="Only this precision; may be given again. [default: all that the source has, or no more than the "
            "destination has]",
        ),
        click.option("--delete", is_flag=True, help="Remove tasks from the destination that the source does not have."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing."),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@sync_options
def sync(
    source: str,
    destination: str,
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    delete: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy the bundle SRC to DST, or only the changed tasks if DST already has it.

    Each is a folder or a URL: hf://user/name on the Hugging Face hub, s3://, gs://, sftp:// and others that fsspec
    reaches, and http(s):// to copy from. Every file is checked against its SHA-256, and every task against its
    backbone, before it replaces an old one. No file is visible half written. If a sync is interrupted, the next one
    continues or cleans up. docs/fleet.md says more.

    \b
    Example:
      edgetune tasks sync bundle s3://models/support
      edgetune tasks sync https://models.example.org/support bundle --precision int8 --delete
    """
    from edgetune import sync as syncing
    from edgetune.sync.places import Folder
    from edgetune_runtime.bundle import Bundle

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
    if isinstance(here, Folder):
        note_unread_tasks(Bundle(here.path))
    _tell(report, here.name, there.name, dry_run, as_json)


@click.command(cls=Command)
@click.argument("bundle", type=CHANGED_BUNDLE)
@click.argument("name", metavar="USER/NAME")
@click.option("--revision", metavar="BRANCH", help="The branch; it is made if it is not there. [default: main]")
@click.option(
    "--private/--public", default=None, help="Who may see a repository that is made. [default: as its owner has set it]"
)
@sync_options
def push(
    bundle: Path,
    name: str,
    revision: str | None,
    private: bool | None,
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    delete: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish BUNDLE on the Hugging Face hub, or only the changed tasks if USER/NAME already has it.

    It is one commit: nobody sees a part of it. The token is HF_TOKEN, or the one that 'hf auth login' has stored. The
    card (README.md) is published with a table of the tasks that the bundle has now, unless you have edited it.
    docs/sharing.md says more.

    \b
    Example:
      edgetune push bundle ada/support --private
      edgetune push bundle ada/support --task urgency --revision next
    """
    from edgetune import sync as syncing
    from edgetune_runtime.bundle import Bundle

    report = syncing.push(
        bundle,
        name,
        revision=revision,
        private=private,
        tasks=tasks,
        precisions=precisions,
        delete=delete,
        dry_run=dry_run,
        progress=_Progress(),
    )
    note_unread_tasks(Bundle(bundle))
    _tell(report, str(bundle), _hub_name(name, revision), dry_run, as_json)


@click.command(cls=Command)
@click.argument("name", metavar="USER/NAME")
@click.argument("bundle", type=CHANGED_BUNDLE, required=False)
@click.option("--revision", help="A branch, a tag or a commit. [default: main]")
@sync_options
def pull(
    name: str,
    bundle: Path | None,
    revision: str | None,
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    delete: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch a bundle from the Hugging Face hub to the folder BUNDLE, or only the changed tasks if it exists.

    Every file is checked against its SHA-256, and every task against its backbone, before it replaces an old one. The
    default of BUNDLE is a folder with the repository's name. Private repositories need HF_TOKEN, or 'hf auth login'.
    docs/sharing.md says more.

    \b
    Example:
      edgetune pull ada/support
      edgetune pull ada/support bundle --precision int8 --revision v2
    """
    from edgetune import sync as syncing
    from edgetune_runtime.hub import HubName

    report = syncing.pull(
        name,
        bundle,
        revision=revision,
        tasks=tasks,
        precisions=precisions,
        delete=delete,
        dry_run=dry_run,
        progress=_Progress(),
    )
    folder = HubName.parse(name).folder if bundle is None else bundle
    _tell(report, _hub_name(name, revision), str(folder), dry_run, as_json)


def _hub_name(name: str, revision: str | None) -> str:
    from edgetune_runtime.hub import HubName

    return str(HubName.parse(name, revision))


def _tell(report: Report, source: str, destination: str, dry_run: bool, as_json: bool) -> None:
    """Print the result of a sync.

    Raises:
        TaskError: a task failed.
    """
    from edgetune_runtime.errors import TaskError

    report.failed = {name: in_flags(why) for name, why in report.failed.items()}
    if as_json:
        print_json({"source": source, "destination": destination, "dry_run": dry_run, **asdict(report)})
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
    """Reports the progress of long copies, with a line every few seconds."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + _EVERY_S

    def __call__(self, path: str, done: int, total: int | None) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            note(f"{path}: {done / 1e6:,.1f}{f' of {total / 1e6:,.1f}' if total else ''} MB")
