"""Questions about contexts: their columns, and SQuAD's JSON, which has contexts in paragraphs.

https://rajpurkar.github.io/SQuAD-explorer/: `data[].paragraphs[]` has a `context` and `qas[]`, each with `id`,
`question`, `answers[]` (`text`, `answer_start` in characters) and, since version 2, `is_impossible`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

QUESTION_COLUMN, CONTEXT_COLUMN, ANSWERS_COLUMN, ID_COLUMN = "question", "context", "answers", "id"


def are_questions(columns: Collection[str]) -> bool:
    """Whether the columns are named like questions and contexts."""
    return CONTEXT_COLUMN in columns and (QUESTION_COLUMN in columns or ANSWERS_COLUMN in columns)


def is_squad(value: Any) -> bool:
    """Whether a JSON value has the layout of SQuAD's files."""
    data = value.get("data") if isinstance(value, Mapping) else None
    return isinstance(data, list) and any(isinstance(one, Mapping) and "paragraphs" in one for one in data)


def questions(value: Any) -> Iterator[dict[str, Any]]:
    """The rows of SQuAD's JSON, one per question, with the columns `id`, `question`, `context` and `answers`.

    Raises:
        ValueError: it has another layout, or an impossible question has answers.
    """
    for number, article in enumerate(_listed(value, "data", "the file"), 1):
        for place, paragraph in enumerate(_listed(article, "paragraphs", f"article {number}"), 1):
            where = f"article {number}, paragraph {place}"
            asked = _listed(paragraph, "qas", where)
            for question in asked:
                yield _row(question, paragraph, where)


def _row(question: Any, paragraph: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(question, Mapping):
        raise ValueError(f"{where} has {question!r:.40} among its questions: expected objects")
    row = {name: question[name] for name in (ID_COLUMN, QUESTION_COLUMN, ANSWERS_COLUMN) if name in question}
    if CONTEXT_COLUMN in paragraph:
        row[CONTEXT_COLUMN] = paragraph[CONTEXT_COLUMN]
    if question.get("is_impossible") is True:
        if question.get(ANSWERS_COLUMN):
            named = question.get(ID_COLUMN, question.get(QUESTION_COLUMN))
            raise ValueError(f"{where}: the question {named!r:.60} has answers and is marked as impossible")
        row[ANSWERS_COLUMN] = []
    return row


def _listed(value: Any, name: str, where: str) -> list[Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise ValueError(f"{where} has no list of '{name}': expected SQuAD's JSON, data[].paragraphs[].qas[]")
    return found
