"""The JavaScript engine compared with Python's: ids, labels and probabilities, in Node and in Chromium.

And a browser's downloads and times.

    python benchmarks/javascript.py MODEL DATA NODE_MODULES

MODEL is exported once to fp32 and int8, with a task fitted to each of six data sets in DATA (NAME/train.jsonl and
test.jsonl): one label, any number of labels, pairs, and 150 labels; and a task with low rank, which runs in another
graph. NODE_MODULES is a folder of npm packages (`npm ci` in web/). It takes a few minutes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from selenium import webdriver

from edgetune.site import build_site
from edgetune_runtime import Bundle
from edgetune_runtime.session import cpu_name, has_int8_dot_product

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/web")]

from browser import run_browser  # noqa: E402
from files_served import FOLDERS_OF_PACKAGE, ISOLATED, run_in, serving_files  # noqa: E402
from six_tasks import BOTH, PRECISIONS, agreement, make_bundle, python_answers, test_rows  # noqa: E402

TIMED_TEXTS = 1000
ROWS_AT_ONCE = 100

Row = dict[str, Any]


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("node_modules", type=click.Path(path_type=Path))
@click.option("--rows", default=1000, show_default=True, help="Test texts in all, as many of each data set.")
@click.option("--work", type=click.Path(path_type=Path), help="Where the bundle is kept. [default: nowhere]")
def main(model: str, data: Path, node_modules: Path, rows: int, work: Path | None) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        bundle = folder / "bundle"
        if not bundle.exists():
            make_bundle(model, data, bundle)
        texts = test_rows(data, rows)
        agreed = [line for precision in PRECISIONS for line in compared(bundle, precision, texts, node_modules, folder)]
        click.echo(
            f"{'':<8}{'where':<18}{'texts':>7}{'same ids':>10}{'same labels':>13}{'probabilities ±':>17}{'ms':>8}"
        )
        for line in agreed:
            click.echo(
                f"{line['precision']:<8}{line['where']:<18}{line['texts']:>7}{line['same_ids']:>10}"
                f"{line['same_labels']:>13}{line['largest_difference']:>17.1e}{line['median_ms']:>8.1f}"
            )
        browser = in_browser(bundle, node_modules, folder)
        click.echo(f"\n{'site in Chromium':<18}{'MB':>8}{'s to first answer':>19}{'ms/text':>9}{'MB memory':>11}")
        for line in browser:
            click.echo(
                f"{line['what']:<18}{line['downloaded_mb']:>8.1f}{line['first_answer_s']:>19.1f}"
                f"{line['median_ms']:>9.1f}{line['memory_mb']:>11.0f}"
            )
    environment = {
        "cpu": cpu_name(),
        "int8_dot_product": has_int8_dot_product(),
        "date": time.strftime("%Y-%m-%d"),
        "onnxruntime": version("onnxruntime"),
        "npm": {
            name: json.loads((node_modules / name / "package.json").read_bytes())["version"]
            for name in ("onnxruntime-node", "onnxruntime-web", "@huggingface/tokenizers")
        },
    }
    click.echo(json.dumps({"agreement": agreed, "browser": browser, **environment}))


def compared(bundle: Path, precision: str, rows: list[Row], node_modules: Path, folder: Path) -> Iterator[Row]:
    """What Node and Chromium answer, compared with Python. `both`: int8 answers, and fp32 close calls."""
    expected = python_answers(bundle, precision, rows)
    asked = None if precision == BOTH else precision
    for where, answers in (
        ("Python", expected),
        ("Node", in_node(bundle, asked, rows)),
        ("Chromium, wasm", in_chromium(bundle, asked, rows, node_modules, folder)),
    ):
        median_ms = statistics.median(answer["spent_ms"] for answer in answers)
        yield {**agreement(expected, answers), "precision": precision, "where": where, "median_ms": median_ms}


def in_node(bundle: Path, precision: str | None, rows: list[Row]) -> list[Row]:
    """Answers of the engine in Node, on one thread."""
    command = ["node", str(ROOT / "benchmarks/javascript/node.js"), str(bundle), json.dumps(precision), "1"]
    told = subprocess.run(command, input=json.dumps(rows), stdout=subprocess.PIPE, text=True, check=True).stdout
    answers: list[Row] = json.loads(told)["answers"]
    return answers


def in_chromium(bundle: Path, precision: str | None, rows: list[Row], node_modules: Path, folder: Path) -> list[Row]:
    """Answers of the engine in Chromium, on one thread."""
    folders = {**FOLDERS_OF_PACKAGE, "/npm/": node_modules, "/bundle/": bundle, "/js/": ROOT / "benchmarks/javascript"}
    with serving_files(folders) as server, run_browser(folder / f"profile-{precision}") as driver:
        driver.set_script_timeout(3600)
        driver.get(f"{server.url}/web/test/page.html")
        run_in(driver, "while (!globalThis.edgetune) await new Promise((go) => setTimeout(go, 10));")
        run_in(
            driver,
            "globalThis.engine = await edgetune.Engine.open('/bundle', { precision: given[0], threads: 1 });",
            precision,
        )
        code = "return (await import('/js/answers.js')).answersOf(globalThis.engine, given[0]);"
        answers: list[Row] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):  # a browser's driver waits for two minutes
            answers += run_in(driver, code, rows[start : start + ROWS_AT_ONCE])
    return answers


def in_browser(bundle: Path, node_modules: Path, folder: Path) -> list[Row]:
    """A site in a new browser: its downloads, the first answer, texts one after the other, and then the memory."""
    return [
        site_in_browser(bundle, node_modules, folder, precision, threads)
        for precision in ("int8", "fp32")
        for threads in (1, 2)
    ]


def site_in_browser(bundle: Path, node_modules: Path, folder: Path, precision: str, threads: int) -> Row:
    """One line of it. The server's headers decide how many threads there are; the site's own would make it two."""
    place = folder / f"site-{precision}-{threads}"
    if not place.exists():
        build_site(Bundle(bundle), place, node_modules, ["ag_news"], [precision])
    worker = place / "worker.js"  # which asks for no number of threads
    worker.write_text(
        worker.read_text().replace("precision, tasks, onProgress", f"precision, tasks, threads: {threads}, onProgress")
    )
    with (
        serving_files({"/": place}, ISOLATED) as server,
        run_browser(place.with_name(place.name + "-profile")) as driver,
    ):
        driver.set_script_timeout(3600)
        began = time.perf_counter()
        driver.get(server.url)
        text = "Oil prices rose again after the storm shut down rigs in the gulf"
        wait_for(driver, "return document.querySelector('#tasks input') !== null")
        ask = """
            document.querySelector("#text").value = given[0];
            document.querySelector("#said").textContent = "";
            document.querySelector("#ask").requestSubmit();
            const isAnswered = () => /answered in/.test(document.querySelector("#said").textContent);
            while (!isAnswered()) await new Promise((go) => setTimeout(go, 1));
            return document.querySelector("#said").textContent;"""
        run_in(driver, ask, text)
        first = time.perf_counter() - began
        sent = sum(server.sent.values())
        times: list[float] = []
        for start in range(0, TIMED_TEXTS, ROWS_AT_ONCE):
            more = f"""
                const times = [];
                for (let k = {start}; k < {start + ROWS_AT_ONCE}; k++) {{
                  const told = await (async (given) => {{ {ask} }})([`${{given[0]}} ${{k}}`]);
                  times.push(Number(/run ([0-9.]+)/.exec(told)[1]));
                }}
                return times;"""
            times += run_in(driver, more, text)
        memory = run_in(driver, "return (await performance.measureUserAgentSpecificMemory()).bytes;")
    return {
        "what": f"{precision}, {threads} thread{'s' * (threads > 1)}",
        "precision": precision,
        "threads": threads,
        "downloaded_mb": sent / 1e6,
        "first_answer_s": first,
        "median_ms": statistics.median(times),
        "memory_mb": memory / 1e6,
    }


def wait_for(driver: webdriver.Chrome, script: str) -> None:
    """Wait until a script gives true; the page may load itself again meanwhile."""
    until = time.perf_counter() + 300
    while not driver.execute_script(script):
        if time.perf_counter() > until:
            raise TimeoutError(driver.execute_script("return document.body.innerText"))
        time.sleep(0.02)


if __name__ == "__main__":
    main()
