"""The page for people, in a real browser."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import needs_browser, shown_on
from conftest import TEXTS, random_task
from page_in_browser import Page, a_browser, a_driver  # noqa: F401
from selenium.webdriver.common.keys import Keys
from serving import Serve, Server

from edgetune_runtime import Bundle, Engine
from edgetune_runtime.kinds import LabelResult

HOSTILE = '<img src="/nothing" onerror="document.title = 1">'

pytestmark = needs_browser


@pytest.fixture
def page(browser: Page, server: Server) -> Page:
    """The page of the shared server."""
    return browser.open(server)


@pytest.fixture(scope="module")
def many(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Iterator[Server]:
    """A server with 16 tasks: one has labels that contain HTML, and one has more labels than are shown."""
    folder = shutil.copytree(bundle_folder, tmp_path_factory.mktemp("many") / "bundle")
    bundle = Bundle(folder)
    hostile = random_task(bundle, "hostile", prefix=3, labels=2)
    bundle.add_task(dataclasses.replace(hostile, labels=(HOSTILE, "x" * 300)))
    bundle.add_task(random_task(bundle, "wide", prefix=3, labels=11))
    for number in range(12):
        bundle.add_task(random_task(bundle, f"topic{number}", prefix=3, seed=number))
    with serve(folder) as server:
        yield server


def expected(bundle: Path, text: str, *tasks: str) -> dict[str, dict[str, str]]:
    with Engine(bundle, threads=2) as engine:
        results = engine.classify([text] * len(tasks), tasks=tasks)
    return {
        result.task: {
            label: f"{score:.3f}" for label, score in sorted(result.scores.items(), key=lambda pair: -pair[1])
        }
        for result in results
        if isinstance(result, LabelResult)
    }


def test_tasks_are_listed(page: Page) -> None:
    assert page.texts("#tasks label") == ["colourone label (of 3)", "sizeone label (of 2)"]
    assert page.text("#picked") == "2 of 2 picked"
    assert not page.one("#filter").is_displayed()
    assert not page.one("#key").is_displayed()
    assert not page.one("#text-pair").is_displayed()


@pytest.mark.parametrize("tasks", [("colour",), ("colour", "size")])
def test_answers_are_those_of_the_engine(page: Page, server_bundle: Path, tasks: tuple[str, ...]) -> None:
    page.pick(*tasks)
    page.write(TEXTS[0])
    page.classify()
    answers, right = page.answers(), expected(server_bundle, TEXTS[0], *tasks)
    assert answers == right
    assert [list(scores) for scores in answers.values()] == [list(scores) for scores in right.values()]
    assert page.texts("#answers .label") == [next(iter(scores)) for scores in right.values()]
    (said,) = page.texts("#said")
    told = f"{len(tasks)} of {len(tasks)} answered in # ms; server: queue # ms, run # ms. colour: "
    assert re.sub(r"[\d.]+\sms", "# ms", said).startswith(told)


def test_all_tasks_are_asked_at_once(page: Page, server: Server) -> None:
    page.pick("colour", "size")
    page.write("good")
    page.asked_for()
    page.classify()
    assert list(page.answers()) == ["colour", "size"]
    assert page.asked_for().count(f"{server.url}/v1/classify") == 1


def test_bars_are_as_long_as_their_scores(page: Page) -> None:
    page.pick("colour")
    page.write(TEXTS[1])
    page.classify()
    measure = """return [...document.querySelectorAll(".bar")].map((bar) =>
        parseFloat(getComputedStyle(bar, "::before").width) / bar.clientWidth)"""
    scores = [float(score) for score in page.answers()["colour"].values()]
    assert page.driver.execute_script(measure) == pytest.approx(scores, abs=0.005)


def test_by_keyboard_alone(page: Page) -> None:
    page.one("#text").send_keys(TEXTS[2], Keys.TAB, Keys.SPACE, Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: " answered in " in page.text("#said"))
    assert list(page.answers()) == ["size"]  # Space took the first task away


def test_a_text_and_a_task_are_needed(page: Page) -> None:
    page.one("#ask button").click()
    assert page.driver.execute_script("return document.activeElement.id") == "text"
    page.write("good")
    page.pick()
    page.one("#ask button").click()
    assert page.text("#said") == "Pick a task."
    assert page.answers() == {}


def test_a_truncated_text_is_said_to_be(page: Page) -> None:
    page.pick("size")
    page.write("good " * 300)
    page.classify()
    assert "truncated" in page.text("#answers")


def test_an_error_of_the_server_is_shown(page: Page) -> None:
    page.driver.execute_script("document.getElementById('text').value = 'x'.repeat(20001)")
    page.classify()
    assert page.texts("#answers .problem") == ["a text has 20001 characters: expected at most 20000; cut it"] * 2
    assert page.text("#said").startswith("0 of 2 answered")


def test_figures_move(page: Page) -> None:
    page.wait(lambda: page.text("#waiting") == "0")
    before = int(page.text("#requests"))
    page.write("good")
    page.classify()
    page.wait(lambda: int(page.text("#requests")) >= before + 1)
    page.wait(lambda: all(page.text(f"#{part}").endswith(" ms") for part in ("queue", "tokenizing", "inference")))
    assert "200: " in page.text("#statuses")

    def rate() -> float:
        page.classify()
        return float(page.text("#rate"))

    page.wait(lambda: rate() > 0)
    page.wait(lambda: page.text("#rate") == "0.0")


def test_labels_are_text(browser: Page, many: Server) -> None:
    page = browser.open(many)
    page.pick("hostile")
    page.write("good")
    page.classify()
    assert HOSTILE in page.answers()["hostile"]
    assert page.all("img") == []
    assert page.driver.title == "edgetune"
    assert page.console() == []


def test_many_labels_are_folded(browser: Page, many: Server) -> None:
    page = browser.open(many)
    page.pick("wide")
    page.write("good")
    page.classify()
    assert page.text("summary") == "… and 3 more"
    assert [row.is_displayed() for row in page.all("#answers li")] == [True] * 8 + [False] * 3
    page.one("summary").click()
    assert all(row.is_displayed() for row in page.all("#answers li"))


def test_many_tasks_are_filtered(browser: Page, many: Server) -> None:
    page = browser.open(many)
    assert page.text("#picked") == "0 of 16 picked"
    page.pick("size", "topic3")
    page.one("#filter").send_keys("PIC1")
    assert [row.text.split()[0] for row in page.all("#tasks label") if row.is_displayed()] == [
        "topic1",
        "topic10",
        "topic11",
    ]
    page.write("good")
    page.classify()
    assert list(page.answers()) == ["size", "topic3"]  # what is picked stays so


def test_the_key_is_asked_for(browser: Page, server_bundle: Path, serve: Serve) -> None:
    with serve(server_bundle, "--api-key", "schlüssel") as server:
        page = browser.open(server)
        assert page.one("#key-why").text == "The server wants a key."
        page.one("#key").send_keys("another", Keys.ENTER)
        page.wait(lambda: page.text("#key-why") == "The server does not take this key.")
        page.one("#key").send_keys("schlüssel", Keys.ENTER)
        page.wait(lambda: page.all("#tasks label"))
        assert not page.one("#key").is_displayed()
        page.write("good")
        page.classify()
        assert page.answers() == expected(server_bundle, "good", "colour", "size")
        page.open(server)
        assert page.all("#tasks label")  # the tab has kept it
        assert page.driver.execute_script("return [localStorage.length, document.cookie]") == [0, ""]


def test_a_server_that_goes_and_comes_back(browser: Page, server_bundle: Path, serve: Serve) -> None:
    with serve(server_bundle) as server:
        page = browser.open(server)
        page.pick("size")
        page.write("good")
        page.classify()
        server.process.kill()
        page.wait(lambda: page.text("#problem") == "The server does not answer.")
        page.one("#ask button").click()
        page.wait(lambda: page.texts("#answers .problem") == ["The server does not answer."])
    with serve(server_bundle, "--port", str(server.port)):
        page.wait(lambda: page.text("#problem") == "")
        page.classify()
        page.wait(lambda: page.texts("#answers .problem") == [])
        assert page.answers() == expected(server_bundle, "good", "size")


def test_tasks_that_come_and_go_are_listed(browser: Page, bundle_folder: Path, tmp_path: Path, serve: Serve) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    task = random_task(Bundle(folder), "new", prefix=3)
    headers = {"authorization": "Bearer key"}
    with (
        serve(folder, "--allow-task-changes", env={"EDGETUNE_TASK_KEY": "key"}) as server,
        server.client(headers=headers) as client,
    ):
        page = browser.open(server)
        page.pick("size")
        assert client.post("/v2/repository/models/new/load", content=task.to_bytes()).status_code == 200
        page.wait(lambda: "newone label (of 3)" in page.texts("#tasks label"))
        assert client.post("/v2/repository/models/colour/unload").status_code == 200
        page.wait(lambda: page.texts("#tasks label") == ["newone label (of 3)", "sizeone label (of 2)"])
        assert page.text("#picked") == "1 of 2 picked"


def test_nothing_is_said_to_the_console_or_asked_of_others(page: Page, server: Server) -> None:
    page.write("good")
    page.classify()
    page.wait(lambda: page.text("#inference").endswith(" ms"))
    assert page.console() == []
    asked = page.asked_for()
    assert {urlsplit(url).netloc for url in asked if url != "about:blank"} == {urlsplit(server.url).netloc}
    assert f"{server.url}/v1/classify" in asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_it_fits(browser: Page, many: Server, width: int, scheme: str) -> None:
    with shown_on(browser.driver, scheme, width):
        page = browser.open(many)
        page.pick("hostile", "wide")
        page.write("x" * 200)
        page.classify()
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
        ground = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in ground.strip("rgb()").split(","))
        assert (brightness > 3 * 128) == (scheme == "light")
