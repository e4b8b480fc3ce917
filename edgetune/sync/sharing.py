"""Push bundles to the Hugging Face hub, and pull them from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetune.sync.copying import Progress, sync
from edgetune.sync.hub import Hub
from edgetune.sync.places import Folder
from edgetune.sync.tasks import Report
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.card import fresh_card
from edgetune_runtime.hub import HubName


def push(
    bundle: str | Path,
    name: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    tasks: Sequence[str] = (),
    precisions: Sequence[str] = (),
    delete: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda path, done, total: None,
) -> Report:
    """Publish a bundle on the hub, or only the changed tasks if it already exists, in one commit.

    Its card gets a table of the bundle's tasks, unless somebody has edited the card.

    Args:
        bundle: the bundle's folder.
        name: the repository, as user/name or user/name@branch. It is created if it does not exist.
        revision: the branch, which is created if it does not exist; by default "main".
        private: whether a new repository is private; `None` uses its owner's setting.
        tasks: only these.
        precisions: publish only these precisions; by default all precisions of the bundle or, if the repository has the
            bundle, those that it has.
        delete: whether to remove tasks from the hub that the bundle does not have.
        dry_run: whether nothing is to be changed.
        progress: told of long copies.

    Raises:
        BundleError: the bundle does not exist, or the hub cannot be reached or rejects it.
        TaskError: a task in `tasks` does not exist.
        MissingPackageError: huggingface_hub is not installed.
    """
    named = HubName.parse(name, revision)
    return sync(
        Folder(Path(bundle)),
        Hub(named, private),
        tasks=tasks,
        precisions=precisions,
        delete=delete,
        dry_run=dry_run,
        card=fresh_card(Bundle(bundle), named),
        progress=progress,
    )


def pull(
    name: str,
    bundle: str | Path | None = None,
    *,
    revision: str | None = None,
    tasks: Sequence[str] = (),
    precisions: Sequence[str] = (),
    delete: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda path, done, total: None,
) -> Report:
    """Fetch a bundle from the hub into a folder, or only the changed tasks if it already exists.

    Args:
        name: the repository, as user/name or user/name@revision.
        bundle: the folder; by default a folder with the repository's name in the working directory.
        revision: a branch, a tag or a commit; by default "main".
        tasks: only these.
        precisions: fetch only these precisions; by default all precisions on the hub or, if the folder has the bundle,
            those that it has.
        delete: whether to remove tasks from the folder that the hub does not have.
        dry_run: whether nothing is to be changed.
        progress: told of long copies.

    Raises:
        BundleError: the bundle does not exist, cannot be fetched or written, or the folder contains another bundle.
        TaskError: a task in `tasks` does not exist.
        MissingPackageError: huggingface_hub is not installed.
    """
    named = HubName.parse(name, revision)
    return sync(
        Hub(named),
        Folder(named.folder if bundle is None else Path(bundle)),
        tasks=tasks,
        precisions=precisions,
        delete=delete,
        dry_run=dry_run,
        progress=progress,
    )
