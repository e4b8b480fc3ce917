"""The JavaScript package in a real browser: wasm answers as tests/conformance says, in pages and in workers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import needs_browser, run_browser
from files_served import FOLDERS_OF_PACKAGE, ISOLATED, ROOT, FileServer, needs_packages, run_in, serving_files
from selenium import webdriver

pytestmark = [needs_browser, needs_packages]

CONFORMANCE = ROOT / "tests/conformance"
FOLDERS = {
    **FOLDERS_OF_PACKAGE,
    "/conformance/": CONFORMANCE,
    "/old/": ROOT / "tests/formats/0.1",
}
KERNELS = 1e-5
"""What fp32 logits may differ by; see web/test/conformance.test.js."""

MOST_HEAP_BYTES = 500_000
"""What the heap may grow by: half a kilobyte per text, which is less than a text and its answer take."""

OPEN = "const engine = await edgetune.Engine.open(given[0], given[1]);"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with run_browser(tmp_path_factory.mktemp("chromium")) as driver:
        driver.set_script_timeout(120)
        yield driver


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle `encoder`, which tests may change and change back."""
    return shutil.copytree(CONFORMANCE / "bundle/encoder", tmp_path_factory.mktemp("web") / "encoder")


@pytest.fixture(scope="module")
def server(encoder: Path) -> Iterator[FileServer]:
    with serving_files({**FOLDERS, "/encoder/": encoder}) as server:
        yield server


@pytest.fixture
def page(chromium: webdriver.Chrome, server: FileServer) -> webdriver.Chrome:
    """The page of the tests, with nothing kept."""
    return opened(chromium, server)


def opened(chromium: webdriver.Chrome, server: FileServer) -> webdriver.Chrome:
    chromium.get(f"{server.url}/web/test/page.html")
    run_in(chromium, "while (!globalThis.edgetune) await new Promise((go) => setTimeout(go, 10));")
    run_in(chromium, "await edgetune.forget();")
    server.asked.clear()
    return chromium


def test_wasm_answers_all_cases(page: webdriver.Chrome) -> None:
    found = run_in(
        page,
        """
        const lines = await (await fetch("/conformance/cases.jsonl")).text();
        const found = {};
        for (const [key, cases] of globalThis.byEngine(lines)) {
          const [bundle, precision] = key.split("/");
          const engine = await edgetune.Engine.open(`/conformance/bundle/${bundle}`, { precision });
          found[key] = await globalThis.failures(engine, cases);
          await engine.close();
        }
        return found;""",
    )
    assert found.keys() == {
        "encoder/fp32",
        "encoder/int8",
        "decoder/fp32",
        "encoder-decoder/fp32",
        "fused-decoder/fp32",
    }
    for key, told in found.items():
        assert told["problems"] == [], key
        assert told["cases"] > 0
        if key.endswith("fp32"):
            assert max(told["mostLogits"], told["mostScores"]) <= KERNELS


def test_workers_answer_on_two_threads(chromium: webdriver.Chrome) -> None:
    with serving_files(FOLDERS, ISOLATED) as server:
        page = opened(chromium, server)
        told = run_in(
            page,
            """
            const lines = await (await fetch("/conformance/cases.jsonl")).text();
            const cases = globalThis.byEngine(lines).get("encoder/fp32");
            const worker = new Worker("/web/test/worker.js", { type: "module" });
            const answer = new Promise((done) => (worker.onmessage = ({ data }) => done(data)));
            const options = { precision: "fp32", threads: 2 };
            worker.postMessage({ place: "/conformance/bundle/encoder", options, cases });
            const told = await answer;
            worker.terminate();
            return told;""",
        )
    assert told["problems"] == []
    assert told["threads"] == 2
    assert told["cases"] > 100


def test_weights_beside_a_graph_are_read(page: webdriver.Chrome) -> None:
    """And a bundle of version 1."""
    code = OPEN + 'return engine.classify(["good"], { task: "head-last" });'
    (answer,) = run_in(page, code, "/old/gpt2", {})
    assert answer["status"] == "ok"
    assert answer["precision"] == "fp32"


def test_files_are_kept_and_answer_offline(chromium: webdriver.Chrome, encoder: Path) -> None:
    code = OPEN + 'return engine.classify(["good", "the lamp is broken"], { task: "behind-prefix" });'
    with serving_files({**FOLDERS, "/encoder/": encoder}) as server:
        page = opened(chromium, server)
        first = run_in(page, code, "/encoder", {"precision": "int8"})
        assert "/encoder/onnx/model_int8.onnx" in server.asked
        server.asked.clear()
        told = run_in(
            page,
            "const told = []; given[1].onProgress = (one) => told.push(one);" + OPEN + "return told;",
            "/encoder",
            {"precision": "int8"},
        )
        assert server.asked == ["/encoder/edgetune.json"]
        assert {one["file"] for one in told if one["cached"]} == {
            "tokenizer.json",
            "config.json",
            "onnx/model_int8.onnx",
        }
        # The page stays: it has its modules and onnxruntime already.
    with pytest.raises(RuntimeError, match="Failed to fetch"):
        run_in(page, 'await fetch("/encoder/edgetune.json", { cache: "no-store" });')
    assert run_in(page, code, "/encoder", {"precision": "int8"}) == first
    with pytest.raises(RuntimeError, match=r"BundleError: .*Failed to fetch|NetworkError: .*cannot be fetched"):
        run_in(page, code, "/encoder", {"precision": "fp32"})


def test_a_kept_file_that_is_damaged_is_fetched_again(page: webdriver.Chrome, server: FileServer) -> None:
    run_in(page, OPEN, "/encoder", {"precision": "int8"})
    damage = """
        const cache = await caches.open("edgetune");
        for (const request of await cache.keys()) {
          if (request.url.includes("sha256")) await cache.put(request, new Response(new Uint8Array(100)));
        }"""
    run_in(page, damage)
    server.asked.clear()
    run_in(page, OPEN, "/encoder", {"precision": "int8"})
    assert "/encoder/onnx/model_int8.onnx" in server.asked


def test_a_file_that_is_damaged_on_the_server_is_refused_and_not_kept(page: webdriver.Chrome, encoder: Path) -> None:
    file = encoder / "onnx/model_int8.onnx"
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        with pytest.raises(RuntimeError, match=r"BundleError: .*is damaged: its SHA-256 is"):
            run_in(page, OPEN, "/encoder", {"precision": "int8"})
    finally:
        file.write_bytes(sound)
    run_in(page, OPEN, "/encoder", {"precision": "int8"})


def test_close_calls_are_answered_again_in_fp32_if_it_is_there(page: webdriver.Chrome, encoder: Path) -> None:
    code = (
        OPEN
        + """
        const answers = await engine.classify(["good", "where is my parcel?"], { task: "own-classifier" });
        return [answers.map(({ precision }) => precision), engine.precisions];"""
    )
    assert run_in(page, code, "/encoder", {}) == [["fp32", "int8"], ["int8", "fp32"]]
    (encoder / "onnx/model.onnx").rename(encoder / "onnx/away")
    run_in(page, "await edgetune.forget();")
    try:
        assert run_in(page, code, "/encoder", {}) == [["int8", "int8"], ["int8"]]
    finally:
        (encoder / "onnx/away").rename(encoder / "onnx/model.onnx")


def test_tasks_are_swapped(page: webdriver.Chrome) -> None:
    first, second = run_in(
        page,
        OPEN
        + """
        const answers = [];
        for (const name of ["behind-prefix", "both-pooler"]) {
          await engine.addTask(`/encoder/tasks/${name}.safetensors`, { name: "swapped" });
          answers.push((await engine.classify(["good"], { task: "swapped" }))[0]);
        }
        return answers;""",
        "/encoder",
        {"precision": "fp32"},
    )
    assert first["task"] == second["task"] == "swapped"
    assert first["scores"] != second["scores"]


def test_a_thousand_texts_take_no_more_memory(page: webdriver.Chrome) -> None:
    """Neither in wasm, whose memory only grows, nor among JavaScript's objects."""
    page.execute_cdp_cmd("HeapProfiler.enable", {})
    run_in(
        page,
        """
        const { Memory } = WebAssembly;
        WebAssembly.Memory = function (...given) {
          globalThis.memory = new Memory(...given);
          return globalThis.memory;
        };
        WebAssembly.Memory.prototype = Memory.prototype;
        globalThis.engine = await edgetune.Engine.open("/encoder", { precision: "int8" });
        const texts = ["good", "the lamp is broken", "where is my parcel?", "it was charged twice"];
        globalThis.classify = async (number) => {
          for (let k = 0; k < number; k++) {
            await globalThis.engine.classify([texts[k % texts.length] + " " + (k % 50)], { task: "behind-prefix" });
          }
        };
        await globalThis.classify(200);""",
    )

    def taken() -> tuple[int, int]:
        page.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        heap = page.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"]
        return run_in(page, "return globalThis.memory.buffer.byteLength;"), heap

    wasm, heap = taken()
    assert wasm > 0
    run_in(page, "await globalThis.classify(1000);")
    assert taken()[0] == wasm
    assert taken()[1] - heap < MOST_HEAP_BYTES


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 2}, "DeviceError: threads is 2, and this page is not cross-origin isolated"),
        ({"threads": 0}, "DataError: threads is 0"),
        ({"device": "cuda"}, 'DeviceError: device "cuda" is not known'),
        ({"precision": "q4"}, 'BundleError: .* has no precision "q4": expected one of fp32, int8'),
    ],
)
def test_what_cannot_be_is_said(page: webdriver.Chrome, options: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        run_in(page, OPEN, "/encoder", options)


def test_a_bundle_that_is_not_there_is_said(page: webdriver.Chrome) -> None:
    with pytest.raises(RuntimeError, match=r"MissingFileError: .*/nothing/edgetune\.json does not exist"):
        run_in(page, OPEN, "/nothing", {})


def test_webgpu_is_used_only_if_it_answers_like_wasm(page: webdriver.Chrome) -> None:
    code = (
        OPEN + 'return [engine.device, engine.note, (await engine.classify(["good"], { task: "behind-prefix" }))[0]];'
    )
    device, note, answer = run_in(page, code, "/encoder", {"precision": "fp32", "device": "webgpu"})
    assert answer["status"] == "ok"
    assert (device == "wasm") == note.startswith("WebGPU is not used: ")
    assert device in ("wasm", "webgpu")
