"""The page as a file, and in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import needs_browser, run_browser
from evaluated import HISTORY, evaluated, of_probabilities, random_evaluation, task_of
from hypothesis import given
from hypothesis import strategies as st
from selenium import webdriver

from edgetune.evaluation import Evaluation
from edgetune.report import write_report
from edgetune.report.page import SECTIONS, page
from edgetune_runtime.errors import DataError, EdgetuneError, TextError
from edgetune_runtime.kinds import KINDS, Answer, Entity, Target
from edgetune_runtime.kinds.single_label import SingleLabel
from edgetune_runtime.text import Text

HOSTILE = [
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">",
    "\"'><b>bold</b>&amp;</title></style><style>body{display:none}</style>",
    "wide" * 400,
    "שלום \u202e gnihtyreve snrut siht",
    "nothing\x00 \x1b[31m",
    "two\nlines   and   spaces",
]
LABELS = ["<b>angry</b>", "\"quoted' & more", "x" * 300, "\u202eright to left עברית"]
PICTURES = {"single-label": 5, "multi-label": 8, "score": 4, "tokens": 2, "spans": 5}
"""Kind → number of pictures in a report with a history, including two for the learning curve."""


def hostile(kind: str, pairs: bool = False) -> Evaluation:
    """Texts, labels and a name that contain HTML."""
    texts: list[Text] = [HOSTILE[place % len(HOSTILE)] for place in range(300)]
    if pairs:
        texts = [(text, other) for text, other in zip(HOSTILE * 50, HOSTILE[1:] * 60, strict=True)]
    return random_evaluation(kind, 300, LABELS, texts, "<i>task</i>")


def test_every_kind_has_sections_of_its_own() -> None:
    for kind in KINDS:
        anchors = [section.anchor for section in SECTIONS if section.kinds is None or kind in section.kinds]
        assert len(set(anchors)) == len(anchors) > 2
    assert {kind for section in SECTIONS for kind in section.kinds or ()} == set(KINDS)


def test_a_kind_that_the_report_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(SingleLabel):
        name = "other"
        title = "one label, another way"

    monkeypatch.setitem(KINDS, "other", Other())
    known = random_evaluation("single-label")
    odd = Evaluation(
        dataclasses.replace(known.task, kind_name="other"), known.texts, known.targets, known.outcomes, "int8"
    )
    html = page(odd, HISTORY)
    assert "Answers with one label, another way" in html
    assert re.findall(r'<section id="([a-z-]+)">', html) == ["learning", "wrong"]
    assert "<dt>answered</dt><dd>" in html


@pytest.mark.parametrize("kind", KINDS)
def test_equal_input_gives_equal_bytes(kind: str, tmp_path: Path) -> None:
    first = write_report(tmp_path / "new" / "one", random_evaluation(kind), HISTORY)
    second = write_report(str(tmp_path / "two"), random_evaluation(kind), HISTORY)
    assert first == tmp_path / "new" / "one" / "report.html"
    assert first.read_bytes() == second.read_bytes()
    assert [one.name for one in first.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_or_run(kind: str) -> None:
    html = page(hostile(kind), HISTORY)
    assert "<script" not in html
    assert re.findall(r' (?:src|href)="(?!#)([^"]*)"', html) == ["data:,"]
    assert not re.search(r"url\(|@import", html)
    assert re.search(r"""content="default-src 'none'; style-src 'unsafe-inline'; img-src data:""", html)


def test_what_was_not_answered_is_said() -> None:
    found = of_probabilities(task_of(), [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]], ["a", "c"])
    odd = Evaluation(
        found.task, [*found.texts, "x"], [*found.targets, "a"], [*found.outcomes, TextError("too long")], "int8",
        ["gr\udcfc.csv, line 1", "gr\udcfc.csv, line 2", "gr\udcfc.csv, line 3"],
    )  # fmt: skip
    html = page(odd)
    assert "1 more row could not be read" in html
    assert "gr\ufffd.csv, line 2" in html
    assert "1 of 2 rows (50.0%) are answered wrongly." in html


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 4), st.data())
def test_of_few_rows_and_odd_scores_too(kind: str, labels: int, data: st.DataObject) -> None:
    names = [f"label{place}" for place in range(1 if kind == "score" else max(labels, KINDS[kind].labels[0]))]
    logits = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 1e-30, 3e38, -3e38]))
    width = KINDS[kind].head_rows(len(names))
    rows = data.draw(st.lists(st.lists(logits, min_size=width, max_size=width), min_size=1, max_size=5))
    target: st.SearchStrategy[Target] = {
        "single-label": st.sampled_from(names),
        "multi-label": st.lists(st.sampled_from(names), unique=True).map(tuple),
        "score": st.floats(-1e300, 1e300),
        "tokens": st.lists(st.builds(Entity, st.just(0), st.just(6), st.sampled_from(names)), max_size=1).map(tuple),
        "spans": st.sampled_from([(), (Answer(0, 6, "text 0"),)]),
    }[kind]
    targets = data.draw(st.lists(target, min_size=len(rows), max_size=len(rows)))
    html = page(evaluated(task_of(kind, names), rows, targets), HISTORY[: data.draw(st.integers(0, 4))])
    for attribute in re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|r|width|height|points)="([^"]*)"', html):
        assert re.fullmatch(r"[-\d., ]+", attribute)


def test_without_answers_there_is_no_report() -> None:
    with pytest.raises(DataError, match="1 rows came, none of them answered"):
        page(Evaluation(task_of(), ["x"], ["a"], [TextError("too long")], "int8"))


def test_findings_come_with_a_link() -> None:
    html = page(random_evaluation("single-label"), HISTORY)
    links = re.findall(r'<a href="#([a-z-]+)">', html)
    assert links[0] == "wrong"
    assert set(links) <= set(re.findall(r'<section id="([a-z-]+)">', html))
    assert len(links) == 7


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(EdgetuneError, match=r"report\.html cannot be written: "):
        write_report(tmp_path / "taken", random_evaluation("score"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with run_browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def opened(driver: webdriver.Chrome, path: Path, width: int = 1100, scheme: str = "light") -> None:
    """Open a file on a screen of a given width, and clear the log."""
    size: dict[str, Any] = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.as_uri())


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_texts(driver: webdriver.Chrome, kind: str, tmp_path: Path) -> None:
    path = write_report(tmp_path, hostile(kind), HISTORY)
    opened(driver, path)
    events = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert driver.get_log("browser") == []
    assert driver.title == "<i>task</i>: how good it is"

    measure = """return [...document.querySelectorAll("svg")].map((one) => {
        const box = one.getBoundingClientRect();
        return [box.width, box.height, one.getAttribute("aria-label"),
                one.querySelectorAll(".line, .bars, .dot").length, one.closest("figure").innerText.length];
    })"""
    pictures = driver.execute_script(measure)
    assert len(pictures) == PICTURES[kind]
    for width, height, told, marks, caption in pictures:
        assert width > 250
        assert height > 100
        assert len(told) > 30
        assert marks > 0
        assert caption > 20

    assert driver.execute_script("return document.querySelectorAll('script, img, b, i:not([class])').length") == 0
    texts_of = """return [...document.querySelectorAll(".text")]
        .map((one) => [one.textContent, getComputedStyle(one).direction])"""
    texts = driver.execute_script(texts_of)
    shown = {text for text, _ in texts}
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[3], HOSTILE[5], "nothing\ufffd \ufffd[31m"} <= shown
    assert f"{HOSTILE[2][:600]}… (1,000 more characters)" in shown
    assert {side for text, side in texts if text == HOSTILE[3]} == {"rtl"}
    assert {side for text, side in texts if text == HOSTILE[0]} == {"ltr"}


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 768])
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits(driver: webdriver.Chrome, kind: str, width: int, scheme: str, tmp_path: Path) -> None:
    opened(driver, write_report(tmp_path, hostile(kind, pairs=True), HISTORY), width, scheme)
    driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground.strip("rgb()").split(","))
    assert (brightness > 3 * 128) == (scheme == "light")


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgb(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance(colour) {
  const [r, g, b] = rgb(colour).map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(element) {
  for (let one = element; one; one = one.parentElement) {
    const found = getComputedStyle(one).backgroundColor;
    if (rgb(found)[3] === 255) return found;
  }
}
const low = new Set();
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || one.tagName === "title") continue;
  const style = getComputedStyle(one);
  const [first, second] = [one.closest("svg") ? style.fill : style.color, ground(one)].map(luminance);
  const contrast = (Math.max(first, second) + 0.05) / (Math.min(first, second) + 0.05);
  if (contrast < 4.5) low.add(`${one.tagName}.${one.className.baseVal ?? one.className} ${contrast.toFixed(2)}`);
}
return [...low];
"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_text_can_be_read(driver: webdriver.Chrome, kind: str, scheme: str, tmp_path: Path) -> None:
    """Contrast as WCAG 2 asks for it, level AA."""
    opened(driver, write_report(tmp_path, hostile(kind), HISTORY), scheme=scheme)
    driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert driver.execute_script(CONTRAST) == []
