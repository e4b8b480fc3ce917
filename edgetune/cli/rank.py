"""`edgetune rank`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.flags import Command
from edgetune.cli.options import (
    BUNDLE,
    engine_options,
    input_option,
    max_characters_option,
    note,
    print_json,
    reading_options,
    shortest,
    text_column_option,
)

if TYPE_CHECKING:
    from edgetune.data.requests import Kind, Request
    from edgetune_runtime.engine import Engine, Result
    from edgetune_runtime.ranking import Ranker


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.argument("source", default="-", metavar="[FILE|-]")
@click.option("--task", required=True, help="A task of the bundle that takes pairs of texts, or its file.")
@click.option("--query", required=True, help="What texts should be relevant to: the first text of each pair.")
@click.option(
    "--label", help='Label that means "relevant". [default: the one of two that says yes, such as 1 and not 0]'
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Print the N most relevant texts. [default: all]")
@input_option
@text_column_option
@reading_options
@max_characters_option
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per text.")
def rank(
    bundle: Path,
    source: str,
    task: str,
    query: str,
    label: str | None,
    top: int | None,
    kind: Kind,
    text_column: str,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    max_characters: int,
    precision: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Put lines of text, or the rows of a file, in the order of their relevance to a query.

    A task that takes pairs answers about the query and each text. If it gives a number, that is the score. If it gives
    one label, the score is the probability of the label that means "relevant" (--label). Prints score and text, the
    most relevant first. --json adds the id (or the line) and the status: "ok", or "truncated" if a part of the text or
    the query was not read. 'classify' reads the same files.

    Rows that cannot be read are left out. stderr says how many, and why the first one. If no row can be read, the exit
    status is 1.

    \b
    Example:
      edgetune rank bundle --task relevance --query "where is my parcel?" answers.txt --top 3
      edgetune rank bundle --task same --label duplicate --query "it broke" tickets.csv --json
    """
    from edgetune.data.requests import read_requests, stream_requests
    from edgetune.data.text_files import Reading
    from edgetune_runtime.engine import Engine
    from edgetune_runtime.errors import DataError, in_one_line
    from edgetune_runtime.ranking import Ranker, best_first

    reading = Reading(encoding, delimiter, quotes)
    if source == "-":
        chunks = stream_requests(sys.stdin.buffer, kind, text_column, reading, note)
    else:
        chunks = read_requests(Path(source), kind, text_column, reading, note)
    rows: list[tuple[Request, Result]] = []
    problems: list[str] = []
    with Engine(bundle, precision, device, threads) as engine:
        ranker = Ranker(engine.find_task(task), label)
        ranker.check(query, [])
        for requests in chunks:
            for request, outcome in _outcomes(engine, ranker, query, requests, max_characters):
                if isinstance(outcome, str):
                    problems.append(f"line {request.line}: {outcome}")
                else:
                    rows.append((request, outcome))
    if problems and not rows:
        raise DataError(f"no text was ranked: all {len(problems):,} rows are errors; the first: {problems[0]}")
    if problems:
        number = len(problems) + len(rows)
        note(f"{len(problems):,} of {number:,} rows are errors, and are left out; the first: {problems[0]}")
    scores = [ranker.score(result) for _, result in rows]
    for place in best_first(scores)[:top]:
        request, result = rows[place]
        if as_json:
            shown = {"id": request.id, "score": shortest(scores[place]), "text": request.text, "status": result.status}
            print_json(shown)
        else:
            click.echo(f"{scores[place]:8.4f}  {in_one_line(request.text or '')}")


def _outcomes(
    engine: Engine, ranker: Ranker, query: str, requests: Sequence[Request], most_characters: int
) -> Iterator[tuple[Request, Result | str]]:
    """Each row with the task's answer about the query and its text, or with the error."""
    from edgetune_runtime.attempts import attempt

    pairs = [((query, request.text), ranker.task) for request in requests if request.text is not None]
    answers = iter(attempt(engine, pairs, most_characters=most_characters))
    for request in requests:
        outcome = (request.problem or "no text") if request.text is None else next(answers)
        yield request, str(outcome) if isinstance(outcome, Exception) else outcome
