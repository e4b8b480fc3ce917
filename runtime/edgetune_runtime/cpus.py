"""How many CPUs this process may use: its affinity, and the quotas of the control groups that it is in.

A container that is limited to two CPUs sees all of the machine's. The kernel stops its threads once they have had their
share of a period, so more threads than the quota allows make answers slower.
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
    """Where a hierarchy of control groups is mounted.

    Attributes:
        version: 1 or 2.
        root: the group that is seen at `point`.
        point: a path of the file system.
    """

    version: int
    root: PurePosixPath
    point: PurePosixPath


def available_threads(root: Path = Path("/")) -> int:
    """CPUs that this process may use, at least 1; a quota of one and a half counts as 2.

    Args:
        root: where the file system that tells of control groups begins.
    """
    quota = _quota(root)
    cpus = _cpus()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def limit_libraries(root: Path = Path("/")) -> None:
    """Tell OpenMP of a quota, unless the user has told it how many threads: PyTorch, numpy and pyarrow go by that.

    Call it before they are imported.

    Args:
        root: where the file system that tells of control groups begins.
    """
    threads = available_threads(root)
    if threads < _cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _cpus() -> int:
    count = getattr(os, "process_cpu_count", None)  # Python 3.13: affinity, or what -X cpu_count says
    if count is not None:
        return count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _quota(root: Path) -> float | None:
    """The smallest quota, in CPUs, of this process's control groups and all that they are in."""
    mounts = list(_mounts(root))
    quotas = [
        _quota_of(root / folder.relative_to(_TOP), version)
        for version, group in _groups(root).items()
        for folder in _folders(group, [mount for mount in mounts if mount.version == version])
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> dict[int, PurePosixPath]:
    """The version of control groups → the group of this process that can have a quota."""
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
    """A group's folder and all above it, as far as they are mounted: a quota holds for all that is below."""
    seen = [mount for mount in mounts if group.is_relative_to(mount.root) and ".." not in group.parts]
    for mount in seen:
        inside = group.relative_to(mount.root)
        for folder in (inside, *inside.parents):
            yield mount.point / folder
    if not seen:  # a container may be told of its group by a name of the host's: what it sees at the top is its own
        for mount in mounts:
            yield mount.point


def _quota_of(folder: Path, version: int) -> float | None:
    if version == 2:
        told = " ".join(_lines(folder / "cpu.max")).split()
    else:
        told = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, filter(None, told))
    except ValueError:  # "max", or there is no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return []
