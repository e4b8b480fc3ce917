"""Bundles as others lay them out: files that are links."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def _linked(folder: Path) -> None:
    """Make what a folder holds links to `..data`, a link to the folder of the day."""
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
    """The whole bundle as Kubernetes mounts one whose items have paths: folders are links too."""
    _linked(bundle)
    return bundle


def hub_cache(bundle: Path) -> Path:
    """The bundle as the Hugging Face hub's client keeps it: every file a link to a blob."""
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
