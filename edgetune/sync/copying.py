"""Copy a bundle from one place to another, or only the changed tasks if it already exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgetune.sync.index import fingerprint
from edgetune.sync.offer import Offer, manifest_of
from edgetune.sync.places import Destination, Folder, Place
from edgetune.sync.staging import staged
from edgetune.sync.tasks import Report, Tasks, entries_at
from edgetune_runtime import files
from edgetune_runtime.errors import BundleError
from edgetune_runtime.manifest import Manifest

_BESIDE_GRAPHS = (files.CONFIG, files.TOKENIZER)


Progress = Callable[[str, int, int | None], None]
"""Called while a bundle's files are copied, with the path, the bytes copied, and the total bytes if known."""


def sync(
    source: Place,
    destination: Place,
    *,
    tasks: Sequence[str] = (),
    precisions: Sequence[str] = (),
    delete: bool = False,
    dry_run: bool = False,
    card: bytes | None = None,
    progress: Progress = lambda path, done, total: None,
) -> Report:
    """Make the bundle at `destination` the same as at `source`.

    If it does not exist, the whole bundle is copied; otherwise only the tasks that differ. Each task is copied
    atomically and checked: its SHA-256, its contents, and its backbone. If a task fails, the old one stays.

    Args:
        source: the place of the bundle.
        destination: the place to copy it to.
        tasks: copy only these tasks; by default all.
        precisions: copy only these precisions; by default all precisions of the source or, if the destination exists,
            those that it has.
        delete: whether to remove tasks that the source does not have.
        dry_run: whether to change nothing.
        card: the model card to write; by default the source's own.
        progress: receives the progress of long copies.

    Raises:
        BundleError: a place cannot be reached, read or written, or contains something else than this bundle.
        TaskError: a task in `tasks` does not exist.
    """
    if not isinstance(destination, Destination):
        raise BundleError(
            f"{destination.name} can only be read from: publish to the folder or bucket that is served there, by its "
            f"own path or URL"
        )
    names = sorted(set(map(files.check_task_name, tasks)))
    before = _moved(source, destination)
    offer = Offer(source, card)
    work = _Work(offer, destination, names, delete, dry_run, progress)
    with destination.transaction():
        here = manifest_of(destination)
        if here is None:
            work.make_bundle(precisions)
        else:
            work.update_bundle(here[0], precisions)
    if not dry_run:
        work.report.bytes = _moved(source, destination) - before
    return work.report


def _moved(source: Place, destination: Destination) -> int:
    return destination.bytes_written if isinstance(source, Folder) else source.bytes_read


class _Work:
    def __init__(
        self, offer: Offer, destination: Destination, names: list[str], delete: bool, dry_run: bool, progress: Progress
    ) -> None:
        self.report = Report()
        self._tasks = Tasks(offer, names, delete, dry_run, self.report)
        self._offer = offer
        self._destination = destination
        self._dry_run = dry_run
        self._progress = progress

    def make_bundle(self, precisions: Sequence[str]) -> None:
        """Copy the bundle to a place without one."""
        destination = self._destination
        if isinstance(destination, Folder):
            _check_free(destination)
        self._tasks.check_names({})
        manifest, data = self._offer.manifest()
        paths = self._paths(manifest, precisions)
        if self._dry_run:
            self._bring_card(destination)
            self._copy_all(destination, manifest, paths)
            self._tasks.bring(destination, manifest, {})
            self.report.bytes += len(data)
        elif isinstance(destination, Folder):
            digests = {path: digest for path, digest in manifest.files.items() if path != files.CARD}
            with staged(destination.path, digests) as staging:
                self._fill(staging, manifest, data, paths)
            destination.bytes_written += staging.bytes_written
        else:
            self._fill(destination, manifest, data, paths)
        self.report.copied.append(files.MANIFEST)

    def _fill(self, to: Destination, manifest: Manifest, data: bytes, paths: list[str]) -> None:
        """Write a whole bundle. The manifest, which marks it as complete, comes last."""
        kept = {path for path in paths if isinstance(to, Folder) and (to.path / path).exists()}
        self._bring_card(to)
        self._copy_all(to, manifest, [path for path in paths if path not in kept])
        self._tasks.bring(to, manifest, entries_at(to))
        to.write(files.MANIFEST, (data,))

    def _paths(self, manifest: Manifest, precisions: Sequence[str]) -> list[str]:
        """The files of the manifest to copy: only files that belong to a bundle, even if the manifest names others."""
        graphs = {precision: graph.paths for precision, graph in manifest.graphs.items()}
        known = {files.CARD, *_BESIDE_GRAPHS, *(path for paths in graphs.values() for path in paths)}
        if odd := sorted(manifest.files.keys() - known):
            raise BundleError(
                f"the manifest of {self._offer.source.name} names '{odd[0]}': expected no files but "
                f"{', '.join((files.CARD, *_BESIDE_GRAPHS))} and the graphs; export the bundle again"
            )
        copied = self._offer.precisions(manifest, precisions)
        if not copied:
            raise BundleError(f"{self._offer.source.name} has no graph of any precision: copy or export it again")
        self.report.left_out = [precision for precision in graphs if precision not in copied]
        beside = [path for path in _BESIDE_GRAPHS if path in manifest.files]
        return beside + [path for precision in copied for path in graphs[precision]]

    def _copy_all(self, to: Destination, manifest: Manifest, paths: list[str]) -> None:
        for path in paths:
            total = self._offer.size(path)
            if self._dry_run:
                self.report.bytes += total or 0
            else:
                to.write(path, self._told(path, total, self._offer.chunks(path, manifest.files.get(path, "none"))))
            self.report.copied.append(path)

    def _bring_card(self, to: Destination) -> None:
        """Copy the card if it differs. People may edit it, and no answer depends on it."""
        card = self._offer.card()
        if card is None:
            return
        try:
            same = to.read(files.CARD, len(card)) == card
        except (FileNotFoundError, BundleError):  # for example a link, which writing replaces
            same = False
        if same:
            return
        if self._dry_run:
            self.report.bytes += len(card)
        else:
            to.write(files.CARD, (card,))
        self.report.copied.append(files.CARD)

    def _told(self, path: str, total: int | None, chunks: Iterator[bytes]) -> Iterator[bytes]:
        done = 0
        for chunk in chunks:
            done += len(chunk)
            self._progress(path, done, total)
            yield chunk

    def update_bundle(self, here: Manifest, precisions: Sequence[str]) -> None:
        """Update the existing bundle."""
        if fingerprint(here) != self._offer.index.bundle:
            raise self._another(here)
        destination = self._destination
        there = entries_at(destination)
        self._tasks.check_names(there)
        if not self._dry_run:
            destination.sweep()
        # A missing precision was left out on purpose, unless the user names it.
        lacking = [precision for precision in precisions if not _has_graph(destination, here, precision)]
        if lacking:
            lacking = self._offer.precisions(here, lacking)
        self._copy_all(destination, here, [path for precision in lacking for path in here.graphs[precision].paths])
        self._bring_card(destination)
        self._tasks.bring(destination, here, there)

    def _another(self, here: Manifest) -> BundleError:
        there = self._offer.manifest()[0]
        both = (there.files.keys() | here.files.keys()) - {files.CARD}
        other = sorted(path for path in both if there.files.get(path) != here.files.get(path))
        return BundleError(
            f"{self._offer.source.name} is a bundle of {there.facts.name} ({there.facts.sha256[:12]}…), "
            f"{self._destination.name} one of {here.facts.name} ({here.facts.sha256[:12]}…), and they differ in "
            f"{', '.join(other) or 'their backbone'}: sync it into a new folder"
        )


def _check_free(folder: Folder) -> None:
    path = folder.path
    try:
        taken = path.exists() and any(path.iterdir())
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): name another folder") from error
    if taken:
        raise BundleError(f"{path} exists and is not a bundle (it has no {files.MANIFEST}): name a new or empty folder")


def _has_graph(place: Place, manifest: Manifest, precision: str) -> bool:
    if precision not in manifest.graphs:
        return False
    try:
        for path in manifest.graphs[precision].paths:
            place.size(path)
    except FileNotFoundError:
        return False
    return True
