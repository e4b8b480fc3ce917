"""Labelled texts as a task of a bundle reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.data.labelled import Columns, Labelled
    from edgetune.data.sources import Note
    from edgetune.data.text_files import Reading
    from edgetune_runtime.errors import DataError
    from edgetune_runtime.kinds import Kind, Target
    from edgetune_runtime.task import Task
    from edgetune_runtime.text import Text


@dataclass(frozen=True)
class Checked:
    """Labelled texts of which a task can answer each.

    Attributes:
        texts: texts or, for a task that takes pairs, pairs.
        targets: what is right for each.
        places: where each stands, for errors.
        ids: what each calls itself, if that was asked for; else `None`.
    """

    texts: Sequence[Text]
    targets: Sequence[Target]
    places: Sequence[str]
    ids: Sequence[object] = ()


def read_for(task: Task, name: str, columns: Columns, reading: Reading, note: Note) -> Checked:
    """Read labelled texts for a task: its kind says what a label is, and it may take pairs.

    Args:
        task: the task.
        name: as `read_labelled` takes it, like the rest.
        columns, reading, note: see there.

    Raises:
        DataError: they cannot be read, or have no second texts for a task that takes pairs, or labels that the task
            does not have.
    """
    from edgetune.data.labelled import read_labelled
    from edgetune.evaluation import check_labels
    from edgetune_runtime.errors import DataError

    # A task of single texts reads no second ones, unless the user names their column.
    columns = replace(columns, pairs=task.pairs or columns.text_pair is not None)
    read = read_labelled(name, columns, reading, note, task.kind)
    if task.pairs and not read.pairs:
        raise DataError(
            f"{name} has no column '{columns.pair}', and the task '{task.name}' takes pairs of texts: name the column "
            f"of the second texts with --text-pair-column"
        )
    check_labels(task, [row.target for row in read.rows], name)
    return _checked(read, task)


def read_fitting(
    tasks: Sequence[Task], name: str, columns: Columns, reading: Reading, note: Note
) -> dict[str, Checked]:
    """Read labelled texts for each task that they fit.

    They fit a task that has all their labels, and takes single texts or pairs, as they are. If they look like the kind
    of some of these tasks, they fit these alone; a task whose kind has no labels in its data is always one of these.

    Raises:
        DataError: they cannot be read for any task.
    """
    from edgetune_runtime.errors import DataError

    reads: dict[str, Labelled] = {}
    problems: list[DataError] = []
    for kind in {task.kind_name: task.kind for task in tasks}.values():
        read = _read(name, columns, reading, _silent if reads else note, kind)
        if isinstance(read, DataError):  # labels of another kind, perhaps
            problems.append(read)
        else:
            reads[kind.name] = read
    if problems and not reads:
        raise problems[0]
    seen = _read(name, columns, reading, _silent, None)
    found, alike = {}, set()
    for task in tasks:
        of_kind = reads.get(task.kind_name)
        if of_kind is None or of_kind.pairs != task.pairs:
            continue
        labels, looks = _labels(of_kind, task), not isinstance(seen, DataError) and seen.kind is task.kind
        if labels <= set(task.labels) if labels else looks:
            found[task.name] = _checked(of_kind, task)
            alike |= {task.name} if looks else set()
    return {name: one for name, one in found.items() if name in alike or not alike}


def _read(name: str, columns: Columns, reading: Reading, note: Note, kind: Kind | None) -> Labelled | DataError:
    """Labelled texts, or why they are none of this kind."""
    from edgetune.data.labelled import read_labelled
    from edgetune_runtime.errors import DataError

    try:
        return read_labelled(name, columns, reading, note, kind)
    except DataError as error:
        return error


def _labels(read: Labelled, task: Task) -> set[str]:
    """The labels that data names, as the task's kind sees them."""
    return {label for row in read.rows for label in task.kind.named(row.target)}


def _checked(read: Labelled, task: Task) -> Checked:
    """Data that was read for a task; second texts that it does not read are left out."""
    return Checked(
        [row.given if task.pairs else row.text for row in read.rows],
        [row.target for row in read.rows],
        [row.place for row in read.rows],
        [row.id for row in read.rows],
    )


def _silent(message: str) -> None:
    """Tell nobody."""
