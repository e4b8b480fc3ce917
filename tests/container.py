"""Lint the files in deploy/, and run the steps of its Dockerfile without Docker: `make container`, as root on Linux.

Each stage is an overlay over this machine's file system (overlayfs) in a separate mount namespace, so everything that a
step writes stays in it. The base image's Python is this machine's. The last stage then runs like the image: as its
user, on a read-only root, with only a loopback network.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dockerfile
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
BUNDLE = "tests/conformance/bundle/encoder"
TASK = "head-cls"
BASE = "python:3.13-slim"
OF_KSERVE = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")
"""Fields of a KServe predictor; its others are those of a pod."""

ENTER = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount --rbind /proc "$1/root/proc"
exec chroot "$1/root" "$2" -c "$3"
"""
"""In a new mount namespace: mount a stage over this machine, and run Python in it."""

STEP = """
import os
os.chdir({workdir!r})
os.execvpe("/bin/sh", ["/bin/sh", "-c", {command!r}], {env!r})
"""

RUNNING = """
import ctypes, fcntl, json, os, signal, socket, struct, subprocess, time, urllib.request
libc = ctypes.CDLL(None, use_errno=True)
assert not libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None)
assert not libc.mount(None, b"/", None, 0x1 | 0x20, None), "remount"  # MS_RDONLY | MS_REMOUNT
with socket.socket() as one:  # the loopback device goes up
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
os.chdir({workdir!r})
os.environ.clear()
os.environ.update({env!r})
user, group = {user!r}
os.setgroups([])
os.setgid(group)
os.setuid(user)
for place in ("/", "/bundle", "/opt/edgetune", "/var/cache/edgetune"):
    try:
        open(place + "/written", "w")
    except OSError:
        continue
    raise SystemExit(place + " can be written to")
prepared = os.listdir("/var/cache/edgetune/graphs")
server = subprocess.Popen({entrypoint!r})
for _ in range(600):
    if not subprocess.run({health!r}, stderr=subprocess.DEVNULL).returncode:
        break
    if server.poll() is not None:
        raise SystemExit("the server ended")
    time.sleep(0.1)
else:
    raise SystemExit("the health check never passed")
with open(f"/proc/{{server.pid}}/maps") as maps:
    mapped = any(entry in line for line in maps for entry in prepared)
question = json.dumps({question!r}).encode()
asked = urllib.request.Request("http://127.0.0.1:8000/v1/classify", question, {{"content-type": "application/json"}})
answer = json.load(urllib.request.urlopen(asked))
server.send_signal(signal.SIGTERM)
ended = server.wait(30)
print(json.dumps({{"answer": answer["data"], "prepared": len(prepared), "mapped": mapped, "exit_status": ended}}))
"""


@dataclass
class Stage:
    """A stage of the Dockerfile: its folders, and the settings from its instructions."""

    folder: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    workdir: str = "/"
    user: str = "0:0"

    def __post_init__(self) -> None:
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        python = self.folder / "upper/usr/local/bin/python"
        python.parent.mkdir(parents=True)
        python.symlink_to("/usr/bin/python3")

    def run(self, code: str, *namespaces: str) -> str:
        """Run Python code in the stage. Returns its output."""
        command = ["unshare", "--mount", "--propagation", "private", *namespaces, "sh", "-c", ENTER, "enter"]
        return subprocess.run(
            [*command, str(self.folder), "/usr/bin/python3", code], check=True, text=True, stdout=subprocess.PIPE
        ).stdout


def follow(path: Path, given: dict[str, str], scratch: Path) -> tuple[Stage, dict[str, list[str]]]:
    """Run the steps of a Dockerfile.

    Args:
        path: the Dockerfile.
        given: its build arguments.
        scratch: a folder for the stages.

    Returns:
        The last stage, and the image's commands: `entrypoint` and `healthcheck`.
    """
    stages: dict[str, Stage] = {}
    stage, settings = Stage(scratch / "none"), {}
    arguments: dict[str, str] = {}
    for step in dockerfile.parse_file(str(path)):
        names = {**arguments, **stage.env}
        values = [string.Template(value).safe_substitute(names) for value in step.value]
        print(f"{step.cmd} {' '.join(values)}"[:120], file=sys.stderr)
        match step.cmd.upper():
            case "FROM":
                if values[0] != BASE:
                    raise SystemExit(f"the base image is {values[0]}: expected {BASE}")
                stage = Stage(scratch / str(len(stages)))
                stages[values[-1] if len(values) > 1 else ""] = stage
            case "ARG":
                name, _, default = values[0].partition("=")
                arguments[name] = given.get(name, default)
            case "ENV":
                stage.env |= dict(zip(values[::2], values[1::2], strict=True))
            case "WORKDIR":
                stage.workdir = values[0]
            case "COPY":
                source = next(
                    (stages[flag.partition("=")[2]] for flag in step.flags if flag.startswith("--from")), None
                )
                copy(source, values[:-1], stage, values[-1])
            case "RUN":
                stage.run(STEP.format(workdir=stage.workdir, command=values[0], env=own_settings() | stage.env))
            case "USER":
                stage.user = values[0]
            case "ENTRYPOINT" | "HEALTHCHECK":
                settings[step.cmd.lower()] = values[1:] if step.cmd.upper() == "HEALTHCHECK" else values
            case "EXPOSE":
                pass
            case other:
                raise SystemExit(f"{other} is not known here")
    return stage, settings


def own_settings() -> dict[str, str]:
    """This machine's settings for pip."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}


def copy(source: Stage | None, paths: list[str], stage: Stage, target: str) -> None:
    """COPY: from another stage or from the repository."""
    for path in paths:
        found = ROOT / path if source is None else source.folder / "upper" / path.lstrip("/")
        into = stage.folder / "upper" / os.path.normpath(os.path.join(stage.workdir, target)).lstrip("/")  # noqa: PTH118
        if found.is_dir():
            shutil.copytree(
                found, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, into)


def check(stage: Stage, settings: dict[str, list[str]]) -> dict[str, Any]:
    """Run the image: it must become healthy, answer and stop."""
    code = RUNNING.format(
        workdir=stage.workdir,
        env=stage.env,
        user=tuple(map(int, stage.user.split(":"))),
        entrypoint=settings["entrypoint"],
        health=settings["healthcheck"],
        question={"model": TASK, "input": "where is my parcel?"},
    )
    found: dict[str, Any] = json.loads(stage.run(code, "--net").splitlines()[-1])
    if found["exit_status"] or not found["mapped"] or found["answer"][0]["status"] != "ok":
        raise SystemExit(f"the image does not run as it should: {found}")
    return found


def lint() -> None:
    """Raise an error unless hadolint accepts the Dockerfile, and Kubernetes' schemas accept the manifests."""
    scripts = Path(sys.executable).parent
    subprocess.run([scripts / "hadolint", DEPLOY / "Dockerfile"], check=True)
    validate = [scripts / "kubernetes-validate", "--strict"]
    subprocess.run([*validate, DEPLOY / "kubernetes.yaml"], check=True)
    service = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())
    pod = {name: value for name, value in service["spec"]["predictor"].items() if name not in OF_KSERVE}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": pod}, file)
        file.flush()
        subprocess.run([*validate, file.name], check=True)


def main() -> None:
    """Raise an error if anything does not work."""
    lint()
    if not (sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare")):
        raise SystemExit("the steps are run by root on Linux, with unshare: what was linted is sound")
    with tempfile.TemporaryDirectory(prefix="edgetune-image-") as scratch:
        stage, settings = follow(DEPLOY / "Dockerfile", {"BUNDLE": BUNDLE}, Path(scratch))
        print(json.dumps(check(stage, settings)))
    print(f"the image of deploy/Dockerfile runs: {shlex.join(settings['entrypoint'])}")


if __name__ == "__main__":
    main()
