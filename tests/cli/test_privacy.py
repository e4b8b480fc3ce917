"""No process that this project starts, or that imports it, sends usage data: network and file access are traced."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import TEXTS
from serving import READY

from edgetune_runtime import privacy

traced = pytest.mark.skipif("CI" not in os.environ and shutil.which("strace") is None, reason="strace is not installed")

_ADDRESS = re.compile(
    r'sin6?_port=htons\((?P<port>\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")(?P<address>[^"]+)"', re.DOTALL
)
_KEPT = Path(".cache/edgetune")
_REPORTS_AFTER_S = 12
"""onnxruntime 1.32 looks up its maker's host nine seconds after it is imported."""


def environment(home: Path) -> dict[str, str]:
    """The environment of a user with an empty home, without CI variables, which would make libraries send nothing."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"HOME": str(home)}


@contextmanager
def trace(command: list[str], home: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command in an empty home, and record what it and its children send to whom."""
    calls = "connect,sendto,sendmsg,sendmmsg"
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "300", "-e", f"trace={calls}", "-e", "signal=none"]
    with subprocess.Popen(
        [*strace, "-o", str(log), *command],
        cwd=home,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()


def others(log: Path) -> set[tuple[str, int]]:
    """Addresses and ports outside this computer in a trace."""
    found = set()
    for match in _ADDRESS.finditer(log.read_text(encoding="utf-8", errors="replace")):
        address = ipaddress.ip_address(match["address"])
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_loopback and not address.is_unspecified:
            found.add((str(address), int(match["port"])))
    return found


def left(home: Path) -> set[Path]:
    """Files in a home, without prepared graphs."""
    names = {path.relative_to(home) for path in home.rglob("*") if not path.is_dir()}
    return {name for name in names if not name.is_relative_to(_KEPT)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


@traced
def test_a_trace_shows_who_is_asked(home: Path, tmp_path: Path) -> None:
    script = (
        "import socket, subprocess, sys\n"
        "socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 53))\n"  # a datagram socket: nothing is sent
        "socket.socket().connect_ex(('127.0.0.1', 9))\n"
        "socket.socket(socket.AF_INET6).connect_ex(('::1', 9))\n"
        "child = \"import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.2', 80))\"\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    with trace([sys.executable, "-c", script], home, tmp_path / "log") as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert others(tmp_path / "log") == {("192.0.2.1", 53), ("192.0.2.2", 80)}


@traced
@pytest.mark.parametrize("command", ["classify", "verify", "score --workers 2"])
def test_a_command_asks_nobody_and_leaves_nothing(
    command: str, bundle_folder: Path, rows: Path, home: Path, tmp_path: Path
) -> None:
    arguments = {
        "classify": ["classify", bundle_folder, rows, "--task", "colour"],
        "verify": ["verify", bundle_folder],  # its probes are separate processes
        "score --workers 2": [
            *["score", bundle_folder, rows, "--task", "colour", "--out", tmp_path / "out"],
            *["--workers", "2", "--shard-rows", "2"],
        ],
    }[command]
    with trace([sys.executable, "-m", "edgetune", *map(str, arguments)], home, tmp_path / "log") as process:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert others(tmp_path / "log") == set()
    assert left(home) == set()


@traced
def test_a_server_asks_nobody_and_leaves_nothing(bundle_folder: Path, home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgetune", "serve", str(bundle_folder), "--port", "0"]
    with trace(command, home, tmp_path / "log") as process:
        assert process.stderr is not None
        said = iter(process.stderr)
        url = next(found[1] for line in said if (found := READY.search(line)))
        began = time.monotonic()
        asked = {"model": "colour", "input": "good"}
        while time.monotonic() - began < _REPORTS_AFTER_S:
            assert httpx.post(f"{url}/v1/classify", json=asked).status_code == 200
            time.sleep(1)
        (server,) = psutil.Process(process.pid).children()
        server.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert others(tmp_path / "log") == set()
    assert left(home) == set()


@traced
def test_an_actor_of_ray_asks_nobody_and_leaves_nothing(
    bundle_folder: Path, rows: Path, home: Path, tmp_path: Path
) -> None:
    """Ray's own servers query the cloud's metadata address, which is link-local; nothing else is contacted."""
    arguments = ["score", bundle_folder, rows, "--task", "colour", "--out", tmp_path / "out", "--engine", "ray"]
    command = [sys.executable, "-m", "edgetune", *map(str, arguments), "--workers", "1"]
    with trace(command, home, tmp_path / "log") as process:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    own = {address.address for found in psutil.net_if_addrs().values() for address in found}
    asked = {(address, port) for address, port in others(tmp_path / "log") if address not in own}
    names = {one for one in asked if one[1] == 53}  # of the clouds; and Ray finds this computer's own address so
    assert asked - names <= {("169.254.169.254", 80)}
    told = (tmp_path / "log").read_text(encoding="utf-8", errors="replace").lower()
    assert "microsoft" not in told
    assert "usage-stats" not in told
    assert left(home) == {Path(".ray/auth_token")}  # Ray's own, for who comes to the cluster


@pytest.mark.parametrize(
    "imported",
    [
        "edgetune_runtime",
        "edgetune_runtime.probe",
        "edgetune",
        "edgetune.cli",
        "edgetune.scoring.plan",
        "edgetune.scoring.worker",
        "edgetune_export.quantize",
    ],
)
def test_whatever_is_imported_first_onnxruntime_is_told(imported: str, home: Path) -> None:
    script = f"import {imported}, onnxruntime"
    subprocess.run([sys.executable, "-c", script], cwd=home, env=environment(home), check=True, timeout=300)
    assert left(home) == set()


@pytest.mark.parametrize(("set_to", "stays"), [(None, "1"), ("", "1"), ("0", "0"), ("1", "1"), ("yes", "yes")])
def test_what_the_user_says_stays(set_to: str | None, stays: str, home: Path) -> None:
    variables = environment(home) | ({} if set_to is None else {"ORT_DISABLE_TELEMETRY": set_to})
    script = "import os, edgetune_runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    told = subprocess.run([sys.executable, "-c", script], env=variables, check=True, capture_output=True, text=True)
    assert told.stdout == f"{stays}\n"


@pytest.mark.parametrize(("set_to", "calls"), [(None, 1), ("0", 0)])
def test_an_onnxruntime_that_was_imported_before_is_told_too(set_to: str | None, calls: int, home: Path) -> None:
    variables = environment(home) | ({} if set_to is None else {"ORT_DISABLE_TELEMETRY": set_to})
    script = (
        "import onnxruntime\n"
        "calls = []\n"
        "onnxruntime.disable_telemetry_events = lambda: calls.append(1)\n"
        "from edgetune_runtime import Engine\n"
        "print(len(calls))\n"
    )
    told = subprocess.run([sys.executable, "-c", script], env=variables, check=True, capture_output=True, text=True)
    assert told.stdout == f"{calls}\n"


def test_a_hubs_libraries_are_told_by_the_command_line(home: Path) -> None:
    script = (
        "import sys; sys.argv = ['edgetune', '--version']\n"
        "from edgetune.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "from huggingface_hub import constants; from datasets import config\n"
        "print(constants.HF_HUB_DISABLE_TELEMETRY, config.HF_UPDATE_DOWNLOAD_COUNTS)\n"
    )
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, env=environment(home), check=True, capture_output=True, text=True)
    assert told.stdout.splitlines()[-1] == "True False"


def test_several_variables_are_set_and_none_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETUNE_TEST_A", "mine")
    monkeypatch.setenv("EDGETUNE_TEST_B", "")
    privacy.turn_off(EDGETUNE_TEST_A="1", EDGETUNE_TEST_B="0")
    assert (os.environ["EDGETUNE_TEST_A"], os.environ["EDGETUNE_TEST_B"]) == ("mine", "0")
