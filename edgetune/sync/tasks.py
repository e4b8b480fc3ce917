"""Update the tasks at a destination, and then their index."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetune.sync.index import Entry, Index
from edgetune.sync.offer import Offer, entries, index_bytes
from edgetune.sync.places import Destination, Folder, Place
from edgetune_runtime import files
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.manifest import Manifest

_MOST_ROUNDS = 10


@dataclass
class Report:
    """The changes that a sync made, or would make.

    Attributes:
        copied: files of the bundle other than tasks.
        left_out: precisions that a new bundle lacks.
        added: tasks that the destination did not have.
        replaced: tasks that it had in another version.
        removed: tasks that it no longer has.
        unchanged: number of tasks that it already had.
        failed: task → why it was not changed.
        bytes: bytes read from the source if it is not a folder, otherwise bytes written to the destination; in a dry
            run, the size of the files that would be copied.
    """

    copied: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    bytes: int = 0


class Tasks:
    """The part of a sync that copies tasks.

    Args:
        offer: the contents of the source.
        names: copy only these tasks; if empty, all.
        delete: whether to remove tasks that the source does not have.
        dry_run: whether to change nothing.
        report: receives the changes.
    """

    def __init__(self, offer: Offer, names: list[str], delete: bool, dry_run: bool, report: Report) -> None:
        self._offer = offer
        self._names = names
        self._delete = delete
        self._dry_run = dry_run
        self._report = report

    def check_names(self, there: dict[str, Entry]) -> None:
        """Raise `TaskError` unless each name is a task of the source, or a task in `there` to remove."""
        have = self._offer.index.tasks.keys()
        unknown = set(self._names) - have - self._offer.unreadable.keys() - (there.keys() if self._delete else set())
        if unknown:
            raise TaskError(
                f"no task '{min(unknown)}' in {self._offer.source.name}: it has {', '.join(sorted(have)) or 'none'}"
            )

    def bring(self, to: Destination, manifest: Manifest, there: dict[str, Entry]) -> None:
        """Update the tasks that differ from those in `there`, and then the index."""
        offered = self._offer.index.tasks
        wanted = [name for name in self._names or sorted(offered) if name in offered]
        changed = [name for name in wanted if offered[name] != there.get(name)]
        unreadable = self._offer.unreadable
        self._report.failed |= {name: why for name, why in unreadable.items() if not self._names or name in self._names}
        gone = sorted(there.keys() - offered.keys() - unreadable.keys()) if self._delete else []
        gone = [name for name in gone if not self._names or name in self._names]
        self._report.unchanged = len(wanted) - len(changed)
        if self._dry_run:
            self._report.bytes += sum(offered[name].size for name in changed)
            self._report.added = [name for name in changed if name not in there]
            self._report.replaced = [name for name in changed if name in there]
            self._report.removed = gone
            return
        bundle = self._offer.index.bundle
        left = {name: entry for name, entry in there.items() if name not in gone}
        replacing = {name: offered[name] for name in changed if name in there}
        if replacing or gone:
            # Meanwhile readers accept the old or the new file. After a kill, the next sync checks these files again.
            to.write(files.INDEX, (Index(bundle, left, replacing).to_json(),))
        try:
            left |= self._put_all(to, manifest, changed, there)
            self._remove_all(to, gone)
        finally:
            if isinstance(to, Folder):
                _index_folder(to, bundle, None if changed or gone else there)
        if not isinstance(to, Folder) and _sound_index(to) != Index(bundle, left):
            to.write(files.INDEX, (Index(bundle, left).to_json(),))

    def _put_all(
        self, to: Destination, manifest: Manifest, names: list[str], there: dict[str, Entry]
    ) -> dict[str, Entry]:
        """Copy tasks. Failures are recorded, and the other tasks are still copied."""
        put = {}
        for name in names:
            try:
                data = self._offer.task(name, manifest)
            except TaskError as error:
                self._report.failed[name] = str(error)
                continue
            if data is None:  # the source no longer has it
                continue
            to.write(files.task_file(name), (data,))
            put[name] = Entry.of(data)
            (self._report.replaced if name in there else self._report.added).append(name)
        return put

    def _remove_all(self, to: Destination, names: list[str]) -> None:
        for name in names:
            to.remove(files.task_file(name))
            self._report.removed.append(name)


def entries_at(destination: Destination) -> dict[str, Entry]:
    """The tasks at a destination. In a folder the files count, whatever its index says."""
    return entries(destination, None if isinstance(destination, Folder) else _sound_index(destination))


def _sound_index(place: Place) -> Index | None:
    """A destination's index; `None` if it is not valid, so that it is rewritten."""
    data = index_bytes(place)
    try:
        return None if data is None else Index.from_json(data, place.name)
    except BundleError:
        return None


def _index_folder(folder: Folder, bundle: str, there: dict[str, Entry] | None) -> None:
    """Write the index until it matches the files, because another sync may be running at the same time.

    Every writer first changes tasks, then writes the index, and then checks the tasks.

    Args:
        folder: the folder.
        bundle: fingerprint of the tasks' bundle.
        there: the known tasks, if nothing has changed since they were read.
    """
    for _ in range(_MOST_ROUNDS):
        data = Index(bundle, entries(folder) if there is None else there).to_json()
        if _reads(folder, data):
            return
        folder.write(files.INDEX, (data,))
        there = None


def _reads(folder: Folder, data: bytes) -> bool:
    try:
        return folder.read(files.INDEX, len(data)) == data
    except (FileNotFoundError, BundleError):  # such as a link, which writing replaces
        return False
