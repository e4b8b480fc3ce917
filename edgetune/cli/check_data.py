"""Read labelled texts for the tasks of a bundle."""

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
    """Labelled texts that a task can answer.

    Attributes:
        texts: texts or, for a task that takes pairs, pairs.
        targets: the target of each.
        places: the place of each in the data, for errors.
        ids: the id of each, if ids were asked for; otherwise `None`.
    """

    texts: Sequence[Text]
    targets: Sequence[Target]
    places: Sequence[str]
    ids: Sequence[object] = ()


def read_for(task: Task, name: str, columns: Columns, reading: Reading, note: Note) -> Checked:
    """Read labelled texts for a task; its kind defines the labels, and it may take pairs.

    Args:
        task: the task.
        name: see `read_labelled`.
        columns, reading, note: see `read_labelled`.

    Raises:
        DataError: they cannot be read, lack second texts for a task that takes pairs, or have labels that the task does
            not have.
    """
    from edgetune.data.labelled import read_labelled
    from edgetune.evaluation import check_labels
    from edgetune_runtime.errors import DataError

    # A task for single texts ignores second texts, unless the user names their column.
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
    """Read labelled texts for every task that they fit.

    They fit a task if it has all their labels and takes the same input, single texts or pairs. If they look like the
    kind of some of these tasks, they fit only these tasks. A task whose kind has no labels in its data fits only if
    they look like that kind.

    Raises:
        DataError: they do not fit any task.
    """
    from edgetune_runtime.errors import DataError

    reads: dict[str, Labelled] = {}
    problems: list[DataError] = []
    for kind in {task.kind_name: task.kind for task in tasks}.values():
        read = _read(name, columns, reading, _silent if reads else note, kind)
        if isinstance(read, DataError):  # maybe the labels are of another kind
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
    """Labelled texts, or the reason why they are not of this kind."""
    from edgetune.data.labelled import read_labelled
    from edgetune_runtime.errors import DataError

    try:
        return read_labelled(name, columns, reading, note, kind)
    except DataError as error:
        return error


def _labels(read: Labelled, task: Task) -> set[str]:
    """The labels in the data, as the task's kind reads them."""
    return {label for row in read.rows for label in task.kind.named(row.target)}


def _checked(read: Labelled, task: Task) -> Checked:
    """Data for a task, without second texts if the task does not read them."""
    return Checked(
        [row.given if task.pairs else row.text for row in read.rows],
        [row.target for row in read.rows],
        [row.place for row in read.rows],
        [row.id for row in read.rows],
    )


def _silent(message: str) -> None:
    """Ignore the message."""
