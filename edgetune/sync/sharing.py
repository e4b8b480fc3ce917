"""Bundles shared on the Hugging Face hub: pushed there, and pulled from there."""

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
    """Publish a bundle on the hub, or only the tasks that changed if it is there already, in one commit.

    Its card gets a table of the tasks that the bundle has, unless somebody has edited the card.

    Args:
        bundle: the bundle's folder.
        name: the repository, as user/name or user/name@branch. It is made if it is not there.
        revision: the branch, which is made if it is not there; "main" otherwise.
        private: whether a repository that is made is private; `None` is what its owner has set.
        tasks: only these.
        precisions: only these; where none is named all that the bundle has, or no more than the hub has.
        delete: whether tasks that the bundle does not have are removed there.
        dry_run: whether nothing is to be changed.
        progress: told of long copies.

    Raises:
        BundleError: there is no bundle, or the hub cannot be reached or does not take it.
        TaskError: there is no task of a name in `tasks`.
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
    """Fetch a bundle from the hub into a folder, or only the tasks that changed if it is there already.

    Args:
        name: the repository, as user/name or user/name@revision.
        bundle: the folder; one of the repository's name in the working directory otherwise.
        revision: a branch, a tag or a commit; "main" otherwise.
        tasks: only these.
        precisions: only these; where none is named all that the hub has, or no more than the folder has.
        delete: whether tasks that the hub does not have are removed from the folder.
        dry_run: whether nothing is to be changed.
        progress: told of long copies.

    Raises:
        BundleError: there is no such bundle, or it cannot be fetched or written, or the folder has another one.
        TaskError: there is no task of a name in `tasks`.
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
