"""`edgetune classify`"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.options import FILE, engine_options, min_score_option, note, print_json

if TYPE_CHECKING:
    from edgetune_runtime.engine import Engine
    from edgetune_runtime.rows import Request


@click.command()
@click.argument("bundle", type=FILE)
@click.argument("source", default="-", metavar="[FILE|-]")
@click.option("--task", help="A task of the bundle, or a task file. Rows may name their own (`task`).")
@click.option(
    "--input",
    "kind",
    type=click.Choice(["auto", "text", "jsonl"]),
    default="auto",
    show_default=True,
    help="One text a line, or one JSON object a line.",
)
@min_score_option
@engine_options
def classify(
    bundle: Path,
    source: str,
    task: str | None,
    kind: str,
    min_score: float | None,
    precision: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Classify lines of text, or of JSON objects with `text` and, if wanted, `id` and `task`.

    Prints one JSON object a row, in the order of the rows: id, task, label, scores, status. The status is "ok",
    "truncated" (the text was longer than the task reads), "abstained" (no score reached --min-score: the label
    is null, also where the text was truncated) or "error" (with the reason; other rows go on).

    \b
    Example:
      echo "it broke again" | edgetune classify bundle --task sentiment --min-score 0.8
    """
    from edgetune_runtime.engine import Engine
    from edgetune_runtime.errors import DataError
    from edgetune_runtime.rows import read_requests

    as_json = None if kind == "auto" else kind == "jsonl"
    try:
        stream = sys.stdin.buffer if source == "-" else Path(source).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}): name a file, or - for stdin") from error
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with stream, Engine(bundle, precision, device, threads) as engine:
        default = None if task is None else engine.find_task(task).name
        for requests in read_requests(stream, as_json):
            for answer in _answers(engine, requests, default, min_score or 0.0):
                counts[answer["status"]] += 1
                print_json(answer)
            if sys.stderr.isatty() and not sys.stdout.isatty():
                click.echo(f"\r{counts.total():,} rows", nl=False, err=True)
    seconds = time.monotonic() - began
    if counts.total() > 1:
        summary = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
        note(f"\r{counts.total():,} rows in {seconds:.1f} s ({counts.total() / seconds:,.0f} rows/s): {summary}")


def _answers(engine: Engine, requests: list[Request], default: str | None, min_score: float) -> list[dict[str, Any]]:
    from edgetune_runtime.errors import TaskError

    problems: dict[int, str] = {}
    pairs: dict[int, tuple[str, str]] = {}
    for place, request in enumerate(requests):
        name = request.task or default
        if request.problem or request.text is None:
            problems[place] = request.problem or "no text"
        elif name is None:
            have = ", ".join(engine.task_names) or "none"
            problems[place] = f"the row names no task, and there is no --task: expected one of {have}"
        else:
            try:
                engine.task(name)
                pairs[place] = (request.text, name)
            except TaskError as error:
                problems[place] = str(error)
    results = dict(zip(pairs, engine.classify(list(pairs.values()), min_score=min_score), strict=True))
    answers: list[dict[str, Any]] = []
    for place, request in enumerate(requests):
        if place in problems:
            answers.append({"id": request.id, "status": "error", "error": problems[place]})
            continue
        result = results[place]
        answers.append(
            {
                "id": request.id,
                "task": result.task,
                "label": result.label,
                "scores": {label: round(score, 6) for label, score in result.scores.items()},
                "status": result.status,
            }
        )
    return answers
