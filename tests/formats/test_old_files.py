"""Bundles and tasks that edgetune 0.1 wrote (format version 1) can be read, and give the same answers.

`write_0_1.py` records how they were made. These tests take the users' view: existing files on devices and in stores
must keep working. If a test fails here, change the code, never the files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest
from safetensors import safe_open

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import TaskError
from edgetune_runtime.verify import findings

FILES = Path(__file__).parent / "0.1"
MOST_BYTES = 2_000_000
TEXTS = 9

RECORDED = 1e-5
"""Tolerance of fp32 logits and scores compared with the stored ones, which another CPU may have computed.

Random relative changes of the weights by 1e-7 changed the logits by up to 6e-6.
"""

KERNELS = 1e-6
"""Tolerance of logits, relative to max(1, |logit|), compared with plain onnxruntime on this computer."""

ROUNDED = 0.07
"""Tolerance of int8 and q4 logits compared with the stored ones, which another CPU may have computed.

If an activation is between two rounding steps, the last bits of earlier results decide. Random relative changes of the
weights by 1e-7 or 1e-6 (at least the difference between kernels) changed the logits of these bundles by up to 0.037, in
2% to 19% of the answers. q4 without rounded activations, which onnxruntime uses if it has no other kernel, changed them
by up to 0.040. This is as large as the difference between int8 and fp32, so only the comparison with onnxruntime on the
same computer (`KERNELS`) shows whether a precision is computed as before.
"""

Answer = dict[str, Any]
Array = np.ndarray
Engines = dict[tuple[str, str], Engine]


def recorded() -> dict[tuple[str, str, str], list[Answer]]:
    """(bundle, task file, precision) → the stored answers, one per text."""
    found: dict[tuple[str, str, str], list[Answer]] = {}
    for line in (FILES / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        found.setdefault((answer["bundle"], answer["file"], answer["precision"]), []).append(answer)
    return found


ANSWERS = recorded()
BUNDLES = sorted({bundle for bundle, _, _ in ANSWERS})
TASKS = sorted({(bundle, file) for bundle, file, _ in ANSWERS})
ALONE = sorted((bundle, file) for bundle, file in TASKS if file.startswith("tasks/"))


def name_of(file: str) -> str:
    """The name of a task here is its file's name."""
    return Path(file).stem


def ids(values: list[tuple[str, ...]]) -> list[str]:
    """Names of tests: bundle, task and precision."""
    return ["-".join([bundle, name_of(file), *more]) for bundle, file, *more in values]


every_bundle = pytest.mark.parametrize("bundle", BUNDLES)
every_task = pytest.mark.parametrize(("bundle", "file"), TASKS, ids=ids(TASKS))
every_answer = pytest.mark.parametrize(("bundle", "file", "precision"), sorted(ANSWERS), ids=ids(sorted(ANSWERS)))
every_single_file = pytest.mark.parametrize(("bundle", "file"), ALONE, ids=ids(ALONE))


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything, so that nothing is written here. Read-only."""
    return shutil.copytree(FILES, tmp_path_factory.mktemp("formats") / "0.1")


@pytest.fixture
def copied(bundle: str, tmp_path: Path) -> Path:
    """A copy of one bundle that may be changed."""
    return shutil.copytree(FILES / bundle, tmp_path / bundle)


@pytest.fixture(scope="module")
def engines(copies: Path) -> Iterator[Engines]:
    """(bundle, precision) → an engine, with the separate task files added under their file names."""
    opened = {}
    for bundle, _, precision in ANSWERS:
        if (bundle, precision) not in opened:
            opened[bundle, precision] = engine = Engine(copies / bundle, precision, threads=1)
            for owner, file in ALONE:
                if owner == bundle:
                    engine.add_task(copies / file, name_of(file))
    yield opened
    for engine in opened.values():
        engine.close()


@cache
def saturates() -> bool:
    """Whether large int8 products are wrong on this CPU unless onnxruntime is set to compute them exactly."""
    product = """
        <ir_version: 8, opset_import: ["" : 18]>
        product (uint8[1, 2] x) => (int32[1, 1] z) <int8[2, 1] y = {127, 127}> { z = MatMulInteger(x, y) }
    """
    opened = ort.InferenceSession(onnx.parser.parse_model(product).SerializeToString())
    return opened.run(None, {"x": np.full((1, 2), 255, np.uint8)})[0].item() != 2 * 255 * 127


@cache
def session(bundle: str, precision: str) -> ort.InferenceSession:
    """The graph, opened as by a program that has only onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    name = "model.onnx" if precision == "fp32" else f"model_{precision}.onnx"
    return ort.InferenceSession(
        FILES / bundle / "onnx" / name,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )


def bank(file: Path) -> dict[str, Array]:
    """A bank of one task, as in format version 1, without using the library."""
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
    given = {
        name: tensors[name][None]
        for name in ("prompt_embeddings", "prefix_keys", "prefix_values", "head_weight", "head_bias")
        if name in tensors
    }
    if "prompt_embeddings" in given:
        given["prompt_mask"] = np.ones((1, given["prompt_embeddings"].shape[1]), np.int64)
    if "prefix_keys" in given:
        given["prefix_mask"] = np.ones((1, given["prefix_keys"].shape[3]), np.int64)
    poolings = ["cls", "mean", "last", "mask", "decoder", "pooler"]
    given["pooling"] = np.array([poolings.index(metadata["pooling"])], np.int64)
    given["position_offset"] = np.array([int(metadata["position_offset"])], np.int64)
    return given


def plain_logits(bundle: str, precision: str, given: dict[str, Array], tokens: list[int]) -> Array:
    """Logits of plain onnxruntime for one text. Missing parts of a task use the graph's default."""
    text = {
        "input_ids": np.array([tokens], np.int64),
        "attention_mask": np.ones((1, len(tokens)), np.int64),
        "task_index": np.zeros(1, np.int64),
    }
    (logits,) = session(bundle, precision).run(["logits"], {**text, **given})
    return logits[0]


def assert_same_numbers(got: Array, expected: Array) -> None:
    """Logits equal those of the same graph on the same computer, except for the order in which a kernel adds.

    The tolerance only covers kernels: if an engine computes part of the graph, such as the head, in another way, the
    last bits differ. Wrong reading, padding or positions would cause far larger differences.
    """
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype == np.float32
    difference = np.abs(got - expected) / np.maximum(1, np.abs(expected))
    assert difference.max() <= KERNELS


def softmax(logits: Array, file: Path) -> list[float]:
    """Scores, from logits and the stored temperature."""
    with safe_open(file, "np") as opened:
        weights = np.exp(logits.astype(np.float64) / float(opened.metadata()["temperature"]))
    return list(weights / weights.sum())


def columns(answers: list[Answer], name: str) -> list[Any]:
    return [answer[name] for answer in answers]


def labels_of(file: Path) -> list[str]:
    with safe_open(file, "np") as opened:
        return json.loads(opened.metadata()["labels"])


class TestFiles:
    def test_they_are_the_ones_that_were_written(self) -> None:
        lines = (FILES / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = {
            path.relative_to(FILES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in FILES.rglob("*")
            if path.is_file() and path.name != "SHA256SUMS"
        }
        assert found == written

    def test_they_are_small(self) -> None:
        assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < MOST_BYTES

    def test_each_task_has_answers(self) -> None:
        files = {path.relative_to(FILES).as_posix() for path in FILES.rglob("*.safetensors")}
        assert files == {file for _, file in TASKS}
        assert {len(answers) for answers in ANSWERS.values()} == {TEXTS}
        for bundle, file in TASKS:
            manifest = json.loads((FILES / bundle / "edgetune.json").read_bytes())
            assert manifest["format_version"] == 1
            assert {one for owner, name, one in ANSWERS if (owner, name) == (bundle, file)} == set(manifest["graphs"])


class TestBundles:
    @every_bundle
    def test_it_opens_and_is_sound(self, copied: Path, bundle: str) -> None:
        faults = [finding for finding in findings(copied) if finding.status == "fault"]
        assert faults == []
        written = json.loads((copied / "edgetune.json").read_bytes())
        manifest = Bundle(copied).manifest
        assert manifest.facts.name == f"tiny-{bundle}"
        assert manifest.facts.sha256 == written["backbone_sha256"]
        assert set(manifest.graphs) == set(written["graphs"])

    @every_bundle
    def test_the_command_line_lists_all_of_its_tasks(self, copied: Path, bundle: str) -> None:
        done = run("tasks", "list", copied, "--json")
        assert done.returncode == 0, done.stderr
        listed = json.loads(done.stdout)
        names = sorted(name_of(file) for owner, file in TASKS if owner == bundle and (owner, file) not in ALONE)
        assert [task["task"] for task in listed["tasks"]] == names
        assert listed["unusable"] == []

    @every_bundle
    def test_the_command_line_answers_as_it_did(self, copies: Path, bundle: str) -> None:
        """A row for each task of the bundle; the first names none."""
        files = [file for owner, file in TASKS if owner == bundle and (owner, file) not in ALONE]
        answers = [ANSWERS[bundle, file, "fp32"][place % TEXTS] for place, file in enumerate(files)]
        rows = [{"id": file, "text": answer["text"]} for file, answer in zip(files, answers, strict=True)]
        rows[1:] = [row | {"task": name_of(row["id"])} for row in rows[1:]]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        done = run("classify", copies / bundle, "--task", name_of(files[0]), "--precision", "fp32", text=text)
        assert done.returncode == 0, done.stderr
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        for file, row, answer in zip(files, printed, answers, strict=True):
            assert_printed(row, file, answer)

    @every_bundle
    def test_a_mixed_call_answers_each_text_as_alone(self, engines: Engines, bundle: str) -> None:
        engine = engines[bundle, "fp32"]
        rows = [
            (answer["text"], name_of(file), answer)
            for place in range(TEXTS)
            for owner, file in TASKS
            if owner == bundle
            for answer in [ANSWERS[bundle, file, "fp32"][place]]
        ]
        together = engine.classify([text for text, _, _ in rows], tasks=[task for _, task, _ in rows])
        for result, (text, task, answer) in zip(together, rows, strict=True):
            (alone,) = engine.classify([text], task)
            assert (result.task, result.label, result.truncated) == (task, answer["label"], answer["truncated"])
            assert list(result.scores.values()) == pytest.approx(answer["scores"], abs=RECORDED)
            assert result.label == alone.label
            assert result.scores == pytest.approx(alone.scores, abs=1e-6)

    @every_bundle
    def test_one_run_of_many_tasks_answers_each_as_alone(self, copies: Path, bundle: str) -> None:
        """Texts and prompts of unequal length share a run, if there are enough positions."""
        files = [file for owner, file in TASKS if owner == bundle]
        with Engine(copies / bundle, "fp32", threads=1, batch_size=16) as engine:
            tasks = {file: engine.add_task(copies / file, name_of(file)) for file in files}
            answers = [(tasks[file], answer) for file in files for answer in ANSWERS[bundle, file, "fp32"]]
            assert len(answers) == TEXTS * len(files)
            if bundle != "t5":  # its positions are relative
                longest = max(len(answer["ids"]) for _, answer in answers)
                assert longest == engine.bundle.facts.max_positions
            got = engine.run([(answer["ids"], task) for task, answer in answers])
        for logits, (_, answer) in zip(got, answers, strict=True):
            np.testing.assert_allclose(logits, answer["logits"], rtol=0, atol=RECORDED)

    @every_bundle
    def test_it_refuses_the_tasks_of_others(self, copied: Path, bundle: str) -> None:
        opened = Bundle(copied)
        before = opened.task_names()
        with Engine(copied, "fp32", threads=1) as engine:
            for owner, file in TASKS:
                if owner != bundle:
                    with pytest.raises(TaskError, match=f"was trained on the backbone tiny-{owner} "):
                        engine.add_task(FILES / file)
                    with pytest.raises(TaskError, match=f"was trained on the backbone tiny-{owner} "):
                        opened.add_task(Task.load(FILES / file))
        assert opened.task_names() == before


class TestTasks:
    @every_answer
    def test_it_answers_as_it_did(self, engines: Engines, bundle: str, file: str, precision: str) -> None:
        engine, answers = engines[bundle, precision], ANSWERS[bundle, file, precision]
        texts, task = columns(answers, "text"), engine.task(name_of(file))
        tokens = engine.encode(texts, [task] * len(texts))
        assert [row.ids for row in tokens] == columns(ANSWERS[bundle, file, "fp32"], "ids")
        results = engine.classify(texts, name_of(file))
        assert [result.truncated for result in results] == columns(answers, "truncated")
        assert all(list(result.scores) == labels_of(FILES / file) for result in results)
        logits = engine.run([(row.ids, task) for row in tokens])
        for row, result, got, answer in zip(tokens, results, logits, answers, strict=True):
            assert_same_numbers(got, plain_logits(bundle, precision, bank(FILES / file), row.ids))
            assert_as_recorded(got, result.label, list(result.scores.values()), answer)
            assert list(result.scores.values()) == pytest.approx(softmax(got, FILES / file), abs=1e-6)

    @every_task
    def test_it_comes_back_as_it_was_written(self, tmp_path: Path, bundle: str, file: str) -> None:
        """Its fields and tensors are those of the file, and a newly written copy gives the same answers."""
        task = Task.load(FILES / file)
        with safe_open(FILES / file, "np") as opened:
            metadata = opened.metadata()
            assert set(task.tensors) == set(opened.keys())
            for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                np.testing.assert_array_equal(task.tensors[name], opened.get_tensor(name))
        assert (task.name, list(task.labels)) == (metadata["task"], json.loads(metadata["labels"]))
        assert task.metrics == json.loads(metadata["metrics"])
        for name in ("backbone_sha256", "method", "base_model", "pooling", "template"):
            assert getattr(task, name) == metadata[name]
        for name in ("position_offset", "max_length", "temperature"):
            assert str(getattr(task, name)) == metadata[name]
        assert (task.kind_name, task.thresholds, task.pairs, task.requires) == ("single-label", (), False, ())
        assert task.to_bytes() == (FILES / file).read_bytes()
        task.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (FILES / file).read_bytes()
        with Engine(FILES / bundle, "fp32", threads=1, prepare=False) as engine:
            again = engine.add_task(tmp_path / "again.safetensors", "again")
            answers = ANSWERS[bundle, file, "fp32"]
            logits = engine.run([(answer["ids"], again) for answer in answers])
        np.testing.assert_allclose(logits, columns(answers, "logits"), rtol=0, atol=RECORDED)

    @every_single_file
    def test_the_command_line_takes_a_single_file(self, copies: Path, bundle: str, file: str) -> None:
        answer = ANSWERS[bundle, file, "fp32"][3]
        row = json.dumps({"id": file, "text": answer["text"]})
        done = run("classify", copies / bundle, "--task", copies / file, "--precision", "fp32", text=row)
        assert done.returncode == 0, done.stderr
        assert_printed(json.loads(done.stdout), file, answer)

    @every_single_file
    def test_a_single_file_goes_into_its_bundle_under_another_name(self, copied: Path, bundle: str, file: str) -> None:
        done = run("tasks", "add", copied, FILES / file, "--name", "another")
        assert done.returncode == 0, done.stderr
        assert "another" in Bundle(copied).task_names()
        answers = ANSWERS[bundle, file, "fp32"]
        with Engine(copied, "fp32", threads=1) as engine:
            results = engine.classify(columns(answers, "text"), "another")
        for result, answer in zip(results, answers, strict=True):
            assert (result.task, result.label) == ("another", answer["label"])
            assert list(result.scores.values()) == pytest.approx(answer["scores"], abs=RECORDED)

    def test_the_adapter_answers_as_it_did_in_onnxruntime_alone(self) -> None:
        adapter = ort.LoraAdapter()
        adapter.Load(str(FILES / "tasks/bert-alone.onnx_adapter"))
        options = ort.RunOptions()
        options.add_active_adapter(adapter)
        for answer in ANSWERS["bert", "tasks/bert-alone.safetensors", "fp32"]:
            text = {
                "input_ids": np.array([answer["ids"]], np.int64),
                "attention_mask": np.ones((1, len(answer["ids"])), np.int64),
                "task_index": np.zeros(1, np.int64),
            }
            ((logits,),) = session("bert", "fp32").run(["logits"], text, options)
            np.testing.assert_allclose(logits, answer["logits"], rtol=0, atol=RECORDED)


def assert_printed(row: Answer, file: str, answer: Answer) -> None:
    """The command line prints the stored answer for a row."""
    with safe_open(FILES / file, "np") as opened:
        task = opened.metadata()["task"]
    assert (row["id"], row["task"], row["label"]) == (file, task, answer["label"])
    assert row["status"] == ("truncated" if answer["truncated"] else "ok")
    assert list(row["scores"]) == labels_of(FILES / file)
    assert list(row["scores"].values()) == pytest.approx(answer["scores"], abs=RECORDED)


def assert_as_recorded(logits: Array, label: str | None, scores: list[float], answer: Answer) -> None:
    """An answer equals the stored one.

    In fp32, up to the last bits. int8 and q4 round activations, and on another CPU a few are rounded differently (see
    `ROUNDED`), so labels are compared only if the two best logits differ by more than that.
    """
    expected = np.array(answer["logits"], np.float32)
    atol = RECORDED if answer["exact"] else ROUNDED
    np.testing.assert_allclose(logits, expected, rtol=0, atol=atol)
    second, best = np.partition(expected, -2)[-2:]
    if best - second > 2 * atol:
        assert label == answer["label"]
    if answer["exact"]:
        assert label == answer["label"]
        assert scores == pytest.approx(answer["scores"], abs=RECORDED)


def run(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run `edgetune` in a separate process."""
    command = [sys.executable, "-m", "edgetune", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=False)
