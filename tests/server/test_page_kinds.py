"""The page for people: tasks of every kind, and pairs of texts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import needs_browser
from conftest import TEXTS
from kinds_served import NAMES, PAIRED, THRESHOLDS, save_kinds
from page_in_browser import Page, a_browser, a_driver  # noqa: F401
from serving import Serve, Server

from edgetune_runtime import Bundle, Engine
from edgetune_runtime.kinds import AnswerResult, EntitiesResult, LabelResult, LabelsResult, ScoreResult

pytestmark = needs_browser


@pytest.fixture(scope="module")
def kinds(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a task of each kind, for single texts and for pairs."""
    return save_kinds(bundle_folder, tmp_path_factory.mktemp("kinds") / "bundle")


@pytest.fixture(scope="module")
def kinds_server(kinds: Path, serve: Serve) -> Iterator[Server]:
    with serve(kinds) as server:
        yield server


def test_kinds_are_listed(browser: Page, kinds_server: Server) -> None:
    page = browser.open(kinds_server)
    assert page.texts("#tasks label") == [
        "multi-labelany number of labels (of 3)",
        "multi-label-pairsany number of labels (of 3), for pairs",
        "scorea number",
        "score-pairsa number, for pairs",
        "single-labelone label (of 3)",
        "single-label-pairsone label (of 3), for pairs",
        "spans-pairsan answer in a text, for pairs",
        "tokensentities in a text (of 3)",
        "tokens-pairsentities in a text (of 3), for pairs",
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", TEXTS[:3])
def test_answers_of_every_kind(browser: Page, kinds_server: Server, kinds: Path, name: str, text: str) -> None:
    page, second = browser.open(kinds_server), TEXTS[4]
    page.pick(name)
    page.write(text)
    if name in PAIRED:
        page.one("#text-pair").send_keys(second)
    page.classify()
    with Engine(kinds, threads=2) as engine:
        (result,) = engine.classify([(text, second) if name in PAIRED else text], task=name)
    assert page.text("#said").startswith("1 of 1 answered in ")
    if isinstance(result, EntitiesResult) and result.entities:
        marks = [f"{one.text} {one.label} {one.score:.2f}" for one in result.entities]
        assert [mark.replace("\n", "") for mark in page.texts("#answers mark")] == marks
        assert page.console() == []
        return
    if isinstance(result, AnswerResult) and result.best is not None:
        start, end, found = result.best
        mark = f"{found} answer {result.score:.2f}"
        assert [own.replace("\n", "") for own in page.texts("#answers mark")] == [mark]
        (marked,) = page.texts("#answers .marked")
        assert marked.replace("\n", "") == f"{second[:start]}{mark}{second[end:]}"
        assert page.console() == []
        return
    (said,) = page.texts("#answers .label")
    if isinstance(result, AnswerResult):
        assert said == f"no answer ({result.score:.2f})"
        return
    if isinstance(result, EntitiesResult):
        assert said == "no entity"
        return
    if isinstance(result, ScoreResult):
        assert said == f"{result.score:.3f}"
        assert page.texts("#answers li") == []
    elif isinstance(result, LabelsResult):
        assert said == (", ".join(result.labels) or "no label applies")
        order = sorted(result.scores, key=lambda label: (label not in result.labels, -result.scores[label]))
        assert list(page.answers()[name].items()) == [(label, f"{result.scores[label]:.3f}") for label in order]
        assert page.texts("#answers li.applies > :first-child") == [one for one in order if one in result.labels]
        limits = dict(zip(result.scores, THRESHOLDS, strict=True))
        assert page.texts("#answers .threshold") == [
            f"{'applies: ' if label in result.labels else ''}threshold {limits[label]:.3f}" for label in order
        ]
    else:
        assert isinstance(result, LabelResult)
        assert said == result.best
        assert page.answers()[name] == {label: f"{score:.3f}" for label, score in result.scores.items()}
        assert page.all("#answers .threshold") == []
    assert page.console() == []


def test_tasks_of_every_kind_at_once(browser: Page, kinds_server: Server, kinds: Path) -> None:
    page, names = browser.open(kinds_server), sorted(NAMES)
    page.pick(*names)
    page.write(TEXTS[0])
    page.one("#text-pair").send_keys(TEXTS[4])
    page.asked_for()
    page.classify()
    with Engine(kinds, threads=2) as engine:
        results = engine.classify([(TEXTS[0], TEXTS[4]) if name in PAIRED else TEXTS[0] for name in names], tasks=names)
    right = []
    for result in results:
        if isinstance(result, ScoreResult):
            right.append(f"{result.score:.3f}")
        elif isinstance(result, LabelsResult):
            right.append(", ".join(result.labels) or "no label applies")
        elif isinstance(result, AnswerResult):
            right += [] if result.best else [f"no answer ({result.score:.2f})"]
        elif isinstance(result, EntitiesResult):
            right += [] if result.entities else ["no entity"]
        else:
            assert isinstance(result, LabelResult)
            right.append(result.best)
    assert page.texts("#answers h2") == names
    assert page.texts("#answers .label") == right
    assert page.asked_for().count(f"{kinds_server.url}/v1/classify") == 2
    assert page.console() == []


def test_thresholds_are_drawn_where_they_are(browser: Page, kinds_server: Server) -> None:
    page = browser.open(kinds_server)
    page.pick("multi-label")
    page.write(TEXTS[0])
    page.classify()
    measure = """return [...document.querySelectorAll(".bar")].map((bar) =>
        (parseFloat(getComputedStyle(bar, "::after").left) + 1) / bar.clientWidth)"""
    limits = [float(line.rpartition(" ")[2]) for line in page.texts("#answers .threshold")]
    assert sorted(limits) == list(THRESHOLDS)
    assert page.driver.execute_script(measure) == pytest.approx(limits, abs=0.005)


def test_the_second_text_is_asked_for_with_pairs_alone(browser: Page, kinds_server: Server) -> None:
    page = browser.open(kinds_server)
    second = page.one("#text-pair")
    page.pick("score")
    assert not second.is_displayed()
    page.pick("score", "score-pairs")
    assert second.is_displayed()
    assert page.one("label[for=text-pair]").text.startswith("Second text")
    page.write("good")
    page.one("#ask button").click()
    assert page.driver.execute_script("return document.activeElement.id") == "text-pair"
    second.send_keys("bad")
    page.asked_for()
    page.classify()
    assert page.text("#said").startswith("2 of 2 answered in ")
    assert page.asked_for().count(f"{kinds_server.url}/v1/classify") == 2, "one for texts, one for pairs"
    page.pick("score")
    assert not second.is_displayed()
    page.classify()
    assert page.text("#said").startswith("1 of 1 answered in ")


def test_a_task_of_another_kind_takes_the_place(
    browser: Page, bundle_folder: Path, kinds: Path, tmp_path: Path, serve: Serve
) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    headers = {"authorization": "Bearer key"}
    with (
        serve(folder, "--allow-task-changes", env={"EDGETUNE_TASK_KEY": "key"}) as server,
        server.client(headers=headers) as client,
    ):
        page = browser.open(server)
        page.pick("size")
        page.write("good")
        for name in ("multi-label", "score", "single-label"):
            task = Bundle(kinds).load_task(name)
            assert client.post("/v2/repository/models/size/load", content=task.to_bytes()).status_code == 200
            page.wait(lambda title=task.kind.title: any(title in line for line in page.texts("#tasks label")[1:]))
            page.classify()
            assert page.all("#answers .problem") == []
            assert bool(page.all("#answers .bar")) == (name != "score")
            assert bool(page.all("#answers .threshold")) == (name == "multi-label")


LOOK_NO_MORE = """const real = window.fetch;
    window.fetch = (path, ...more) => {
        if (path !== "metrics") return real(path, ...more);
        window.held = true;
        return new Promise(() => {});
    }"""
"""A page that does not request figures does not notice changed tasks."""


def test_a_task_that_was_replaced_since_it_was_listed(
    browser: Page, bundle_folder: Path, kinds: Path, tmp_path: Path, serve: Serve
) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    headers = {"authorization": "Bearer key"}
    with (
        serve(folder, "--allow-task-changes", env={"EDGETUNE_TASK_KEY": "key"}) as server,
        server.client(headers=headers) as client,
    ):
        page = browser.open(server)
        page.driver.execute_script(LOOK_NO_MORE)
        page.wait(lambda: page.driver.execute_script("return window.held"))
        page.write("good")
        told = []
        for name in ("score-pairs", "single-label"):
            task = Bundle(kinds).load_task(name)
            assert client.post("/v2/repository/models/size/load", content=task.to_bytes()).status_code == 200
            page.classify()
            assert page.text("#said").startswith("1 of 2 answered in "), "the other task answers"
            assert len(page.texts("#answers .label")) == 1
            told += page.texts("#answers .problem")
        assert told[0].startswith("task 'size' takes pairs of texts, and one text came")
        assert told[1:] == ["The task was replaced just now: classify again."]
        page.classify()
        assert page.text("#said").startswith("2 of 2 answered in ")
