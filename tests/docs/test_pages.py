"""Everything that users can use is documented: routes, metrics, environment variables. No page is long."""

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


MOST_WORDS = 1_200
"""Five minutes of reading. Code and numbers are not counted."""

OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


@pytest.mark.parametrize(
    "page",
    [*OTHERS, *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks/results").glob("*.md")],
    ids=lambda page: page.name,
)
def test_no_page_is_longer_than_one_reads_in_five_minutes(page: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    words = [word for word in prose.split() if re.search(r"[A-Za-z]", word)]
    assert len(words) <= MOST_WORDS, "split it, by who reads it"


def test_every_page_is_in_the_index() -> None:
    listed = re.findall(r"^(?!:)[\w./-]+$", PAGES["index.md"], re.MULTILINE)
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= set(listed)
