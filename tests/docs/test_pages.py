"""Nothing that people can use is undocumented: routes, metrics, environment variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgetune.server.metrics import Metrics
from edgetune.server.openapi import document
from edgetune.server.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
SOURCES = [path for room in ("edgetune", "export", "runtime") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("route", document(Settings())["paths"])
def test_every_route(route: str) -> None:
    served = PAGES["http.md"]
    named = route.replace("{task}", "TASK").replace("{version}", "VERSION")
    assert named in re.findall(r"/[\w./]+", served)


def test_every_metric() -> None:
    families = re.findall(r"^# TYPE (\w+) ", Metrics(lambda: 0).exposition().decode(), re.MULTILINE)
    assert len(families) > 10
    assert [name for name in families if name not in PAGES["operating.md"]] == []


def test_every_variable_of_the_environment() -> None:
    read = {name for path in SOURCES for name in re.findall(r'"(EDGETUNE_[A-Z_]+)"', path.read_text(encoding="utf-8"))}
    assert {"EDGETUNE_CACHE", "EDGETUNE_API_KEY"} <= read
    assert {name for name in read if not any(name in page for page in PAGES.values())} == set()
