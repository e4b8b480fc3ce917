"""The script that takes pictures of the page runs, with a tiny model; docs/page.md shows its pictures."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from browser import needs_browser

DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES = 400_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("take_screenshots", DOCS / "take_screenshots.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@needs_browser
def test_it_takes_a_picture_of_every_kind(script: ModuleType, model_folder: Path, tmp_path: Path) -> None:
    script.take_all(tmp_path, {**script.SHOWN, **script.KINDS}, str(model_folder))
    assert {path.stem for path in tmp_path.iterdir()} == {*script.SHOWN, *script.KINDS}
    for name, shot in {**script.SHOWN, **script.KINDS}.items():
        picture = script.Image.open(io.BytesIO((tmp_path / f"{name}.png").read_bytes()))
        assert picture.width == script.SCREENS[shot.screen][1]
        assert picture.height > 500


def test_the_page_shows_those_that_are_taken(script: ModuleType) -> None:
    shown = re.findall(r"\]\((\S+)\.png\)", (DOCS / "page.md").read_text(encoding="utf-8"))
    assert shown == list(script.SHOWN)
    assert sum((DOCS / f"{name}.png").stat().st_size for name in shown) < MOST_BYTES
