"""Make each malicious bundle, read it like an engine, and print one line of JSON per case.

The line says how the case was rejected, and which files outside the bundle were opened: `python -m hostile BUNDLE`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgetune_runtime import Bundle, files
from edgetune_runtime.devices import CPU
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.session import open_session
from edgetune_runtime.text import TextEncoder
from hostile import HOSTILE, Case

TEXTS = ["", "the lamp is broken", "größe 赤い 😀", "lamp " * 100]


def read_all(folder: Path) -> None:
    """Read everything in a bundle, as an engine does."""
    bundle = Bundle(folder)
    manifest = bundle.manifest
    for name in manifest.files:
        bundle.digest(name)
        bundle.read(name)
    encoder = TextEncoder(
        bundle.read(files.TOKENIZER), manifest.facts.max_positions, manifest.facts.mask_token, bundle.vocabulary_size()
    )
    bundle.task_names()
    encoder.encode(TEXTS, [bundle.load_task("colour")] * len(TEXTS))
    for precision in manifest.graphs:
        graph, weights = bundle.read_graph(precision)
        open_session(graph, CPU, 1, bundle.facts.inputs, weights)


def main(sound: Path) -> None:
    """Print the result of each case in `HOSTILE`."""
    inside: list[str] = []
    outside: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and inside and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(inside[0]) and path not in ("/proc/cpuinfo", "/proc/self/statm"):
                outside.append(path)

    read_all(sound)  # so that all modules are there
    sys.addaudithook(watch)
    for name, case in {"sound": Case(lambda _: None, ""), **HOSTILE}.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = shutil.copytree(sound, Path(scratch) / "bundle")
            case.change(folder)
            error = None
            outside.clear()
            inside.append(os.path.realpath(folder) + os.sep)
            try:
                read_all(folder)
            except BaseException as caught:  # noqa: BLE001 - a case that raises another is a finding
                error = caught
            inside.clear()
        refused = isinstance(error, EdgetuneError)
        told = f"{type(error).__name__}: {error}"
        print(json.dumps({"name": name, "refused": refused, "told": told, "outside": outside}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
