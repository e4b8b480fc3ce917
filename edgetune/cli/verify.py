"""`edgetune verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import click

from edgetune.cli.flags import Command, in_flags
from edgetune.cli.options import BUNDLE, json_option, note, print_json


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@json_option
def verify(bundle: Path, as_json: bool) -> None:
    """Check a bundle that comes from elsewhere, before anything runs on it.

    Checks the manifest, the SHA-256 of every file, and every task. Tries the tokenizer and each graph in a process of
    its own, with limited memory and time. Prints a line for each of them: sound, a fault, or a note. If there is a
    fault, the exit status is 1.

    \b
    Example:
      edgetune verify bundle
    """
    from edgetune_runtime.verify import findings

    found = []
    for finding in findings(bundle):
        finding = replace(finding, message=in_flags(finding.message))
        found.append(finding)
        line = f"{finding.status:<6} {finding.subject}{': ' if finding.message else ''}{finding.message}"
        note(line) if as_json else click.echo(line)
    sound = all(finding.status != "fault" for finding in found)
    if as_json:
        print_json({"bundle": str(bundle), "sound": sound, "findings": list(map(asdict, found))})
    if not sound:
        sys.exit(1)
