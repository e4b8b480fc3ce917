"""`edgetune site`: a page that any file server serves answers like Python's engine, without a network too."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accessibility import SCREENS, found_wrong, needs_axe
from browser import needs_browser, shown_on
from click.testing import CliRunner
from files_served import NODE_MODULES, ROOT, FileServer, needs_packages, serving_files
from page_in_browser import Page, a_browser, a_driver  # noqa: F401

from edgetune.cli import cli
from edgetune.site import build_site
from edgetune.site.packages import PACKAGES
from edgetune_runtime import Bundle, Engine
from edgetune_runtime.errors import BundleError, DataError, TaskError
from edgetune_runtime.kinds import AnswerResult, EntitiesResult

ENCODER = ROOT / "tests/conformance/bundle/encoder"
TASKS = ("behind-prefix", "units", "tags", "pair")
TEXT, PAIR = "The lamp is broken 😀", "where is my parcel?"
SHOWN = 0.0005
"""Half of the last digit that the page shows."""

pytestmark = needs_packages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    build_site(Bundle(ENCODER), folder, NODE_MODULES, TASKS, ["fp32"])
    return folder


@pytest.fixture(scope="module")
def right() -> dict[str, dict[str, float]]:
    with Engine(ENCODER, "fp32", threads=1) as engine:
        texts = [(TEXT, PAIR) if engine.task(name).pairs else TEXT for name in TASKS]
        results = engine.classify(texts, tasks=TASKS)
    return {result.task: result.scores for result in results}  # type: ignore[attr-defined]


@pytest.fixture
def served(site: Path) -> Iterator[FileServer]:
    with serving_files({"/some/where/": site}) as server:
        server.url += "/some/where/"
        yield server


def opened(browser: Page, server: FileServer) -> Page:
    browser.driver.get(server.url)
    browser.wait(lambda: browser.texts("#tasks label"))
    return browser


def asked(page: Page, *tasks: str) -> dict[str, dict[str, float]]:
    page.pick(*tasks)
    page.write(TEXT)
    if page.one("#text-pair").is_displayed():
        page.one("#text-pair").clear()
        page.one("#text-pair").send_keys(PAIR)
    page.classify()
    return {task: {label: float(score) for label, score in own.items()} for task, own in page.answers().items()}


@needs_browser
class TestInChromium:
    @pytest.fixture(autouse=True)
    def keys_for_all_characters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """chromedriver types no characters past U+FFFF, so texts are put in by a script."""
        script = "arguments[0].value = arguments[1]"
        monkeypatch.setattr(
            Page, "write", lambda self, text: self.driver.execute_script(script, self.one("#text"), text)
        )

    def test_it_answers_like_python_and_swaps_tasks(
        self, browser: Page, served: FileServer, right: dict[str, dict[str, float]]
    ) -> None:
        page = opened(browser, served)
        for tasks in (("behind-prefix",), TASKS):
            answers = asked(page, *tasks)
            assert set(answers) == set(tasks)
            for task in tasks:
                assert answers[task] == pytest.approx(right[task], abs=SHOWN + 1e-5)
        assert "; this browser: run " in page.text("#said")
        assert page.text("#problem") == ""
        assert not page.one("#server").is_displayed()

    def test_entities_and_answers_are_marked_in_the_text(self, browser: Page, tmp_path: Path) -> None:
        """Places count UTF-16 units there, and characters in Python."""
        tasks = ("names", "questions-last")
        text, context = "😀 where?", f"👍🏽 {TEXT}"
        with Engine(ENCODER, "fp32", threads=1) as engine:
            (names,), (asked,) = (
                engine.classify([given], task=name) for name, given in zip(tasks, (text, (text, context)), strict=True)
            )
        assert isinstance(names, EntitiesResult) and names.entities
        assert isinstance(asked, AnswerResult) and asked.best is not None
        assert names.entities[-1].start > 1 and asked.best.start > 1, "behind what is two units"
        build_site(Bundle(ENCODER), tmp_path / "site", NODE_MODULES, tasks, ["fp32"])
        with serving_files({"/": tmp_path / "site"}) as server:
            page = opened(browser, server)
            page.pick(*tasks)
            page.write(text)
            page.driver.execute_script("arguments[0].value = arguments[1]", page.one("#text-pair"), context)
            page.classify()
            found = [mark.replace("\n", "") for mark in page.texts("#answers mark")]
            whole = [shown.replace("\n", "") for shown in page.texts("#answers .marked")]
        marks = [f"{one.text} {one.label} {one.score:.2f}" for one in names.entities]
        answer = f"{asked.best.text} answer {asked.score:.2f}"
        assert found == [*marks, answer]
        start, end, _ = asked.best
        assert whole[1] == f"{context[:start]}{answer}{context[end:]}"

    @needs_axe
    @pytest.mark.parametrize("screen", SCREENS)
    def test_axe_finds_nothing_wrong(self, browser: Page, served: FileServer, screen: str) -> None:
        with shown_on(browser.driver, *SCREENS[screen]):
            page = opened(browser, served)
            assert page.text("#opened"), "what was loaded"
            assert found_wrong(page.driver) == []
            asked(page, *TASKS)
            assert found_wrong(page.driver) == []

    def test_it_has_threads_and_says_what_it_loaded(self, browser: Page, served: FileServer) -> None:
        page = opened(browser, served)
        assert page.driver.execute_script("return crossOriginIsolated")
        assert "threads; opened in" in page.text("#opened") or "one thread" in page.text("#opened")
        if page.driver.execute_script("return navigator.hardwareConcurrency > 1"):
            assert "threads; opened in" in page.text("#opened")

    def test_it_works_offline(self, browser: Page, site: Path, right: dict[str, dict[str, float]]) -> None:
        with serving_files({"/": site}) as server:
            page = opened(browser, server)
            assert server.asked.count("/bundle/onnx/model.onnx.gz") == 1
            opened(browser, server)
            assert server.asked.count("/bundle/onnx/model.onnx.gz") == 1
        page = opened(browser, server)
        assert asked(page, "units")["units"] == pytest.approx(right["units"], abs=SHOWN + 1e-5)

    def test_a_site_that_was_replaced_is_the_new_one(self, browser: Page, site: Path, tmp_path: Path) -> None:
        replaced = shutil.copytree(site, tmp_path / "site")
        with serving_files({"/": replaced}) as server:
            opened(browser, server)
            (replaced / "page.css").write_text("/* new */")
            (replaced / "site.json").write_text(json.dumps({"tasks": ["tags"], "precision": "fp32"}))
            page = opened(browser, server)
            assert page.texts("#tasks label > span") == ["tags"]
            code = "return fetch('page.css').then((response) => response.text())"
            assert page.driver.execute_script(code) == "/* new */"

    def test_a_server_that_unpacks_gz_files_serves_it_too(
        self, browser: Page, site: Path, tmp_path: Path, right: dict[str, dict[str, float]]
    ) -> None:
        unpacked = shutil.copytree(site, tmp_path / "site")
        for path in unpacked.rglob("*.gz"):
            path.write_bytes(gzip.decompress(path.read_bytes()))
        with serving_files({"/": unpacked}) as server:
            page = opened(browser, server)
            assert asked(page, "tags")["tags"] == pytest.approx(right["tags"], abs=SHOWN + 1e-5)

    def test_a_damaged_graph_is_said(self, browser: Page, site: Path, tmp_path: Path) -> None:
        damaged = shutil.copytree(site, tmp_path / "site")
        graph = damaged / "bundle/onnx/model.onnx.gz"
        graph.write_bytes(gzip.compress(b"another graph"))
        with serving_files({"/": damaged}) as server:
            browser.driver.get(server.url)
            browser.wait(lambda: "".join(browser.texts("#problem")))  # the page loads itself again
            assert "onnx/model.onnx is damaged: its SHA-256 is" in browser.text("#problem")


def test_files_that_no_task_needs_are_left_out(site: Path) -> None:
    graphs = {path.name for path in (site / "bundle/onnx").iterdir()}
    assert graphs == {"model.onnx.gz", "model_light.onnx.gz"}
    assert {path.stem for path in (site / "bundle/tasks").iterdir()} == set(TASKS)
    assert not [path.name for path in (site / "edgetune").iterdir() if path.name.startswith("node")]


def test_its_bytes_are_told_and_the_same_each_time(site: Path, tmp_path: Path) -> None:
    told = build_site(Bundle(ENCODER), tmp_path / "again", NODE_MODULES, TASKS, ["fp32"])
    files = {path.relative_to(told.folder): path.read_bytes() for path in told.folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert told.total_bytes == told.first_bytes == sum(map(len, files.values()))


def test_the_file_for_close_calls_is_no_part_of_the_first_load(tmp_path: Path) -> None:
    alone = build_site(Bundle(ENCODER), tmp_path / "alone", NODE_MODULES, TASKS)
    both = build_site(Bundle(ENCODER), tmp_path / "both", NODE_MODULES, TASKS, ["int8", "fp32"])
    assert alone.precisions == ("int8",)
    assert both.precisions == ("int8", "fp32")
    assert json.loads((alone.folder / "site.json").read_bytes())["precision"] == "int8"
    assert json.loads((both.folder / "site.json").read_bytes())["precision"] is None
    assert abs(both.first_bytes - alone.first_bytes) < 10
    assert both.total_bytes > both.first_bytes


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"tasks": ["nothing"]}, TaskError, "no task 'nothing'"),
        ({"precisions": ["q4"]}, BundleError, "has no precision 'q4'"),
        ({"node_modules": ROOT / "nothing"}, DataError, "does not have the npm package onnxruntime-web"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str) -> None:
    given: dict[str, Any] = {"node_modules": NODE_MODULES, **changes}
    with pytest.raises(error, match=says):
        build_site(Bundle(ENCODER), tmp_path / "site", **given)
    assert not (tmp_path / "site").exists()


def test_another_version_of_a_package_is_refused(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package.name).mkdir(parents=True)
        (tmp_path / package.name / "package.json").write_text('{"version": "0.0.1"}')
    with pytest.raises(DataError, match=r"has version 0\.0\.1: expected"):
        build_site(Bundle(ENCODER), tmp_path / "site", tmp_path)


def test_other_files_are_not_mixed_with_a_site(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is not a site"):
        build_site(Bundle(ENCODER), tmp_path, NODE_MODULES, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]


def test_the_command(tmp_path: Path) -> None:
    command = ["site", str(ENCODER), str(tmp_path / "site"), "--node-modules", str(NODE_MODULES), "--task", "tags"]
    told = json.loads(CliRunner().invoke(cli, [*command, "--json"], catch_exceptions=False).stdout)
    assert told["tasks"] == ["tags"]
    assert told["precisions"] == ["int8"]
    again = CliRunner().invoke(cli, command)
    assert isinstance(again.exception, DataError)
    assert "pass --overwrite" in str(again.exception)
    assert CliRunner().invoke(cli, [*command, "--overwrite"]).exit_code == 0
