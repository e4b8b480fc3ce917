"""Run the wheel's engine on other machines and Python versions: `make arm64`, `make pythons`.

Debian unstable's Python runs with the wheels that such a machine would install; ARM64's in qemu's emulation of a
process (11 or later; Debian bookworm's 7.2 crashes). All is fetched into `.machines` once, by pip and by apt, from the
mirror that this machine uses; none of its own packages is touched. A Python that Debian unstable lacks is one that is
installed here. Not a pytest module.

    python tests/machines/run.py MACHINE,…
    python tests/machines/run.py headers        onnxruntime's for C++, and no more
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / ".machines"


@dataclass(frozen=True)
class Machine:
    """A machine to run on.

    Attributes:
        architecture: as Debian calls it.
        python: its version.
        cpu: what qemu emulates; `None`: this machine's own.
        installed: its Python is one of this machine, not Debian's.
    """

    architecture: str
    python: str
    cpu: str | None = None
    installed: bool = False

    @property
    def root(self) -> Path:
        """A folder like its `/`."""
        return WORK / f"{self.architecture}-{self.python}"

    @property
    def command(self) -> list[str]:
        """What runs its Python."""
        if self.installed:
            return [str(installed_python(self.python))]
        python = f"{self.root}/usr/bin/python{self.python}"
        if self.cpu is not None:
            return [f"{WORK}/qemu/usr/bin/qemu-aarch64", "-L", str(self.root), "-cpu", self.cpu, python]
        libraries = f"{self.root}/usr/lib/x86_64-linux-gnu"  # with the C library that it was made for
        return [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, python]


MACHINES = {
    "neoverse-n1": Machine("arm64", "3.13", "neoverse-n1"),
    "max": Machine("arm64", "3.13", "max"),
    "python3.12": Machine("amd64", "3.12", installed=True),
    "python3.13": Machine("amd64", "3.13"),
    "python3.14": Machine("amd64", "3.14"),
}
LARGEST = {"fp32": 1e-4, "int8": 0.25}
"""Precision → tolerance of logits compared with the stored ones. int8 rounds differently on other CPU families."""

WHEELS = {"arm64": "aarch64", "amd64": "x86_64"}
"""Architecture as Debian calls it → as names of wheels do."""

PYTHON = ("python{0}", "python{0}-minimal", "libpython{0}-minimal", "libpython{0}-stdlib")
LIBRARIES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3t64", "libsqlite3-0"),
    *("liblzma5", "libbz2-1.0", "libzstd1"),
)
SOURCES = """Types: deb
URIs: {mirror}
Suites: sid
Components: main
Architectures: amd64 arm64
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def run(*command: object, **named: Any) -> str:
    """Run a command to its end. Returns its output."""
    return subprocess.run(list(map(str, command)), check=True, text=True, stdout=subprocess.PIPE, **named).stdout


def fetch(packages: Iterable[str], into: Path) -> None:
    """Unpack packages of Debian unstable, as name:architecture, into a folder."""
    if (into / "whole").exists():
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SystemExit("this needs Debian's apt-get and dpkg-deb: run it on Debian or Ubuntu, on x86-64")
    apt, debs = WORK / "apt", WORK / f"{into.name}.debs"
    for folder in (apt / "lists/partial", apt / "cache/archives/partial", debs):
        folder.mkdir(parents=True, exist_ok=True)
    options = [f"-o{name}={value}" for name, value in _settings(apt).items()]
    run("apt-get", *options, "-qq", "update")
    run("apt-get", *options, "-qq", "download", *packages, cwd=debs)
    for deb in debs.glob("*.deb"):
        run("dpkg-deb", "-x", deb, into)
    (into / "whole").touch()


def _settings(apt: Path) -> dict[str, object]:
    """Of an apt of its own, that knows Debian unstable alone."""
    sources = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    mirror = next((source for source in sources if source.rstrip("/").endswith("/debian")), None)
    if mirror is None:
        raise SystemExit(f"no mirror of Debian is among this machine's sources: {', '.join(sources) or 'none'}")
    (apt / "sid.sources").write_text(SOURCES.format(mirror=mirror))
    (apt / "status").touch()
    return {
        "Dir::Etc::sourcelist": apt / "sid.sources",
        "Dir::Etc::sourceparts": "/nonexistent",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
    }


def installed_python(version: str) -> Path:
    """A Python of this version that runs here: on PATH, or one that pyenv or uv has installed."""
    name, home = f"python{version}", Path.home()
    found = [Path(path)] if (path := shutil.which(name)) else []
    pyenv, uv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv")), home / ".local/share/uv/python"
    found += sorted(pyenv.glob(f"versions/{version}.*/bin/{name}")) + sorted(uv.glob(f"cpython-{version}.*/bin/{name}"))
    for python in found:  # pyenv's on PATH may run nothing
        if subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            return python
    raise NotHere(
        f"Debian unstable has no {name}, and none is installed here: put it on PATH, or install it with pyenv"
    )


class NotHere(Exception):
    """What a machine needs is not installed."""


def fetch_machine(machine: Machine) -> None:
    """Python and what it needs, in the machine's root; for another CPU, qemu. Raises `NotHere`."""
    if machine.installed:
        installed_python(machine.python)
        return
    names = (*(name.format(machine.python) for name in PYTHON), *LIBRARIES)
    fetch([f"{name}:{machine.architecture}" for name in names], machine.root)
    if not (machine.root / "lib").exists():
        (machine.root / "lib").symlink_to("usr/lib")
    if machine.cpu is not None:
        fetch(["qemu-user:amd64"], WORK / "qemu")


def build_wheel() -> Path:
    """The wheel of this tree."""
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", WORK / "dist", ROOT)
    (wheel,) = (WORK / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, machine: Machine) -> Path:
    """The folder of the wheel and all that it needs, as the machine would install them."""
    site = WORK / f"{machine.root.name}.site"
    shutil.rmtree(site, ignore_errors=True)
    platforms = [
        f"--platform=manylinux{name}_{WHEELS[machine.architecture]}" for name in ("_2_28", "_2_27", "_2_17", "2014")
    ]
    tags = ["--only-binary=:all:", f"--python-version={machine.python}", *platforms]
    run(sys.executable, "-m", "pip", "install", "-q", "--target", site, *tags, "-c", ROOT / "constraints.txt", wheel)
    return site


def answers(machine: Machine, site: Path, *arguments: object) -> dict[str, Any]:
    """What `on_machine.py` finds there."""
    own = {"PYTHONPATH": str(site), "EDGETUNE_CACHE": ""}
    if not machine.installed:
        own["PYTHONHOME"] = f"{machine.root}/usr"
    command = [*machine.command, HERE / "on_machine.py", ROOT / "tests/conformance", *arguments]
    found: dict[str, Any] = json.loads(run(*command, env={**os.environ, **own}))
    return found


def main() -> None:
    """Raise an error unless every machine passes tests/conformance."""
    if sys.argv[1:] == ["headers"]:
        fetch(["libonnxruntime-dev:amd64"], WORK / "headers")
        return
    wheel = build_wheel()
    for name in sys.argv[1].split(","):
        machine = MACHINES[name]
        try:
            fetch_machine(machine)
            site = install(wheel, machine)
        except (subprocess.CalledProcessError, NotHere) as error:
            print(f"{name} is skipped: {error}", flush=True)
            continue
        found = answers(machine, site)
        print(json.dumps({"machine": name, **found}), flush=True)
        for precision, told in found["conformance"].items():
            wrong = told["other_tokens"] or told["clear_other_answer"] or not told["cases"]
            if wrong or told["largest_difference"] > LARGEST[precision]:
                raise SystemExit(f"{name} in {precision} does not answer as tests/conformance says: {told}")
        print(f"{wheel.name} answers as tests/conformance says on {name}", flush=True)


if __name__ == "__main__":
    main()
