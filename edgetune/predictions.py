"""Answers to questions in the format of SQuAD's scripts: id of the question → its answer, empty for "no answer"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgetune.data.question_files import ID_COLUMN
from edgetune.evaluation import Evaluation
from edgetune_runtime import files
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import AnswerResult
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.task import Task


def check_answers_questions(task: Task) -> None:
    """Raise `DataError` unless a task answers questions."""
    if task.kind is not SPANS:
        raise DataError(
            f"SQuAD's predictions were asked of the task '{task.name}' of the kind '{task.kind.name}': expected a task "
            f"of the kind '{SPANS.name}'; 'edgetune classify' prints what any task answers"
        )


def write_predictions(path: Path, evaluation: Evaluation, ids: Sequence[object]) -> None:
    """Write the answers. Answers that are missing because of `min_score` or an error are empty.

    Args:
        path: the file.
        evaluation: the answers.
        ids: ids of the questions.

    Raises:
        DataError: a row has no id, or two rows have the same id.
        EdgetuneError: the file cannot be written.
    """
    found: dict[str, str] = {}
    places = evaluation.places or [f"row {number}" for number in range(len(ids))]
    for place, one, outcome in zip(places, ids, evaluation.outcomes, strict=True):
        if not isinstance(one, str | int) or isinstance(one, bool) or one == "":
            raise DataError(f"{place} has no '{ID_COLUMN}' that is a text or a number: predictions need one per row")
        if str(one) in found:
            raise DataError(f"{place} has the '{ID_COLUMN}' {one!r:.60}, as an earlier row: expected each once")
        answer = outcome.answer if isinstance(outcome, AnswerResult) else None
        found[str(one)] = "" if answer is None else answer.text
    files.write_atomic(path, (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())
