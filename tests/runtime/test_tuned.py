"""What `edgetune tune` chose: kept, used from then on, and forgotten when anything that it depends on changes."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from conftest import TEXTS, mixed

from edgetune_runtime import Bundle, Engine, files, prepared, session, tuned
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.operators import ONNX_ATTENTION, OWN_ATTENTION
from edgetune_runtime.passes import Runner
from edgetune_runtime.setups import DEFAULT, Form, Setup

CHOSEN = Setup(Form(OWN_ATTENTION, fuses_normalization=True), {8: 1, 12: 2}, rows=3)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(files.CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tuned", "engine"):
        monkeypatch.setattr(f"edgetune_runtime.{module}.available_threads", lambda: 4)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Threads of each run, and the tokens of its texts."""
    found: list[tuple[int, list[int]]] = []
    run = Runner._run_batch

    def noted(self: Runner, precision: str, threads: int, batch: Any) -> np.ndarray:
        found.append((threads, [len(one.tokens.ids) for _, one in batch]))
        return run(self, precision, threads, batch)

    monkeypatch.setattr(Runner, "_run_batch", noted)
    return found


def records(cache: Path) -> list[Path]:
    return sorted((cache / "tuned").iterdir())


@pytest.mark.usefixtures("cache")
def test_what_is_chosen_is_kept_and_used(bundle: Bundle) -> None:
    tuned.save(bundle, "int8", CHOSEN, [])
    assert tuned.load(bundle, "int8") == CHOSEN
    assert tuned.load(bundle, "fp32") == DEFAULT
    with Engine(bundle) as engine:
        assert engine.setups == {"int8": CHOSEN, "fp32": DEFAULT}
        assert pickle.loads(pickle.dumps(engine)).setups == engine.setups


@pytest.mark.parametrize(("precision", "operator"), [("int8", OWN_ATTENTION), ("fp32", ONNX_ATTENTION)])
def test_the_graph_is_run_in_the_chosen_form(bundle: Bundle, cache: Path, precision: str, operator: str) -> None:
    with Engine(bundle, precision) as engine:
        expected = engine.embed(TEXTS, task="colour")
    before = set((cache / files.PREPARED).iterdir())
    tuned.save(bundle, precision, Setup(Form(operator)), [])
    with Engine(bundle, precision) as engine:
        np.testing.assert_array_equal(engine.embed(TEXTS, task="colour"), expected)
    (entry,) = set((cache / files.PREPARED).iterdir()) - before
    assert operator.encode() in (entry / files.PREPARED_GRAPH).read_bytes()


@pytest.mark.usefixtures("cache")
def test_a_form_that_is_not_kept_ready_is_made_in_memory(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.save(bundle, "int8", Setup(Form(OWN_ATTENTION)), [])
    monkeypatch.setattr(prepared, "_write", lambda *_: False)
    forms = []
    opened = session.open_session
    monkeypatch.setattr(session, "open_session", lambda *given: forms.append(given[5]) or opened(*given))
    with Engine(bundle, "int8") as engine:
        engine.classify(TEXTS[:1], task="colour")
    assert forms == [Form(OWN_ATTENTION)]


@pytest.mark.usefixtures("cache")
def test_a_lone_text_has_the_threads_of_its_length(bundle: Bundle, runs: list[tuple[int, list[int]]]) -> None:
    tuned.save(bundle, "int8", CHOSEN, [])
    with Engine(bundle, "int8") as engine:
        for text in TEXTS:
            engine.classify([text], task="colour")
    lengths = {tokens for _, (tokens,) in runs}
    assert min(lengths) <= 8 and max(lengths) > 12 and lengths & {9, 10, 11, 12}
    assert all(threads == (1 if tokens <= 8 else 2 if tokens <= 12 else 4) for threads, (tokens,) in runs)


@pytest.mark.usefixtures("cache")
def test_many_texts_share_runs_and_answer_to_the_bit(bundle: Bundle, runs: list[tuple[int, list[int]]]) -> None:
    given = mixed((text, task) for text in TEXTS * 4 for task in ("colour", "size"))
    given["texts"] = [f"{text} {'good ' * (place % 5)}" for place, text in enumerate(given["texts"])]
    with Engine(bundle, "fp32") as engine:
        expected = engine.classify(**given)
        assert {len(lengths) for _, lengths in runs} == {1}
        tuned.save(bundle, "fp32", Setup(rows=5), [])
    runs.clear()
    with Engine(bundle, "fp32") as engine:
        assert engine.classify(**given) == expected
        assert max(len(lengths) for _, lengths in runs) == 5
        assert all(max(lengths) <= 1.25 * min(lengths) for _, lengths in runs)
        runs.clear()
        engine.classify(TEXTS[:4], task="colour")  # on four threads
        tokens = engine.encode(TEXTS[:4], [engine.task("colour")] * 4)
        assert sorted(lengths for _, lengths in runs) == sorted([len(row.ids)] for row in tokens)


@pytest.mark.usefixtures("cache")
def test_texts_never_share_a_run_of_a_graph_whose_answers_would_depend_on_it(
    bundle: Bundle, runs: list[tuple[int, list[int]]]
) -> None:
    tuned.save(bundle, "int8", Setup(rows=5), [])
    with Engine(bundle, "int8") as engine:
        engine.classify(TEXTS, task="colour")
    assert {len(lengths) for _, lengths in runs} == {1}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threads": 4}, Setup(CHOSEN.form, {}, 3)),
        ({"batch_size": 1}, Setup(CHOSEN.form, CHOSEN.threads, 1)),
        ({"tuned": False}, DEFAULT),
        ({"prepare": False}, DEFAULT),
    ],
)
def test_what_the_user_says_wins(bundle: Bundle, given: dict[str, Any], expected: Setup) -> None:
    tuned.save(bundle, "fp32", CHOSEN, [])
    with Engine(bundle, "fp32", **given) as engine:
        assert engine.setups == {"fp32": expected}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("changed", ["graph", "CPU", "number of CPUs", "onnxruntime"])
def test_a_change_of_what_it_depends_on_forgets(here: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    tuned.save(Bundle(here), "int8", CHOSEN, [])
    assert tuned.load(Bundle(here), "int8") == CHOSEN
    if changed == "graph":
        graph = here / files.graph_file("int8")
        manifest = json.loads((here / files.MANIFEST).read_bytes())
        graph.write_bytes(graph.read_bytes() + b"\xa2\x06\x00")  # an empty field, which onnx skips
        manifest["files"][files.graph_file("int8")] = files.sha256(graph.read_bytes())
        (here / files.MANIFEST).write_text(json.dumps(manifest))
    elif changed == "CPU":
        monkeypatch.setattr(session, "_cpuinfo", lambda: ["model name: another"])
    elif changed == "number of CPUs":
        monkeypatch.setattr("edgetune_runtime.tuned.available_threads", lambda: 3)
    else:
        monkeypatch.setattr(ort, "__version__", "9.9.9")
    assert tuned.load(Bundle(here), "int8") == DEFAULT


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"setup": {"form": {"attention": "Magic", "fuses_normalization": false}, "threads": [], "rows": 1}}',
        b'{"setup": {"form": {"attention": "", "fuses_normalization": 1}, "threads": [], "rows": 1}}',
        b'{"setup": {"form": {"attention": "", "fuses_normalization": false}, "threads": [[20, 0]], "rows": 1}}',
        b'{"setup": {"form": {"attention": "", "fuses_normalization": false}, "threads": [20], "rows": 1}}',
        b'{"setup": {"form": {"attention": "", "fuses_normalization": false}, "threads": [], "rows": true}}',
        b'{"setup": {"form": {"attention": [], "fuses_normalization": false}, "threads": {}, "rows": 1}}',
    ],
)
def test_a_damaged_record_is_not_used_and_that_is_said(
    bundle: Bundle, cache: Path, caplog: pytest.LogCaptureFixture, record: bytes
) -> None:
    tuned.save(bundle, "int8", CHOSEN, [])
    (path,) = records(cache)
    path.write_bytes(record)
    with caplog.at_level(logging.WARNING, "edgetune.tuned"), Engine(bundle, "int8") as engine:
        assert engine.setups == {"int8": DEFAULT}
        assert engine.classify(TEXTS[:1], task="colour")
    (said,) = caplog.messages
    assert said.startswith(f"{path} is damaged and not used (") and said.endswith(f"tune {bundle.path}' again")


@pytest.mark.usefixtures("cache")
def test_a_choice_is_taken_back(bundle: Bundle) -> None:
    tuned.save(bundle, "int8", CHOSEN, [])
    assert tuned.forget(bundle, "int8")
    assert not tuned.forget(bundle, "int8")
    assert tuned.load(bundle, "int8") == DEFAULT


@pytest.mark.parametrize("cache", ["", "a file/cache"])
def test_without_a_folder_to_write_nothing_is_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.CACHE_VARIABLE, cache)
    with pytest.raises(EdgetuneError, match=r"EDGETUNE_CACHE"):
        tuned.check_kept(bundle, "int8")
    with pytest.raises(EdgetuneError, match=r"cannot be written|EDGETUNE_CACHE"):
        tuned.save(bundle, "int8", CHOSEN, [])
    assert tuned.load(bundle, "int8") == DEFAULT
    with Engine(bundle, "int8") as engine:
        assert engine.classify(TEXTS[:1], task="colour")
