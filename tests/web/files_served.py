"""A file server, as users of the JavaScript package have one, and a browser on its page."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "web/node_modules"

needs_packages = pytest.mark.skipif(
    "CI" not in os.environ and not NODE_MODULES.exists(),
    reason="the JavaScript packages are not installed: npm ci in web",
)

FOLDERS_OF_PACKAGE = {"/web/": ROOT / "web", "/npm/": NODE_MODULES}
"""Path on the server → folder: what web/test/page.html needs."""

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


@dataclass
class FileServer:
    """Folders that are served.

    Attributes:
        url: where.
        asked: paths that were asked for, in order.
        sent: path → bytes of its body, as they were sent.
    """

    url: str
    asked: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)


@contextmanager
def serving_files(folders: Mapping[str, Path], headers: Mapping[str, str] | None = None) -> Iterator[FileServer]:
    """Serve folders, each below a path of its own, as long as the context lasts."""
    found = FileServer("")

    class Handler(SimpleHTTPRequestHandler):
        # HTTP/1.0: no connection outlives the server, so that a browser is offline behind it.
        extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

        def translate_path(self, path: str) -> str:
            path = path.partition("?")[0]
            found.asked.append(path)
            longest = max((one for one in folders if path.startswith(one)), key=len, default=None)
            if longest is None:
                return str(ROOT / "nothing")
            self.directory = str(folders[longest])
            return super().translate_path("/" + path.removeprefix(longest))

        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def copyfile(self, source: Any, outputfile: Any) -> None:
            data = source.read()
            found.sent[self.path.partition("?")[0]] = len(data)
            outputfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_in(driver: webdriver.Chrome, code: str, *values: object) -> Any:
    """What the body of an asynchronous function gives in the page; `values` are its `given`. Raises what it throws."""
    script = f"""
        const [given, done] = [[...arguments].slice(0, -1), arguments[arguments.length - 1]];
        (async () => {{ {code} }})().then(
          (value) => done(JSON.stringify({{ value: value === undefined ? null : value }})),
          (error) => done(JSON.stringify({{ error: `${{error.name}}: ${{error.message}}` }})),
        );"""
    told = json.loads(driver.execute_async_script(script, *values))
    if "error" in told:
        raise RuntimeError(told["error"])
    return told["value"]
