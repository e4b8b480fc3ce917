"""How many CPUs this process may use, from its affinity and the quotas of its control groups.

A container that is limited to two CPUs still sees all CPUs of the machine. The kernel stops its threads once they have
used up their quota for a period, so more threads than the quota allows make answers slower.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_OCTAL = re.compile(r"\\([0-7]{3})")
_TOP = PurePosixPath("/")


@dataclass(frozen=True)
class _Mount:
    """The mount of a control group hierarchy.

    Attributes:
        version: 1 or 2.
        root: the group that appears at `point`.
        point: a path in the file system.
    """

    version: int
    root: PurePosixPath
    point: PurePosixPath


def available_threads(root: Path = Path("/")) -> int:
    """Number of CPUs that this process may use, at least 1. A quota of 1.5 counts as 2.

    Args:
        root: root of the file system that describes control groups.
    """
    quota = _quota(root)
    cpus = _cpus()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def limit_libraries(root: Path = Path("/")) -> None:
    """Set OpenMP's thread count from the quota, unless the user has set it. PyTorch, numpy and pyarrow use that count.

    Call it before they are imported.

    Args:
        root: root of the file system that describes control groups.
    """
    threads = available_threads(root)
    if threads < _cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _cpus() -> int:
    count = getattr(os, "process_cpu_count", None)  # Python 3.13: affinity, or the value of -X cpu_count
    if count is not None:
        return count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _quota(root: Path) -> float | None:
    """The smallest quota, in CPUs, of this process's control groups and all their parents."""
    mounts = list(_mounts(root))
    quotas = [
        _quota_of(root / folder.relative_to(_TOP), version)
        for version, group in _groups(root).items()
        for folder in _folders(group, [mount for mount in mounts if mount.version == version])
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> dict[int, PurePosixPath]:
    """Control group version → this process's group that can have a quota."""
    found: dict[int, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            found[2] = PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            found[1] = PurePosixPath(path)
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, described = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(described) < 3:
            continue
        group, point = (PurePosixPath(_OCTAL.sub(_character, field)) for field in fields[3:5])
        kind, _, options = described[:3]
        if not point.is_absolute():
            continue
        if kind == "cgroup2":
            yield _Mount(2, group, point)
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield _Mount(1, group, point)


def _character(octal: re.Match[str]) -> str:
    return chr(int(octal[1], 8))


def _folders(group: PurePosixPath, mounts: Sequence[_Mount]) -> Iterator[PurePosixPath]:
    """A group's folder and its parents, as far as they are mounted. A quota applies to all groups below it."""
    seen = [mount for mount in mounts if group.is_relative_to(mount.root) and ".." not in group.parts]
    for mount in seen:
        inside = group.relative_to(mount.root)
        for folder in (inside, *inside.parents):
            yield mount.point / folder
    if not seen:  # a container may see its group under the host's name; the group that it sees at the top is its own
        for mount in mounts:
            yield mount.point


def _quota_of(folder: Path, version: int) -> float | None:
    if version == 2:
        told = " ".join(_lines(folder / "cpu.max")).split()
    else:
        told = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, filter(None, told))
    except ValueError:  # "max", or the file does not exist
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return []
