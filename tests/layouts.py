"""Bundles in the layouts of other programs: files that are links."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def _linked(folder: Path) -> None:
    """Replace a folder's contents with links to `..data`, which is a link to a dated folder."""
    day = folder / "..2026_11_26_06_51_36.123"
    found = list(folder.iterdir())
    day.mkdir()
    (folder / "..data").symlink_to(day.name)
    for entry in found:
        entry.rename(day / entry.name)
        entry.symlink_to(f"..data/{entry.name}")


def config_map(bundle: Path) -> Path:
    """The tasks as Kubernetes mounts a ConfigMap."""
    _linked(bundle / "tasks")
    return bundle


def config_map_of_paths(bundle: Path) -> Path:
    """The whole bundle as a ConfigMap whose items have paths: folders are links too."""
    _linked(bundle)
    return bundle


def hub_cache(bundle: Path) -> Path:
    """The bundle in the Hugging Face hub's cache: every file is a link to a blob."""
    repository = bundle.parent / "models--me--mine"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "revision"
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
