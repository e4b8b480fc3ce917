"""The page for everyone: axe-core finds nothing wrong, and what appears is announced."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from accessibility import SCREENS, found_wrong, needs_axe
from browser import needs_browser, shown_on
from conftest import TEXTS
from kinds_served import NAMES, PAIRED, save_kinds
from page_in_browser import Page, a_browser, a_driver  # noqa: F401
from selenium.webdriver.common.keys import Keys
from serving import Serve, Server

pytestmark = [needs_browser, needs_axe]


@pytest.fixture(scope="module")
def kinds_server(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Iterator[Server]:
    with serve(save_kinds(bundle_folder, tmp_path_factory.mktemp("kinds") / "bundle")) as server:
        yield server


def ask(page: Page, *names: str) -> None:
    page.pick(*names)
    page.write(TEXTS[0])
    if set(names) & set(PAIRED):
        page.one("#text-pair").send_keys(TEXTS[4])
    page.classify()


@pytest.mark.parametrize("screen", SCREENS)
def test_answers_of_every_kind(browser: Page, kinds_server: Server, screen: str) -> None:
    with shown_on(browser.driver, *SCREENS[screen]):
        page = browser.open(kinds_server)
        assert found_wrong(page.driver) == [], "before anything is asked"
        for name in NAMES:
            ask(page, name)
            assert found_wrong(page.driver) == [], name
            page = browser.open(kinds_server)
        ask(page, *NAMES)
        assert found_wrong(page.driver) == [], "all at once"


@pytest.mark.parametrize("screen", SCREENS)
def test_while_answers_are_waited_for(browser: Page, kinds_server: Server, screen: str) -> None:
    with shown_on(browser.driver, *SCREENS[screen]):
        page = browser.open(kinds_server)
        ask(page, *NAMES)
        page.driver.execute_script(
            "const real = window.fetch;"
            "window.fetch = (path, ...more) => path === 'metrics' ? real(path, ...more) : new Promise(() => {});"
        )
        page.one("#ask button").click()
        page.wait(lambda: page.text("#said") == "Asking …")
        assert [card.get_attribute("aria-busy") for card in page.all("article")] == ["true"] * len(NAMES)
        page.wait(lambda: page.all("dd.old"))  # no text came since the last reading
        assert found_wrong(page.driver) == []


@pytest.mark.parametrize("screen", SCREENS)
def test_errors(browser: Page, server_bundle: Path, serve: Serve, screen: str) -> None:
    with shown_on(browser.driver, *SCREENS[screen]):
        with serve(server_bundle) as server:
            page = browser.open(server)
        page.write(TEXTS[0])
        page.one("#ask button").click()
        page.wait(lambda: page.texts("#answers .problem") and page.text("#problem"))
        assert found_wrong(page.driver) == []


@pytest.mark.parametrize("screen", SCREENS)
def test_a_key_is_asked_for(browser: Page, server_bundle: Path, serve: Serve, screen: str) -> None:
    with (
        shown_on(browser.driver, *SCREENS[screen]),
        serve(server_bundle, env={"EDGETUNE_API_KEY": "key"}) as server,
    ):
        page = browser.open(server)
        assert page.driver.execute_script("return document.activeElement.id") == "key"
        assert found_wrong(page.driver) == []


def test_what_is_announced(browser: Page, kinds_server: Server) -> None:
    page = browser.open(kinds_server)
    ask(page, "score", "single-label")
    said = page.one("#said")
    assert said.get_attribute("role") == "status"
    assert said.get_attribute("textContent").endswith(
        ", ".join(
            f"{name}: {page.text(f'article:nth-child({place}) .label')}"
            for place, name in enumerate(("score", "single-label"), 1)
        )
    )
    assert page.one("#problem").get_attribute("role") == "alert"


def test_an_example_is_asked_by_one_key(browser: Page, kinds_server: Server) -> None:
    page = browser.open(kinds_server)
    assert "press Classify" in page.text("#first")
    page.one("#example").send_keys(Keys.ENTER)
    page.wait(lambda: page.text("#said").startswith("1 of 1 answered in "))
    assert page.text("#picked") == f"1 of {len(NAMES)} picked", "the first task, since none was picked"
    page.pick("spans-pairs", "tokens")
    page.one("#example").click()
    page.wait(lambda: page.text("#said").startswith("2 of 2 answered in "))
    assert page.one("#text").get_property("value").endswith("?"), "a question"
    assert page.one("#text-pair").get_property("value")


def test_a_bundle_without_tasks_says_what_to_do(
    browser: Page, bundle_folder: Path, tmp_path: Path, serve: Serve
) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle", ignore=shutil.ignore_patterns("tasks"))
    with serve(folder) as server:
        browser.driver.get(server.url)
        browser.wait(lambda: "edgetune fit" in browser.text("#picked"))
        browser.one("#example").click()
        assert browser.text("#said") == "Pick a task."
        assert found_wrong(browser.driver) == []
