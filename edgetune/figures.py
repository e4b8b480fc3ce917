"""Names of figures for people, and their meaning."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A figure for people.

    Attributes:
        name: its name within a sentence.
        meaning: its meaning, in one sentence.
    """

    name: str
    meaning: str


FIGURES: dict[str, Figure] = {
    "accuracy": Figure("accuracy", "Share of rows that were answered with the right label."),
    "macro_f1": Figure("macro-F1", "Mean of the labels' F1: a rare label counts as much as a common one."),
    "micro_f1": Figure("micro-F1", "F1 over all decisions: a common label counts more than a rare one."),
    "f1": Figure("F1", "Harmonic mean of precision and recall."),
    "ece": Figure("ECE", "How far scores are from the share of right answers; 0 is best."),
    "mean_average_precision": Figure(
        "mean average precision", "How well scores rank the rows that have a label above those that do not."
    ),
    "exact_match": Figure(
        "exact match", "Share of rows whose answer is exactly right: all right labels and no other, or a right answer."
    ),
    "answer_f1": Figure(
        "answer F1", "Mean over rows of the F1 of the words of answer and right answer, as SQuAD counts."
    ),
    "exact_match_if_answer": Figure("exact match if answer", "The same for questions that have an answer."),
    "answer_f1_if_answer": Figure("answer F1 if answer", "The same for questions that have an answer."),
    "exact_match_if_none": Figure("exact match if none", "Share of questions without an answer that are given none."),
    "entity_f1": Figure("entity F1", "Harmonic mean of the entities' precision and recall, as seqeval counts."),
    "entity_precision": Figure("entity precision", "Share of the entities answered whose ends and label are right."),
    "entity_recall": Figure("entity recall", "Share of the right entities that were found, with their ends and label."),
    "pearson": Figure("Pearson", "Correlation of answers and right numbers; 1 is best."),
    "spearman": Figure("Spearman", "Correlation of their ranks; 1 is best."),
    "mean_absolute_error": Figure("mean absolute error", "How far answers are from the right numbers, on average."),
}
"""Name of a figure in code and JSON → its description for people."""


def figure_name(figure: str) -> str:
    """The name of a figure for people: "macro_f1" is macro-F1, "mean_average_precision" is mean average precision."""
    known = FIGURES.get(figure)
    return known.name if known else figure.replace("_", " ")
