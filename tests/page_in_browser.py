"""The page in a real browser, and a user's actions. Test modules import the fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from browser import run_browser
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from serving import Server


class Page:
    """The page in a browser, and a user's actions."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, server: Server) -> Page:
        self.driver.get(server.url)
        self.wait(lambda: self.all("#tasks label") or self.one("#key").is_displayed())
        return self

    def wait(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.driver, 30, poll_frequency=0.05).until(lambda _: condition())

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text.replace("\N{NO-BREAK SPACE}", " ")

    def texts(self, selector: str) -> list[str]:
        # In one script, because the page may replace them at any time.
        script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
        return self.driver.execute_script(script, selector)

    def pick(self, *tasks: str) -> None:
        for box in self.all("#tasks input"):
            if box.is_selected() != (box.get_attribute("value") in tasks):
                box.click()

    def write(self, text: str) -> None:
        self.one("#text").clear()
        self.one("#text").send_keys(text)

    def classify(self) -> None:
        self.one("#ask button").click()
        self.wait(lambda: " answered in " in self.text("#said"))

    def answers(self) -> dict[str, dict[str, str]]:
        """By task, the shown scores by label, including collapsed ones."""
        return {
            name: dict(zip(self.texts(f"{card} li > :first-child"), self.texts(f"{card} .score"), strict=True))
            for place, name in enumerate(self.texts("#answers h2"), 1)
            for card in [f"#answers article:nth-child({place})"]
        }

    def console(self) -> list[str]:
        """New console messages since the last call."""
        return [line["message"] for line in self.driver.get_log("browser")]

    def asked_for(self) -> list[str]:
        """The addresses requested since the last call."""
        events = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module", name="driver")
def a_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with run_browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(name="browser")
def a_browser(driver: webdriver.Chrome) -> Page:
    """A browser with nothing open and nothing logged."""
    driver.get("about:blank")
    page = Page(driver)
    page.console()
    page.asked_for()
    return page
