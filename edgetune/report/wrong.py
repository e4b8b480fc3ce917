"""The wrongly answered rows, with those first that are worth looking at first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgetune.evaluation import Evaluation, Row
from edgetune.report.markup import Markup, element, join, label, listed
from edgetune.report.rows import answer_line, row_item
from edgetune.report.section import Material, Part, counted
from edgetune_runtime import files
from edgetune_runtime.kinds import Answer, Entity
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS
from edgetune_runtime.task import Task

_MOST_ROWS = 200


class Wrong(NamedTuple):
    """A wrongly answered row.

    Attributes:
        row: the row.
        by: how wrong the answer is (`Kind.wrong_by`).
    """

    row: Row
    by: float


def wrong_rows(evaluation: Evaluation) -> list[Wrong]:
    """The wrongly answered rows, worst first.

    The worst rows are, for one label, the most confident answers; for any number of labels, those with the most
    confident wrong decision; and for numbers, those with the largest difference.
    """
    kind = evaluation.task.kind
    found = [Wrong(row, kind.wrong_by(row.result, row.target)) for row in evaluation.rows]
    return sorted((one for one in found if one.by > 0), key=lambda one: -one.by)


def write_wrong_rows(path: Path, evaluation: Evaluation) -> int:
    """Write the wrong rows as JSONL, in the order of `wrong_rows`: text, target, answer and place.

    Returns:
        The number of rows.

    Raises:
        EdgetuneError: the file cannot be written.
    """
    found = wrong_rows(evaluation)
    # A place may contain a file name that is not valid Unicode; JSON can escape each of its bytes.
    task = evaluation.task
    records = (_record(one, task) for one in found)
    lines = ((json.dumps(one, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace") for one in records)
    files.write_chunks(path, lines)
    return len(found)


def _record(one: Wrong, task: Task) -> dict[str, Any]:
    row = one.row
    text, *second = [row.text] if isinstance(row.text, str) else row.text
    return {
        "place": row.place,
        "text": text,
        **({"text_pair": second[0]} if second else {}),
        "right": task.kind.written(row.target),
        **row.result.fields(),
        "wrong_by": one.by,
        "status": row.result.status,
    }


def wrong(material: Material) -> Part:
    """The rows, worst first."""
    kind = material.evaluation.task.kind_name
    found, shown = wrong_rows(material.evaluation), SHOWN.get(kind, _PLAIN)
    if not found:
        return Part("Every row is answered rightly.", element("p", "There are none."))
    items = [row_item(one.row, shown.line(one.row)) for one in found[:_MOST_ROWS]]
    most = "" if len(found) <= _MOST_ROWS else f" The first {_MOST_ROWS} are here; evaluate --errors FILE writes all."
    told = element("p", f"{shown.order}{most}", class_="caption")
    return Part(shown.finding(found, len(material.rows)), element("div", told, listed(items, _MOST_ROWS)))


def _number_wrong(found: Sequence[Wrong], rows: int) -> str:
    return f"{len(found):,} of {counted(rows, 'row')} ({len(found) / rows:.1%}) are answered wrongly."


def _furthest(found: Sequence[Wrong], rows: int) -> str:
    return f"The furthest answer is off by {found[0].by:.3f}."


def _one_label(row: Row) -> Markup:
    result, right = row.result, str(row.target)
    note = ", abstained" if result.abstained else ""
    return answer_line(
        "right",
        [label(right, "right"), f" {result.scores[right]:.2f}"],
        "answered",
        [label(result.best, "wrong"), f" {result.score:.2f}{note}"],
    )


def _any_labels(row: Row) -> Markup:
    scores, right, given = row.result.scores, MULTI_LABEL.named(row.target), row.result.labels

    def named(labels: Sequence[str], others: Sequence[str], class_: str) -> Sequence[object]:
        if not labels:
            return ["none"]
        shown = [
            join([label(one, class_ if one not in others else None), f" {scores[one]:.2f}"])
            for one in sorted(labels, key=lambda one: -scores[one])
        ]
        return [part for one in shown for part in (", ", one)][1:]

    return answer_line("right", named(right, given, "right"), "answered", named(given, right, "wrong"))


def _number(row: Row) -> Markup:
    off = SCORE.wrong_by(row.result, row.target)
    return answer_line("right", [f"{row.target:g}"], "answered", [f"{row.result.score:.3f} (off by {off:.3f})"])


def _entities(row: Row) -> Markup:
    right = {one for one in row.target if isinstance(one, Entity)} if isinstance(row.target, tuple) else set()
    given = {Entity(one.start, one.end, one.label) for one in row.result.entities}
    own = row.text if isinstance(row.text, str) else row.text[0]

    def shown(found: set[Entity], others: set[Entity], class_: str) -> Sequence[object]:
        parts = [
            join([label(one.label, class_ if one not in others else None), f" {own[one.start : one.end]!r}"])
            for one in sorted(found)
        ]
        return [part for one in parts for part in (", ", one)][1:] or ["none"]

    return answer_line("right", shown(right, given, "right"), "answered", shown(given, right, "wrong"))


def _stretch(row: Row) -> Markup:
    right = [f"{one.text!r}" for one in row.target if isinstance(one, Answer)] if isinstance(row.target, tuple) else []
    best = row.result.best
    answered = "no answer" if best is None else repr(best.text)
    return answer_line("right", [" or ".join(dict.fromkeys(right)) or "no answer"], "answered", [answered])


def _any_answer(row: Row) -> Markup:
    return answer_line("right", [str(row.target)], "answered", [next(iter(row.result.fields().values()))])


class Shown(NamedTuple):
    """How to show the wrong answers of a kind.

    Attributes:
        finding: returns the most important finding, given the wrong rows and the number of all rows.
        order: describes the order of the rows.
        line: returns the right and the given answer as HTML.
    """

    finding: Callable[[Sequence[Wrong], int], str]
    order: str
    line: Callable[[Row], Markup]


_PLAIN = Shown(_number_wrong, "The most wrong answers come first.", _any_answer)

SHOWN: Mapping[str, Shown] = {
    SINGLE_LABEL.name: Shown(_number_wrong, "The most confident answers come first.", _one_label),
    MULTI_LABEL.name: Shown(_number_wrong, "The rows with the surest wrong decision come first.", _any_labels),
    TOKENS.name: Shown(_number_wrong, "The rows with the most wrong and missed entities come first.", _entities),
    SPANS.name: Shown(_number_wrong, "The most confident answers come first.", _stretch),
    SCORE.name: Shown(_furthest, "The furthest answers come first.", _number),
}
"""Name of a kind → how to show its wrong answers; other kinds are shown plainly."""
