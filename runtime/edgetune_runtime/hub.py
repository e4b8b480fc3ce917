"""Bundles on the Hugging Face hub, by a name such as `hf://user/name` or `hf://user/name@v2`.

huggingface_hub does the transport with its own settings: `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.
It is imported when a name is opened; the rest of the runtime does not need it. A downloaded bundle is checked like
every other bundle.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgetune_runtime import files, privacy
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import BundleError, EdgetuneError, needs

SCHEME = "hf://"

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w./-]*))?", re.ASCII)
_BESIDE_GRAPHS = (files.MANIFEST, files.CARD, files.CONFIG, files.TOKENIZER)
_SERVER_FAILED = 500
_log = logging.getLogger("edgetune.hub")


@dataclass(frozen=True)
class HubName:
    """The name of a bundle on the hub.

    Attributes:
        repository: a model repository, as user/name.
        revision: a branch, a tag or a commit; `None` is the branch "main".
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @property
    def folder(self) -> Path:
        """The default target of a pull: a folder with the repository's name."""
        return Path(self.repository.partition("/")[2])

    @classmethod
    def parse(cls, text: str, revision: str | None = None) -> HubName:
        """Read a name, with or without `hf://`.

        Args:
            text: the name.
            revision: a revision that is given separately.

        Raises:
            BundleError: it is not such a name, or it contains another revision.
        """
        found = _NAME.fullmatch(text.removeprefix(SCHEME))
        if found is None:
            raise BundleError(
                f"{text!r} is not the name of a bundle on the hub: expected user/name or user/name@revision"
            )
        if revision is not None and found[2] not in (None, revision):
            raise BundleError(f"{text!r} names another revision than `revision` {revision!r}: give one of them")
        return cls(found[1], revision or found[2])


def is_name(text: object) -> bool:
    """Whether it is a name on the hub, and not a path."""
    return isinstance(text, str) and text.startswith(SCHEME)


def is_bundle_name(text: str) -> bool:
    """Whether it is the name of a bundle on the hub, and not that of a data set or a folder in a repository."""
    return is_name(text) and _NAME.fullmatch(text.removeprefix(SCHEME)) is not None


def local_folder(bundle: str | Path, precision: str | None = None) -> Path:
    """The folder of a bundle: the given folder or, for a name on the hub, the download's folder.

    Args:
        bundle: a folder, or a name that begins with `hf://`.
        precision: the only precision to fetch; `None` for all.

    Raises:
        BundleError: the bundle does not exist on the hub, or cannot be fetched.
        MissingPackageError: huggingface_hub is not installed.
    """
    return fetch(HubName.parse(bundle), precision) if isinstance(bundle, str) and is_name(bundle) else Path(bundle)


def fetch(name: HubName, precision: str | None = None) -> Path:
    """Fetch a complete bundle into the hub's cache. Files that already exist are not fetched again.

    If the hub cannot be reached, the result is the last download, and the log says so.

    Args:
        name: the bundle to fetch.
        precision: the only precision to fetch; `None` for all.

    Raises:
        BundleError: the bundle does not exist, or cannot be fetched.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub = library()
    with told(name):
        offline = hub.constants.HF_HUB_OFFLINE or not _reachable(hub, name)

        def snapshot(revision: str | None, *paths: str) -> Path:
            return Path(
                hub.snapshot_download(
                    name.repository, revision=revision, allow_patterns=list(paths), local_files_only=offline
                )
            )

        folder = snapshot(name.revision, files.MANIFEST)
        if not (folder / files.MANIFEST).is_file():
            raise BundleError(f"{name} is not a bundle (it has no {files.MANIFEST}): publish one with 'edgetune push'")
        graphs = Bundle(folder).manifest.graphs
        if precision is not None and precision in graphs:
            graphs = {precision: graphs[precision]}
        paths = [path for graph in graphs.values() for path in graph.paths]
        # By its commit, because the branch may have moved since.
        return snapshot(folder.name, *_BESIDE_GRAPHS, *paths, f"{files.TASKS}/*{files.TASK_SUFFIX}")


def _reachable(hub: ModuleType, name: HubName) -> bool:
    failed = hub.errors.HfHubHTTPError
    try:
        hub.HfApi().model_info(name.repository, revision=name.revision, expand=["sha"])
    except (failed.__bases__[0], ConnectionError) as error:  # the HTTPError of the httpx that it uses
        if isinstance(error, failed) and error.response.status_code < _SERVER_FAILED:
            raise
        _log.warning(f"the hub cannot be reached ({why(error)}): {name} is what was fetched before, if it was")
        return False
    return True


def library() -> ModuleType:
    """Import huggingface_hub.

    Raises:
        MissingPackageError: it is not installed.
    """
    privacy.turn_off(HF_HUB_DISABLE_TELEMETRY="1")
    with needs("hub"):
        import huggingface_hub.constants
        import huggingface_hub.errors
    return huggingface_hub


@contextmanager
def told(name: HubName) -> Iterator[None]:
    """Wrap calls to the hub: every error of huggingface_hub becomes a one-line `EdgetuneError`.

    Raises:
        BundleError: another error than an `EdgetuneError` was raised.
    """
    try:
        yield
    except EdgetuneError:
        raise
    except Exception as error:
        # Errors of HTTP, of the file system and of huggingface_hub, which have no common base class.
        raise BundleError(f"{name} cannot be fetched: {why(error)}") from error


def why(error: Exception) -> str:
    """What an error of huggingface_hub means, and what to do about it."""
    from huggingface_hub import errors

    sentences: tuple[tuple[str, str], ...] = (
        ("GatedRepoError", "its owner has to give access first: ask for it on its page, then set HF_TOKEN"),
        (
            "RepositoryNotFoundError",
            "there is no such repository, or it is private: check the name and, if it is private, set HF_TOKEN or run "
            "'hf auth login'",
        ),
        ("RevisionNotFoundError", "it has no such revision: expected one of its branches, tags or commits"),
        ("LocalTokenNotFoundError", "a token is needed: set HF_TOKEN or run 'hf auth login'"),
        ("OfflineModeIsEnabled", "HF_HUB_OFFLINE is set: unset it, or fetch this while it is not set"),
        (
            "LocalEntryNotFoundError",
            "it is not in the hub's cache as a whole, and the hub cannot be reached or HF_HUB_OFFLINE is set: run this "
            "again when it can be",
        ),
    )
    for kind, sentence in sentences:
        if isinstance(error, getattr(errors, kind, ())):
            return sentence
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"HTTP status {status}: the token may not do this; set HF_TOKEN to one that may"
    if status is not None:
        return f"HTTP status {status} ({getattr(error, 'server_message', None) or 'no reason given'}): run this again"
    return f"{getattr(error, 'strerror', None) or str(error) or type(error).__name__}: run this again"
