"""CPUs: control group quotas on every level, in the file trees of Linux and of containers."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetune_runtime import cpus
from edgetune_runtime.cpus import available_threads


@dataclasses.dataclass
class Tree:
    """A file system as `available_threads` reads it.

    Attributes:
        groups: lines of /proc/self/cgroup.
        mounts: lines of /proc/self/mountinfo.
        quotas: path → contents of the file.
    """

    groups: tuple[str, ...]
    mounts: tuple[str, ...]
    quotas: dict[str, str]

    def write(self, root: Path) -> Path:
        told = {
            "proc/self/cgroup": "".join(f"{line}\n" for line in self.groups),
            "proc/self/mountinfo": "".join(f"{line}\n" for line in self.mounts),
        }
        for name, text in {**told, **self.quotas}.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return root


DISK = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
V2 = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "34 30 0:31 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory"
V1_CPUSET = "35 30 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
UNIFIED = "36 30 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
DOCKER_V1 = "33 30 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct"


def v1_quota(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


CPU = "/sys/fs/cgroup/cpu,cpuacct"
TREES = {
    "v2: half a CPU": (1, Tree(("0::/",), (DISK, V2), {"/sys/fs/cgroup/cpu.max": "50000 100000\n"})),
    "v2: one and a half": (2, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": "150000 100000\n"})),
    "v2: three, in another period": (3, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": "30000 10000\n"})),
    "v2: a tenth of a CPU": (1, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": "1000 10000\n"})),
    "v2: more than there are": (8, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": "6400000 100000\n"})),
    "v2: no quota": (8, Tree(("0::/a",), (V2,), {"/sys/fs/cgroup/a/cpu.max": "max 100000\n"})),
    "v2: the top group has no file": (8, Tree(("0::/a",), (V2,), {"/sys/fs/cgroup/a/memory.max": "max\n"})),
    "v2: a service": (
        2,
        Tree(
            ("0::/system.slice/x.service",), (V2,), {"/sys/fs/cgroup/system.slice/x.service/cpu.max": "200000 100000"}
        ),
    ),
    "v2: smaller above": (
        1,
        Tree(
            ("0::/pod/container/job",),
            (V2,),
            {
                "/sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
                "/sys/fs/cgroup/pod/container/cpu.max": "400000 100000\n",
                "/sys/fs/cgroup/pod/container/job/cpu.max": "max 100000\n",
            },
        ),
    ),
    "v2: another's quota is not ours": (
        8,
        Tree(("0::/mine",), (V2,), {"/sys/fs/cgroup/yours/cpu.max": "100000 100000\n"}),
    ),
    "v2: another's group, mounted beside": (
        8,
        Tree(
            ("0::/mine",),
            (V2, "37 22 0:26 /yours /mnt/yours rw - cgroup2 cgroup2 rw"),
            {"/mnt/yours/cpu.max": "100000 100000\n"},
        ),
    ),
    "v2: outside of its namespace": (
        2,
        Tree(("0::/../other",), (V2,), {"/sys/fs/cgroup/cpu.max": "200000 100000\n"}),
    ),
    "v2: mounted from above its namespace": (
        2,
        Tree(
            ("0::/",),
            ("30 22 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw",),
            {"/sys/fs/cgroup/cpu.max": "200000 100000\n"},
        ),
    ),
    "v2: mounted elsewhere, with a space": (
        1,
        Tree(
            ("0::/a b",),
            (r"30 22 0:26 / /mnt/control\040groups rw - cgroup2 none rw",),
            {"/mnt/control groups/a b/cpu.max": "100000 100000\n"},
        ),
    ),
    "v2: damaged": (8, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": "ten 100000\n"})),
    "v2: empty": (8, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": ""})),
    "v2: a period of nothing": (8, Tree(("0::/",), (V2,), {"/sys/fs/cgroup/cpu.max": "100000 0\n"})),
    "v1: half a CPU": (1, Tree(("4:cpu,cpuacct:/",), (V1,), v1_quota(CPU, "50000\n"))),
    "v1: no quota": (8, Tree(("4:cpu,cpuacct:/",), (V1,), v1_quota(CPU, "-1\n"))),
    "v1: smaller above": (
        2,
        Tree(
            ("5:memory:/", "4:cpu,cpuacct:/pod/job"),
            (V1_MEMORY, V1),
            {**v1_quota(f"{CPU}/pod", "200000\n"), **v1_quota(f"{CPU}/pod/job", "700000\n")},
        ),
    ),
    "v1: a container that sees the host's names": (
        3,
        Tree(("4:cpu,cpuacct:/docker/abc",), (DOCKER_V1,), v1_quota(CPU, "300000\n")),
    ),
    "v1: a group inside such a container": (
        1,
        Tree(("4:cpu,cpuacct:/docker/abc/job",), (DOCKER_V1,), v1_quota(f"{CPU}/job", "100000\n")),
    ),
    "v1: cpuset is not cpu": (
        8,
        Tree(("6:cpuset:/",), (V1_CPUSET,), v1_quota("/sys/fs/cgroup/cpuset", "100000\n")),
    ),
    "v1: no period": (8, Tree(("4:cpu,cpuacct:/",), (V1,), {f"{CPU}/cpu.cfs_quota_us": "100000\n"})),
    "hybrid: v1 has the quota": (
        2,
        Tree(("4:cpu,cpuacct:/job", "0::/job"), (V1, UNIFIED), v1_quota(f"{CPU}/job", "200000\n")),
    ),
    "hybrid: the smaller one counts": (
        1,
        Tree(
            ("4:cpu,cpuacct:/job", "0::/job"),
            (V1, UNIFIED),
            {**v1_quota(f"{CPU}/job", "200000\n"), "/sys/fs/cgroup/unified/job/cpu.max": "90000 100000\n"},
        ),
    ),
    "no control groups": (8, Tree((), (DISK,), {})),
    "lines of no sense": (8, Tree(("", "0", "0::job", "::"), ("", " - ", "1 2 3 4 5 - cgroup2", "a b c"), {})),
}


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_cpus", lambda: 8)


@pytest.mark.parametrize("case", TREES)
def test_a_quota_counts_as_cpus(case: str, tmp_path: Path) -> None:
    expected, tree = TREES[case]
    assert available_threads(tree.write(tmp_path)) == expected


@pytest.mark.parametrize(
    ("case", "own", "expected"),
    [("v2: half a CPU", None, "1"), ("v2: half a CPU", "5", "5"), ("v2: no quota", None, None)],
)
def test_openmp_is_told_of_a_quota_alone(
    case: str, own: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", own or "")
    if own is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    cpus.limit_libraries(TREES[case][1].write(tmp_path))
    assert os.environ.get("OMP_NUM_THREADS") == expected


def test_without_proc_there_is_no_quota(tmp_path: Path) -> None:
    assert available_threads(tmp_path) == 8


def test_what_cannot_be_read_is_no_quota(tmp_path: Path) -> None:
    _, tree = TREES["v2: half a CPU"]
    tree.write(tmp_path)
    (tmp_path / "sys/fs/cgroup/cpu.max").unlink()
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir()  # which root cannot read either
    assert available_threads(tmp_path) == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_affinity_of_the_process_counts() -> None:
    told = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from edgetune_runtime.cpus import available_threads; print(available_threads())"
    )
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "1\n"


def test_python_may_be_told_how_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From 3.13 on, `-X cpu_count` and the affinity are in `os.process_cpu_count`."""
    monkeypatch.undo()
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert available_threads(tmp_path) == 5
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    assert available_threads(tmp_path) == 1
