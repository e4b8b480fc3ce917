"""`edgetune classify`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.flags import Command, in_flags
from edgetune.cli.options import (
    BUNDLE,
    engine_options,
    input_option,
    max_characters_option,
    min_score_option,
    note,
    print_json,
    reading_options,
    shortest,
    text_column_option,
    text_pair_column_option,
)

if TYPE_CHECKING:
    from edgetune.data.requests import Kind, Request
    from edgetune_runtime.engine import Engine, Result
    from edgetune_runtime.kinds import Kind as AnswerKind
    from edgetune_runtime.kinds.kind import Column
    from edgetune_runtime.task import Task
    from edgetune_runtime.text import Text


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.argument("source", default="-", metavar="[FILE|-]")
@click.option(
    "--task",
    help="A task of the bundle, or a task file. A row may name its own (`task`). [default: the bundle's only task]",
)
@input_option
@text_column_option
@text_pair_column_option
@reading_options
@max_characters_option
@min_score_option
@engine_options
def classify(
    bundle: Path,
    source: str,
    task: str | None,
    kind: Kind,
    text_column: str,
    text_pair_column: str | None,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    max_characters: int,
    min_score: float | None,
    precision: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Classify lines of text, or the rows of a file (JSONL, JSON, CSV, TSV, Parquet; .gz or .zst).

    A row has a column `text`, and may have `id` and `task`. For tasks that take pairs it also has `text_pair`, or
    `question` and `context`. Prints one JSON object per row, in their order, with id (or the line), task, answer and
    status. The answer depends on the kind of task:

    \b
    One label: label, scores.
    Any number of labels: labels, scores.
    A number: score.
    Entities: entities, each with label, start, end (in characters), text, score.
    An answer in a text: answer, start, end (null if none), score, no_answer.

    The status is "ok"; "truncated" if the text is longer than the task reads; "abstained" if no score reached
    --min-score, and then the label is null; or "error", with the line and the reason. The other rows go on. If every
    row failed, the exit status is 1.

    \b
    Example:
      echo "it broke again" | edgetune classify bundle --task sentiment --min-score 0.8
      edgetune classify bundle reviews.csv --task sentiment --text-column review
      echo '{"text": "it rains", "text_pair": "it is wet"}' | edgetune classify bundle --task entails
    """
    from edgetune.data.requests import read_requests, stream_requests
    from edgetune.data.text_files import TEXT_PAIR_COLUMN, Reading
    from edgetune.stderr import is_terminal
    from edgetune_runtime.checks import check_min_score
    from edgetune_runtime.engine import Engine
    from edgetune_runtime.errors import DataError

    reading = Reading(encoding, delimiter, quotes)
    pair_column = TEXT_PAIR_COLUMN if text_pair_column is None else text_pair_column
    if source == "-":
        chunks = stream_requests(sys.stdin.buffer, kind, text_column, reading, note, pair_column)
    else:
        chunks = read_requests(Path(source), kind, text_column, reading, note, pair_column)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with Engine(bundle, precision, device, threads) as engine:
        default = _default(engine, task)
        check_min_score(min_score or 0.0, [] if default is None else [default])
        if source == "-" and sys.stdin.isatty():
            note("type texts, one per line; Ctrl-D ends the input")
        for requests in chunks:
            readable = [row for row in requests if row.text is not None]
            if default is None and source != "-" and not counts and readable and not any(row.task for row in readable):
                rows = f"none of the first {len(requests):,} rows" if len(requests) > 1 else "no row"
                raise DataError(f"{rows} names a task: add --task; {bundle} has {_names(engine)}")
            for answer in _answers(engine, requests, default, min_score or 0.0, max_characters, pair_column):
                counts[answer["status"]] += 1
                print_json(answer)
            if is_terminal() and not sys.stdout.isatty():
                click.echo(f"\r{counts.total():,} rows", nl=False, err=True)
    seconds = time.monotonic() - began
    if counts.total() > 1:
        summary = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
        note(f"\r{counts.total():,} rows in {seconds:.1f} s ({counts.total() / seconds:,.0f} rows/s): {summary}")
    if counts.total() and counts["error"] == counts.total():
        raise DataError(f"no row was classified: all {counts.total():,} are errors; the rows say why")


def _default(engine: Engine, task: str | None) -> Task | None:
    """The task for rows that do not name one: the requested task, or the bundle's only task."""
    if task is not None:
        return engine.find_task(task)
    return engine.task(engine.task_names[0]) if len(engine.task_names) == 1 else None


def _names(engine: Engine) -> str:
    return ", ".join(engine.task_names) or "none"


def _answers(
    engine: Engine,
    requests: Sequence[Request],
    default: Task | None,
    min_score: float,
    most_characters: int,
    pair_column: str,
) -> list[dict[str, Any]]:
    from edgetune_runtime.attempts import attempt
    from edgetune_runtime.engine import Result
    from edgetune_runtime.errors import TaskError

    problems: dict[int, str] = {}
    rows: dict[int, tuple[Text, Task]] = {}
    for place, request in enumerate(requests):
        try:
            task = default if request.task is None else engine.task(request.task)
        except TaskError as error:
            problems[place] = str(error)
            continue
        if request.text is None:
            problems[place] = request.problem or "no text"
        elif task is None:
            problems[place] = f"the row names no task, and there is no --task: expected one of {_names(engine)}"
        elif (problem := _useless(min_score, task)) is not None:
            problems[place] = problem
        elif not task.pairs:
            rows[place] = request.text, task
        elif request.text_pair is None:
            problems[place] = request.pair_problem or (
                f"no '{pair_column}': task '{task.name}' takes pairs of texts, and expects the second there"
            )
        else:
            rows[place] = (request.text, request.text_pair), task
    results = dict(zip(rows, attempt(engine, list(rows.values()), min_score, most_characters), strict=True))
    answers = []
    for place, request in enumerate(requests):
        result = results.get(place)
        if isinstance(result, Result):
            answer = {"task": result.task, **_shown(rows[place][1].kind, result), "status": result.status}
        else:
            answer = {"line": request.line, "status": "error", "error": in_flags(problems.get(place) or str(result))}
        answers.append({"id": request.id, **answer})
    return answers


def _useless(min_score: float, task: Task) -> str | None:
    """Why a lowest score cannot be used with a row's task; `None` if it can."""
    from edgetune_runtime.checks import check_min_score
    from edgetune_runtime.errors import DataError

    try:
        check_min_score(min_score, [task])
    except DataError as error:
        return str(error)
    return None


def _shown(kind: AnswerKind, result: Result) -> dict[str, Any]:
    """A result's own fields as they are printed. A score is omitted if `scores` contains it."""
    scored = "numbers" in kind.columns.values()
    return {
        name: _PRINTED[kind.columns[name]](value)
        for name, value in kind.values(result).items()
        if not (scored and kind.columns[name] == "number")
    }


_PRINTED: Mapping[Column, Callable[[Any], Any]] = {
    "string": lambda text: text,
    "strings": lambda texts: texts,
    "integer": lambda number: number,
    "number": shortest,
    "numbers": lambda scores: {label: round(score, 6) for label, score in scores.items()},
    "entities": lambda found: [{**one, "score": round(one["score"], 6)} for one in found],
}
"""Type of an answer's field → how it is printed."""
