"""The rows that were answered wrongly, the most confident answers first."""

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
from edgetune_runtime.kinds.kind import Kind
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL

_MOST_ROWS = 200


class Wrong(NamedTuple):
    """A row that was answered wrongly.

    Attributes:
        row: the row.
        measure: by how much the answer is wrong; see `WrongAnswers`.
    """

    row: Row
    measure: float


class WrongAnswers(NamedTuple):
    """What a wrong answer of a kind is.

    Attributes:
        of: gives the measure by which wrong rows are sorted, largest first; 0 or less if the answer is right.
        column: what the measure is called in JSON; empty if the answer says it already.
        line: what right and answered is, as HTML.
    """

    of: Callable[[Row], float]
    column: str
    line: Callable[[Row], Markup]


def wrong_rows(evaluation: Evaluation) -> list[Wrong]:
    """The rows that were answered wrongly.

    Those with one label come by the score of the answer; those with any number of labels by the surest of the wrong
    decisions; numbers by their distance from the right one.
    """
    measure = WRONG[evaluation.task.kind_name].of
    found = [Wrong(row, measure(row)) for row in evaluation.rows]
    return sorted((one for one in found if one.measure > 0), key=lambda one: -one.measure)


def write_wrong_rows(path: Path, evaluation: Evaluation) -> int:
    """Write the wrong rows as JSONL, in the order of `wrong_rows`: what came, what is right, what was answered, where.

    Returns:
        The number of rows.

    Raises:
        EdgetuneError: the file cannot be written.
    """
    found = wrong_rows(evaluation)
    column = WRONG[evaluation.task.kind_name].column
    # A place may hold the name of a file that is no Unicode: JSON has an escape for each of its bytes.
    lines = (
        (json.dumps(_record(one, column), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        for one in found
    )
    files.write_chunks(path, lines)
    return len(found)


def _record(one: Wrong, column: str) -> dict[str, Any]:
    row = one.row
    text, *second = [row.text] if isinstance(row.text, str) else row.text
    return {
        "place": row.place,
        "text": text,
        **({"text_pair": second[0]} if second else {}),
        "right": list(row.target) if isinstance(row.target, tuple) else row.target,
        **row.result.fields(),
        **({column: one.measure} if column else {}),
        "status": row.result.status,
    }


def wrong(material: Material) -> Part:
    """The rows, the most confident answers first."""
    found, number = wrong_rows(material.evaluation), len(material.rows)
    kind = WRONG[material.evaluation.task.kind_name]
    if not found:
        return Part("Every row is answered rightly.", element("p", "There are none."))
    items = [row_item(one.row, kind.line(one.row)) for one in found]
    most = "" if len(found) <= _MOST_ROWS else f" The first {_MOST_ROWS} are here; evaluate --errors FILE writes all."
    told = element("p", f"The most confident answers come first.{most}", class_="caption")
    finding = f"{len(found):,} of {counted(number, 'row')} ({len(found) / number:.1%}) are answered wrongly."
    return Part(finding, element("div", told, listed(items, _MOST_ROWS)))


def far_off(material: Material) -> Part:
    """The rows whose numbers are furthest from the right ones."""
    found = wrong_rows(material.evaluation)
    if not found:
        return Part("Every number is exact.", element("p", "There are none."))
    line = WRONG[SCORE.name].line
    told = element("p", f"The furthest answers come first. The first {_MOST_ROWS} at most are here.", class_="caption")
    furthest = found[0]
    finding = f"The furthest answer is off by {furthest.measure:.3f}."
    items = [row_item(one.row, line(one.row)) for one in found[:_MOST_ROWS]]
    return Part(finding, element("div", told, listed(items, _MOST_ROWS)))


def _one_label(row: Row) -> float:
    return float(row.result.score) if row.result.best != row.target else 0.0


def _any_labels(row: Row) -> float:
    """The surest wrong decision: the score of a label that is not right, or what a missed one lacks to 1."""
    scores, right, given = row.result.scores, set(_labels(row)), set(row.result.labels)
    return max([0.0, *(scores[one] for one in given - right), *(1 - scores[one] for one in right - given)])


def _number(row: Row) -> float:
    return abs(float(row.result.score) - float(row.target))  # type: ignore[arg-type]


def _labels(row: Row) -> Sequence[str]:
    return row.target if isinstance(row.target, tuple) else ()


def _one_label_line(row: Row) -> Markup:
    result, right = row.result, str(row.target)
    note = ", abstained" if result.abstained else ""
    return answer_line(
        "right",
        [label(right, "right"), f" {result.scores[right]:.2f}"],
        "answered",
        [label(result.best, "wrong"), f" {result.score:.2f}{note}"],
    )


def _any_labels_line(row: Row) -> Markup:
    scores, right, given = row.result.scores, _labels(row), row.result.labels

    def named(labels: Sequence[str], others: Sequence[str], class_: str) -> Sequence[object]:
        if not labels:
            return ["none"]
        shown = [
            join([label(one, class_ if one not in others else None), f" {scores[one]:.2f}"])
            for one in sorted(labels, key=lambda one: -scores[one])
        ]
        return [part for one in shown for part in (", ", one)][1:]

    return answer_line("right", named(right, given, "right"), "answered", named(given, right, "wrong"))


def _number_line(row: Row) -> Markup:
    return answer_line(
        "right", [f"{row.target:g}"], "answered", [f"{row.result.score:.3f} (off by {_number(row):.3f})"]
    )


def _by_kind(*rows: tuple[Kind, WrongAnswers]) -> Mapping[str, WrongAnswers]:
    return {kind.name: one for kind, one in rows}


WRONG = _by_kind(
    (SINGLE_LABEL, WrongAnswers(_one_label, "", _one_label_line)),
    (MULTI_LABEL, WrongAnswers(_any_labels, "confidence", _any_labels_line)),
    (SCORE, WrongAnswers(_number, "difference", _number_line)),
)
"""Name of a kind → what a wrong answer of it is."""
