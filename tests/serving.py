"""A real `edgetune serve`, in a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

READY = re.compile(r"tasks on (http://\S+)")


@dataclass
class Server:
    """A running server: its address, its process, and its stderr."""

    url: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)  # type: ignore[arg-type]


Serve = Callable[..., AbstractContextManager[Server]]


@contextmanager
def run_server(bundle: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Serve a trusted bundle on a free port for the duration of the context."""
    command = [sys.executable, "-m", "edgetune", "serve", str(bundle), "--trust", "--port", "0", "--threads", "2"]
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            found = READY.search(line)
            if found:
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(said)}")
        rest = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)  # so that it never blocks
        rest.start()
        yield Server(found[1], process, said)
    finally:
        process.kill()
        process.wait()
