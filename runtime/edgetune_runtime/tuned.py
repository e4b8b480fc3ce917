"""The choice of `edgetune tune` for a bundle on this CPU. It is kept next to the prepared graphs.

A record belongs to the graphs of a precision, the version of onnxruntime, the CPU, and the number of CPUs that the
process may use. If one of them changes, the record is not found, and graphs are run as on any CPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetune_runtime import contract, files, prepared, session, strict
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.setups import DEFAULT, Setup

_FOLDER = "tuned"
_LIMIT_BYTES = 1_000_000
_log = logging.getLogger("edgetune.tuned")


def load(bundle: Bundle, precision: str) -> Setup:
    """How a precision is run here: as `edgetune tune` chose, or as on any CPU.

    A record that is damaged counts for nothing, and the logger `edgetune.tuned` says so.

    Raises:
        EdgetuneError: `EDGETUNE_CACHE` names the home of a user who has none.
    """
    path = _path(bundle, precision)
    if path is None:
        return DEFAULT
    try:
        with files.open_regular(path, _LIMIT_BYTES) as file:
            return Setup.from_dict(strict.json_value(file.read())["setup"])
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return DEFAULT
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s is damaged and not used (%s): run 'edgetune tune %s' again", path, error, bundle.path)
        return DEFAULT


def save(bundle: Bundle, precision: str, setup: Setup, measured: Sequence[Mapping[str, Any]]) -> None:
    """Keep a choice.

    Args:
        bundle, precision: what it is for.
        setup: what was chosen.
        measured: the figures that it was chosen by, for people who look into the file.

    Raises:
        EdgetuneError: nothing is kept here, or it cannot be written.
    """
    told = {"cpu": session.cpu_name(), "cpus": available_threads(), "setup": setup.to_dict(), "measured": [*measured]}
    files.write_atomic(_kept(bundle, precision), f"{json.dumps(told)}\n".encode())


def check_kept(bundle: Bundle, precision: str) -> None:
    """Raise `EdgetuneError` unless a choice can be kept."""
    path = _kept(bundle, precision)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise EdgetuneError(
            f"{path.parent} cannot be written ({error.strerror}), and what is chosen is kept there: let "
            f"{files.CACHE_VARIABLE} name a folder that can"
        ) from error


def forget(bundle: Bundle, precision: str) -> bool:
    """Take a choice back; tells whether there was one.

    Raises:
        EdgetuneError: nothing is kept here, or it cannot be removed.
    """
    path = _kept(bundle, precision)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise EdgetuneError(f"{path} cannot be removed ({error.strerror}): remove it by other means") from error
    return True


def _kept(bundle: Bundle, precision: str) -> Path:
    path = _path(bundle, precision)
    if path is None:
        raise EdgetuneError(
            f"there is no folder to keep what is chosen in: let {files.CACHE_VARIABLE} name one, or leave it unset"
        )
    return path


def _path(bundle: Bundle, precision: str) -> Path | None:
    folder = prepared.cache_folder()
    if folder is None:
        return None
    # By the manifest: a file that is not what the manifest says is refused when it is opened.
    graph = bundle.manifest.graphs[precision]
    names = {name for variant in (contract.BASE, *graph.variants) for name in graph.paths_of(variant)}
    digests = [bundle.manifest.files.get(name) for name in sorted(names)]
    key = repr((digests, session.preparation(), available_threads()))
    return folder.parent / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
