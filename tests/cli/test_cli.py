"""The command line, run as users run it: results on stdout, one line per error, nothing half written."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TEXTS, LanguageModelFolder, MakeTask, save_tokenizer
from safetensors.numpy import load_file, save_file

from edgetune.cli import cli
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.metrics import calibration_error

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*arguments: object, text: str = "", without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `edgetune` in a separate process in which the modules in `without` cannot be imported."""
    program = f"import sys\nfor name in {without!r}: sys.modules[name] = None\nfrom edgetune.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], input=text, capture_output=True, text=True, check=False
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one-line message of an error that the user can act on."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgetune: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": f"label{place % 3}"} for place, text in enumerate(TEXTS * 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


COMMANDS = (
    ["train"], ["export"], ["classify"], ["score"], ["serve"], ["evaluate"], ["bench"], ["tune"], ["verify"], ["demo"],
    ["tasks"], ["tasks", "list"], ["tasks", "show"], ["tasks", "add"], ["tasks", "remove"],
    ["tasks", "export-adapter"], ["tasks", "create"], ["tasks", "import-peft"], ["tasks", "export-peft"],
    ["tasks", "sync"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_needs_no_heavy_package_and_has_an_example(command: list[str]) -> None:
    heavy = ("torch", "transformers", "onnx", "onnxruntime", "numpy", "tokenizers", "matplotlib", "uvicorn")
    heavy += ("pyarrow", "ray", "fsspec")
    done = run(*command, "--help", without=heavy)
    assert done.returncode == 0, done.stderr
    if command != ["tasks"]:
        assert f"edgetune {' '.join(command)} " in done.stdout.partition("Example:")[2]


def test_the_readme_shows_the_commands_that_exist() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `([a-z]+)[^`]*` \|", readme.partition("## What there is")[2].partition("## Install")[0], re.MULTILINE
    )
    offered = re.findall(r"^  ([a-z]+)  ", run("--help").stdout.partition("Options:\n")[2], re.MULTILINE)
    assert set(listed) == set(offered) and len(offered) == len(cli.commands)


def test_the_help_of_a_group_has_whole_sentences() -> None:
    for group in (cli, cli.commands["tasks"]):
        options, *sections = CliRunner().invoke(group, ["--help"]).stdout.partition("Options:\n")[2].split("\n\n")
        assert options.rstrip().endswith("Show this message and exit.")
        assert all(re.match(r"\S.*:\n(?:.*:\n)?  [a-z]", section) for section in sections), "each has a heading"
        sentences = [one for section in sections for one in re.split(r"\n  (?=\S)", section.strip())[1:]]
        assert len(sentences) == len(group.commands)
        assert all(sentence.rstrip().endswith(".") and "..." not in sentence for sentence in sentences)


@pytest.mark.parametrize(("engine", "package", "extra"), [("local", "pyarrow", "score"), ("ray", "ray", "ray")])
def test_score_names_the_package_that_it_lacks(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, engine: str, package: str, extra: str
) -> None:
    arguments = ("score", bundle_folder, rows_file, "--task", "colour", "--out", tmp_path / "out", "--engine", engine)
    message = refused(run(*arguments, without=(package,)))
    assert f"'{package}' is needed for this and is not installed: pip install 'edgetune[{extra}]'" in message


def test_the_runtime_loads_no_training_package() -> None:
    program = (
        "import sys, edgetune_runtime, edgetune_runtime.engine\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'onnx', 'optimum')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class TestClassify:
    def test_lines_give_json_in_order_without_torch(self, bundle_folder: Path) -> None:
        done = run(
            "classify", bundle_folder, "--task", "colour", text="\n".join(TEXTS), without=("torch", "transformers")
        )
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        with Engine(bundle_folder) as engine:
            expected = engine.classify(TEXTS, task="colour")
        assert [answer["id"] for answer in answers] == list(range(1, len(TEXTS) + 1))
        assert [answer["label"] for answer in answers] == [result.label for result in expected]
        for answer, result in zip(answers, expected, strict=True):
            assert answer["scores"] == pytest.approx(result.scores, abs=1e-5)
            assert (answer["task"], answer["status"]) == ("colour", "ok")

    def test_rows_may_name_their_task_and_bad_rows_stop_nothing(self, bundle_folder: Path) -> None:
        rows = [
            '{"id": "a", "text": "good", "task": "size"}',
            '{"id": "b", "text": null}',
            "{not json",
            '{"id": NaN, "text": "good"}',
            '{"id": "c", "text": "good", "task": "\\ud800"}',
            '{"id": "d", "text": "good", "task": "nothing"}',
            json.dumps({"id": [5], "text": "lamp " * 900}),
        ]
        done = run("classify", bundle_folder, "--task", "colour", "-", text="\n".join(rows))
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(answer["id"], answer["status"]) for answer in answers] == [
            ("a", "ok"), ("b", "error"), (None, "error"), ("nan", "ok"), ("c", "error"), ("d", "error"),
            ([5], "truncated"),
        ]  # fmt: skip
        assert [answer.get("line") for answer in answers] == [None, 2, 3, None, 5, 6, None]
        assert answers[0]["task"] == "size"
        assert "no task 'nothing'" in answers[5]["error"]
        assert "7 rows" in done.stderr
        assert "4 error" in done.stderr

    def test_a_file_is_read_by_its_form(self, bundle_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "reviews.csv"
        path.write_bytes('id;review;stars\nx;gut, größe;5\ny;"good\nlamp";4\nz;bad;;\n'.encode("cp1252"))
        arguments = ("classify", bundle_folder, path, "--task", "colour", "--text-column", "review")
        done = run(*arguments, "--encoding", "cp1252")
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(answer["id"], answer["status"]) for answer in answers] == [("x", "ok"), ("y", "ok"), (None, "error")]
        assert answers[2]["line"] == 5
        assert "semicolons separate the fields" in done.stderr
        with Engine(bundle_folder) as engine:
            expected = engine.classify(["gut, größe", "good\nlamp"], "colour")
        assert [answer["label"] for answer in answers[:2]] == [result.label for result in expected]
        undecoded = json.loads(run(*arguments, "--delimiter", ";").stdout.splitlines()[0])
        assert "is not UTF-8 text" in undecoded["error"]

    def test_a_text_that_is_too_long_is_a_bad_row(self, bundle_folder: Path) -> None:
        done = run("classify", bundle_folder, "--task", "colour", "--max-characters", 10, text="good\n" + "b" * 11)
        first, second = map(json.loads, done.stdout.splitlines())
        assert (first["status"], second["status"]) == ("ok", "error")
        assert second["error"] == "a text of 11 characters: expected at most 10"
        long = json.loads(run("classify", bundle_folder, "--task", "colour", text="b" * 100_001).stdout)
        assert long["error"] == "a text of 100,001 characters: expected at most 100,000"

    @pytest.mark.parametrize(
        ("text", "status"), [("{", 1), ('{"text": 1}\n{"text": 2}', 1), ('{"text": "a"}\n{', 0), ("", 0)]
    )
    def test_the_exit_status_is_1_if_every_row_failed(self, bundle_folder: Path, text: str, status: int) -> None:
        done = run("classify", bundle_folder, "--task", "colour", text=text)
        assert done.returncode == status
        assert ("no row was classified" in done.stderr) == bool(status)

    def test_rows_below_the_min_score_abstain(self, bundle_folder: Path) -> None:
        long = "lamp " * 900
        with Engine(bundle_folder) as engine:
            expected = engine.classify([*TEXTS, long], task="colour")
        tops = [max(result.scores.values()) for result in expected]
        for least in (sum(sorted(tops)[3:5]) / 2, 1):
            done = run(
                "classify", bundle_folder, "--task", "colour", "--min-score", least, text="\n".join([*TEXTS, long])
            )
            answers = [json.loads(line) for line in done.stdout.splitlines()]
            for answer, result, top in zip(answers, expected, tops, strict=True):
                assert answer["label"] == (None if top < least else result.label)
                assert answer["scores"] == pytest.approx(result.scores, abs=1e-5)
                answered = "truncated" if result.truncated else "ok"
                assert answer["status"] == ("abstained" if top < least else answered)
            abstained = sum(top < least for top in tops)
            assert abstained > 0
            assert f"{abstained} abstained" in done.stderr
        # At 1 the truncated text abstains too, and its status says so.
        assert answers[-1]["status"] == "abstained"

    def test_a_min_score_that_is_no_probability(self, bundle_folder: Path) -> None:
        assert run("classify", bundle_folder, "--task", "colour", "--min-score", 1.5, text="a").returncode == 2
        message = refused(run("classify", bundle_folder, "--task", "colour", "--min-score", "nan", text="a"))
        assert "min_score is nan: expected a probability" in message

    def test_a_task_file_will_do(self, bundle_folder: Path, make_task: MakeTask, tmp_path: Path) -> None:
        make_task("mine").save(tmp_path / "mine.safetensors")
        done = run(
            "classify", bundle_folder, "--task", tmp_path / "mine.safetensors", "--precision", "fp32", text="good"
        )
        assert json.loads(done.stdout)["task"] == "mine"

    def test_a_slow_stream_is_answered_line_by_line(self, bundle_folder: Path) -> None:
        command = [sys.executable, "-m", "edgetune", "classify", str(bundle_folder), "--task", "colour"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for place in range(3):
                process.stdin.write(b"a line\n")
                process.stdin.flush()
                assert json.loads(process.stdout.readline())["id"] == place + 1
            process.stdin.close()
        assert process.returncode == 0


class TestEvaluate:
    def test_figures(self, bundle_folder: Path, rows_file: Path) -> None:
        done = run("evaluate", bundle_folder, "--task", "colour", "--data", rows_file, "--json", without=("torch",))
        report = json.loads(done.stdout)
        with Engine(bundle_folder) as engine:
            answers = [result.label for result in engine.classify(TEXTS * 3, task="colour")]
        right = [f"label{place % 3}" for place in range(len(TEXTS) * 3)]
        assert report["accuracy"] == sum(a == b for a, b in zip(answers, right, strict=True)) / len(right)
        assert sum(map(sum, report["confusion"])) == report["rows"] == len(right)

    def test_calibration_and_answered_rows(self, bundle_folder: Path, rows_file: Path) -> None:
        with Engine(bundle_folder) as engine:
            results = engine.classify(TEXTS * 3, task="colour")
        right = [result.label == f"label{place % 3}" for place, result in enumerate(results)]
        tops = [max(result.scores.values()) for result in results]
        least = sum(sorted(tops)[11:13]) / 2
        arguments = ("evaluate", bundle_folder, "--task", "colour", "--data", rows_file)
        plain = json.loads(run(*arguments, "--json").stdout)
        report = json.loads(run(*arguments, "--min-score", least, "--json").stdout)
        answered = [hit for hit, top in zip(right, tops, strict=True) if top >= least]
        assert 0 < len(answered) < len(right)
        assert report["coverage"] == pytest.approx(len(answered) / len(right))
        assert report["accuracy_answered"] == pytest.approx(sum(answered) / len(answered))
        assert report["ece"] == pytest.approx(calibration_error(np.array(tops), np.array(right)), abs=1e-5)
        assert report["ece"] > 0
        timing = {"rows_per_second"}
        extra = {"min_score", "coverage", "accuracy_answered"}
        assert {key: value for key, value in report.items() if key not in timing | extra} == {
            key: value for key, value in plain.items() if key not in timing
        }
        shown = run(*arguments, "--min-score", least).stdout
        assert f"ECE {report['ece']:.3f}" in shown
        assert f"{len(answered)} of {len(right)} rows answered" in shown

    def test_no_row_answered(self, bundle_folder: Path, rows_file: Path) -> None:
        arguments = ("evaluate", bundle_folder, "--task", "colour", "--data", rows_file, "--min-score", 1)
        report = json.loads(run(*arguments, "--json").stdout)
        assert (report["coverage"], report["accuracy_answered"]) == (0, None)
        assert "0 of 24 rows answered (coverage 0.000)\n" in run(*arguments).stdout

    def test_a_text_that_fails_is_left_out_and_said(self, bundle_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("text,label\ngood,label0\n" + "b" * 20 + ",label1\nbad,label2\n")
        arguments = ("evaluate", bundle_folder, "--task", "colour", "--data", path, "--json")
        done = run(*arguments, "--max-characters", 10)
        report = json.loads(done.stdout)
        assert (report["rows"], report["errors"]) == (2, 1)
        assert sum(map(sum, report["confusion"])) == 2
        assert f"1 of 3 rows are errors, which the figures leave out; the first: {path}, line 3: a text" in done.stderr
        assert "no row was classified" in refused(run(*arguments, "--max-characters", 1))

    def test_table(self, bundle_folder: Path, rows_file: Path) -> None:
        done = run("evaluate", bundle_folder, "--task", "colour", "--data", rows_file)
        assert "accuracy 0." in done.stdout
        assert "label2" in done.stdout

    def test_a_label_that_the_task_has_not(self, bundle_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "odd.csv"
        path.write_text("text,label\nhello,purple\n")
        message = refused(run("evaluate", bundle_folder, "--task", "colour", "--data", path))
        assert "labels that the task 'colour' does not have: purple; it has label0, label1, label2" in message


class TestTasks:
    def test_add_list_show_remove(self, bundle_folder: Path, make_task: MakeTask, tmp_path: Path) -> None:
        folder = tmp_path / "bundle"
        shutil.copytree(bundle_folder, folder)
        make_task("mine").save(tmp_path / "mine.safetensors")
        assert "task 'yours'" in run("tasks", "add", folder, tmp_path / "mine.safetensors", "--name", "yours").stdout
        listed = json.loads(run("tasks", "list", folder, "--json").stdout)
        assert [task["task"] for task in listed["tasks"]] == ["colour", "size", "yours"]
        assert "yours" in run("tasks", "list", folder).stdout
        assert json.loads(run("tasks", "show", folder, "yours", "--json").stdout)["prefix_length"] == 5
        assert "label0, label1, label2" in run("tasks", "show", folder, "yours").stdout
        assert run("tasks", "remove", folder, "yours").returncode == 0
        assert "has colour, size" in refused(run("tasks", "remove", folder, "yours"))

    def test_the_list_goes_on_where_a_file_cannot_be_used(self, bundle_folder: Path, tmp_path: Path) -> None:
        folder = tmp_path / "bundle"
        shutil.copytree(bundle_folder, folder)
        (folder / "tasks" / "broken.safetensors").write_bytes(b"nothing")
        (folder / "tasks" / "folder.safetensors").mkdir()
        listed = json.loads(run("tasks", "list", folder, "--json").stdout)
        assert [task["task"] for task in listed["tasks"]] == ["colour", "size"]
        assert [task["task"] for task in listed["unusable"]] == ["broken", "folder"]
        done = run("tasks", "list", folder)
        assert "colour" in done.stdout
        assert "broken.safetensors is not a whole task file" in done.stderr


class TestExportAdapter:
    def test_file_and_json(self, bundle_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "colour.onnx_adapter"
        done = run("tasks", "export-adapter", bundle_folder, "colour", "--out", out, without=("torch", "onnx"))
        assert done.returncode == 0, done.stderr
        assert "task 'colour'" in done.stdout
        assert "labels label0, label1, label2" in done.stdout
        done = run("tasks", "export-adapter", bundle_folder, "colour", "--out", out, "--json")
        report = json.loads(done.stdout)
        assert (report["file"], report["bytes"]) == (str(out), out.stat().st_size)
        assert report["labels"] == ["label0", "label1", "label2"]

    def test_what_cannot_be_written(self, bundle_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "some.onnx_adapter"
        assert "no task 'some'" in refused(run("tasks", "export-adapter", bundle_folder, "some", "--out", out))
        (tmp_path / "file").write_text("")
        message = refused(run("tasks", "export-adapter", bundle_folder, "colour", "--out", tmp_path / "file" / "out"))
        assert "file/out cannot be written" in message
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


class TestCreate:
    words = ("--label-words", "good=great,well", "--label-words", "bad=broken")

    def test_a_task_of_label_words_is_answered_by_a_bundle(
        self, language_model_folder: LanguageModelFolder, tmp_path: Path
    ) -> None:
        model, out = language_model_folder("bert"), tmp_path / "mood.safetensors"
        texts = tmp_path / "texts.txt"
        texts.write_text("\n".join(TEXTS))
        template = ("--template", "{text} it was {mask}.")
        done = run("tasks", "create", model, "--task", "mood", "--out", out, *template, *self.words,
                   "--calibrate", texts, "--prompt", "the camera", "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert (record["labels"], record["pooling"], record["calibrated_on"]) == (["good", "bad"], "mask", len(TEXTS))
        exported = run("export", model, tmp_path / "bundle", "--task", out, "--precision", "fp32", "--json")
        assert exported.returncode == 0, exported.stderr
        assert json.loads(exported.stdout)["graphs"]["fp32"]["parity"]["mood"]["max_logit_difference"] < 1e-4
        done = run("classify", tmp_path / "bundle", "--task", "mood", text="\n".join(TEXTS), without=("torch",))
        scores = np.array([list(json.loads(line)["scores"].values()) for line in done.stdout.splitlines()])
        assert scores.shape == (len(TEXTS), 2)
        np.testing.assert_allclose(scores.mean(axis=0), 0.5, atol=0.05)

    def test_what_is_missing_is_said(self, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "mood.safetensors"
        base = ("tasks", "create", model_folder, "--task", "mood", "--out", out)
        assert "expected descriptions of the labels, as --describe" in run(*base).stderr
        assert "no language-model head, so it says no words" in refused(run(*base, *self.words))
        assert "none.txt cannot be read" in refused(run(*base, *self.words, "--calibrate", tmp_path / "none.txt"))
        assert not out.exists()


class TestTrainTogether:
    def test_several_tasks_need_a_file_each(self, model_folder: Path, rows_file: Path, tmp_path: Path) -> None:
        base = ("train", model_folder, "--data", rows_file, "--data", rows_file, "--task", "a", "--task", "b")
        done = run(*base, "--out", tmp_path / "a.safetensors")
        assert done.returncode == 2
        assert "2 --data, 2 --name, 1 --out, 0 --eval-data: expected one of each for each task" in done.stderr
        outs = [tmp_path / f"{name}.safetensors" for name in "ab"]
        more = ("--out", outs[0], "--out", outs[1], "--epochs", 1, "--method", "p-tuning-v2", "--json")
        done = run(*base, *more)
        assert done.returncode == 0, done.stderr
        assert [record["task"] for record in json.loads(done.stdout)["tasks"]] == ["a", "b"]
        assert [Task.load(out).method for out in outs] == ["p-tuning-v2"] * 2


class TestBench:
    def test_table_plot_and_json(self, bundle_folder: Path, model_folder: Path, tmp_path: Path) -> None:
        plot = tmp_path / "latency.png"
        done = run(
            "bench", bundle_folder, "--prompt-lengths", "0,3", "--sequence-lengths", "8", "--batch-sizes", "1,2",
            "--seconds-per-cell", 0, "--against-torch", model_folder, "--plot", plot,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        assert [(cell["method"], cell["prompt_length"]) for cell in report["cells"]] == [
            ("prefix", 0), ("prefix", 3), ("prompt", 3),
        ] * 2  # fmt: skip
        for cell in report["cells"]:
            assert set(cell["contenders"]) == {"torch", "fp32", "int8"}
            assert cell["contenders"]["torch"]["ratio"] == 1
            assert cell["contenders"]["int8"]["median_ms"] > 0
        assert plot.read_bytes().startswith(b"\x89PNG")

    def test_lengths_beyond_the_backbone_are_refused(self, bundle_folder: Path) -> None:
        message = refused(run("bench", bundle_folder, "--prompt-lengths", "40", "--sequence-lengths", "32"))
        assert "of 72 tokens are longer than tiny-bert reads: at most 64" in message

    def test_another_backbone_is_refused(self, bundle_folder: Path, model_folder: Path, tmp_path: Path) -> None:
        import torch
        from transformers import BertModel

        model = BertModel.from_pretrained(model_folder)
        with torch.no_grad():
            model.embeddings.word_embeddings.weight += 1
        shutil.copytree(model_folder, tmp_path / "other")
        model.save_pretrained(tmp_path / "other")
        done = run(
            "bench", bundle_folder, "--against-torch", tmp_path / "other", "--seconds-per-cell", 0,
            "--prompt-lengths", "0", "--sequence-lengths", "8",
        )  # fmt: skip
        assert "is not the backbone that the bundle was exported from" in refused(done)


class TestPeft:
    @pytest.fixture
    def decoder(self, tmp_path: Path) -> Path:
        from transformers import GPT2Config, GPT2LMHeadModel

        folder = tmp_path / "tiny-gpt2"
        vocabulary = save_tokenizer(folder)
        config = GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
        GPT2LMHeadModel(config).save_pretrained(folder)
        return folder

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Path:
        """A PEFT adapter of a sequence classifier with a prefix of 5."""
        folder = tmp_path / "mood"
        folder.mkdir()
        config = {
            "base_model_name_or_path": "somebody/tiny-gpt2", "inference_mode": True, "num_attention_heads": 4,
            "num_layers": 2, "num_transformer_submodules": 1, "num_virtual_tokens": 5, "peft_type": "PREFIX_TUNING",
            "prefix_projection": False, "task_type": "SEQ_CLS", "token_dim": 32,
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(config))
        random = np.random.default_rng(0)
        shapes = {"prompt_embeddings": (5, 128), "base_model.score.weight": (2, 32)}
        tensors = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    def test_there_and_back_without_peft(self, decoder: Path, adapter: Path, tmp_path: Path) -> None:
        out, again = tmp_path / "task.safetensors", tmp_path / "again"
        done = run(
            "tasks", "import-peft", adapter, "--model", decoder, "--labels", "bad,good", "--max-length", 20,
            "--out", out, without=("peft",),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "task 'mood' from PREFIX_TUNING for SEQ_CLS, 5 virtual tokens, labels bad, good" in done.stdout
        task = Task.load(out)
        assert (task.name, task.labels, task.prefix_length, task.max_length) == ("mood", ("bad", "good"), 5, 20)
        done = run("tasks", "export-peft", out, "--model", decoder, "--out", again, "--json", without=("peft",))
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["peft_type"], report["task_type"], report["head_beside"]) == ("PREFIX_TUNING", "SEQ_CLS", False)
        tensors = [load_file(folder / "adapter_model.safetensors") for folder in (adapter, again)]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        assert "again already exists" in refused(run("tasks", "export-peft", out, "--model", decoder, "--out", again))

    def test_low_rank_there_and_back(self, decoder: Path, adapter: Path, tmp_path: Path) -> None:
        config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2, "lora_alpha": 2, "target_modules": ["c_attn"]}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        layer = "base_model.model.transformer.h.1.attn.c_attn.lora_"
        shapes = {f"{layer}A.weight": (2, 32), f"{layer}B.weight": (96, 2), "base_model.model.score.weight": (2, 32)}
        random = np.random.default_rng(0)
        tensors = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        save_file(tensors, adapter / "adapter_model.safetensors")
        out, again = tmp_path / "task.safetensors", tmp_path / "again"
        done = run("tasks", "import-peft", adapter, "--model", decoder, "--out", out, "--json", without=("peft",))
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert {site: rank for site, rank in report["ranks"].items() if rank} == {"projection": 2}
        done = run("tasks", "export-peft", out, "--model", decoder, "--out", again, without=("peft",))
        assert done.returncode == 0, done.stderr
        assert "LORA for SEQ_CLS, rank 2; load the model with num_labels=2" in done.stdout
        found = load_file(again / "adapter_model.safetensors")
        assert found.keys() == tensors.keys()
        assert all(np.array_equal(found[name], tensors[name]) for name in tensors)

    def test_refusals(self, model_folder: Path, adapter: Path, tmp_path: Path) -> None:
        arguments = ("tasks", "import-peft", adapter, "--model", model_folder, "--out", tmp_path / "task.safetensors")
        assert "trained on somebody/tiny-gpt2, but this is tiny-bert" in refused(run(*arguments))
        assert "names a: expected 2 different names" in refused(run(*arguments, "--same-base", "--labels", "a"))
        message = refused(run(*arguments, without=("torch",)))
        assert "pip install 'edgetune[export]'" in message
        assert not (tmp_path / "task.safetensors").exists()


def test_train_export_classify(model_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    task, folder = tmp_path / "mood.safetensors", tmp_path / "bundle"
    done = run("train", model_folder, "--data", rows_file, "--task", "mood", "--epochs", 1, "--out", task, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["bytes"] == task.stat().st_size
    assert report["temperature"] == Task.load(task).temperature != 1
    assert "rows are held out" in done.stderr
    assert "epoch 1/1" in done.stderr
    done = run("export", model_folder, folder, "--task", task, "--check-data", rows_file, "--max-drop", 1)
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    assert Bundle(folder).task_names() == ["mood"]
    assert json.loads(run("classify", folder, "--task", "mood", text="hello").stdout)["status"] == "ok"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "mood.safetensors", "rows.jsonl"]


class TestUsage:
    """Options that contradict each other are wrong usage: exit status 2, and nothing is started."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--init-from", "other.safetensors", "--prompt-length", 9], "--prompt-length came with --init-from"),
            (["--init-from", "other.safetensors", "--init", "random"], "--init came with --init-from"),
            (["--init", "random", "--init-text", "a lamp"], "--init-text came with --init 'random'"),
            (["--init", "text"], "--init 'text' came without --init-text"),
            (["--task", "a", "--data", "x.csv", "--out", "b.safetensors"], "a different name for each task"),
        ],
    )
    def test_train(self, options: list[object], message: str) -> None:
        done = run("train", "model", "--data", "x.csv", "--task", "a", "--out", "a.safetensors", *options)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())


class TestErrors:
    """Each error says what came, what was expected and what to do; exit status 1; nothing is left behind."""

    def train(self, model: Path, data: Path, *more: object, without: tuple[str, ...] = ()) -> str:
        out = data.parent / "out.safetensors"
        before = sorted(data.parent.iterdir())
        message = refused(run("train", model, "--data", data, "--task", "t", "--out", out, *more, without=without))
        assert sorted(data.parent.iterdir()) == before
        return message

    def test_misspelt_column(self, model_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("txt,label\na,b\n")
        assert "no column 'text' among txt, label: did you mean 'txt'? name it with --text-column" in self.train(
            model_folder, path
        )

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "has no rows"),
            ('{"text": "a", "label": "b"}\n' * 9, "only the label 'b': expected at least two"),
            ('{"text": "a"}\n', "no column 'label' among text"),
            ('{"text": "a", "label": "b"}\nnonsense\n', "line 2: not JSON"),
        ],
    )
    def test_bad_training_data(self, model_folder: Path, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(content)
        assert message in self.train(model_folder, path)

    def test_no_such_data(self, model_folder: Path, tmp_path: Path) -> None:
        assert "missing.jsonl cannot be read" in self.train(model_folder, tmp_path / "missing.jsonl")

    def test_unsupported_architecture(self, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("bloom")
        (folder / "config.json").write_text('{"model_type": "bloom"}')
        assert "'bloom', which is not supported: expected one of" in self.train(folder, rows_file)

    def test_no_torch(self, model_folder: Path, rows_file: Path) -> None:
        message = self.train(model_folder, rows_file, without=("torch",))
        assert "'torch' is needed for this and is not installed: pip install 'edgetune[train]'" in message

    def test_export_without_torch(self, model_folder: Path, tmp_path: Path) -> None:
        message = refused(run("export", model_folder, tmp_path / "bundle", without=("torch",)))
        assert "pip install 'edgetune[export]'" in message
        assert list(tmp_path.iterdir()) == []

    def test_a_long_text_is_cut_and_said_so(self, model_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["text", "label"], *([["lamp " * 300, "a"], ["mail", "b"]] * 8)])
        done = run(
            "train", model_folder, "--data", path, "--task", "t", "--out", tmp_path / "t.safetensors", "--epochs", 1
        )
        assert done.returncode == 0, done.stderr
        assert "texts are longer than 64 tokens: their ends are not read" in done.stderr

    def test_unknown_task(self, bundle_folder: Path) -> None:
        message = refused(run("classify", bundle_folder, "--task", "colours", text="a"))
        assert "no task 'colours' here: the engine has colour, size" in message

    def test_unknown_precision(self, bundle_folder: Path) -> None:
        message = refused(run("classify", bundle_folder, "--task", "colour", "--precision", "int3", text="a"))
        assert "has no precision 'int3': expected one of fp32, int8" in message

    def test_no_bundle(self, tmp_path: Path) -> None:
        message = refused(run("classify", tmp_path, "--task", "colour", text="a"))
        assert "is not a bundle" in message

    @pytest.mark.parametrize("name", ["onnx/model_int8.onnx", "tokenizer.json"])
    @pytest.mark.parametrize("damage", ["cut", "changed"])
    def test_damaged_bundle(self, bundle_folder: Path, tmp_path: Path, name: str, damage: str) -> None:
        folder = tmp_path / "bundle"
        shutil.copytree(bundle_folder, folder)
        data = bytearray((folder / name).read_bytes())
        if damage == "cut":
            del data[len(data) // 2 :]
        else:
            data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        message = refused(run("classify", folder, "--task", "colour", text="a"))
        assert f"{name} is damaged: its SHA-256 is" in message

    def test_task_for_another_backbone(self, bundle_folder: Path, make_task: MakeTask, tmp_path: Path) -> None:
        import dataclasses

        path = tmp_path / "other.safetensors"
        dataclasses.replace(make_task("other"), backbone_sha256="0" * 64, base_model="another").save(path)
        for command in (["classify", bundle_folder, "--task", path], ["tasks", "add", bundle_folder, path]):
            message = refused(run(*command, text="a"))
            assert "'other' was trained on the backbone another (000000000000…), but this is tiny-bert" in message
        assert Bundle(bundle_folder).task_names() == ["colour", "size"]

    def test_cut_task(self, bundle_folder: Path, make_task: MakeTask, tmp_path: Path) -> None:
        path = tmp_path / "cut.safetensors"
        path.write_bytes(make_task("cut").to_bytes()[:-100])
        assert "cut.safetensors is not a whole task file" in refused(
            run("classify", bundle_folder, "--task", path, text="a")
        )

    def test_no_such_input(self, bundle_folder: Path) -> None:
        assert "missing.txt cannot be read" in refused(
            run("classify", bundle_folder, "missing.txt", "--task", "colour")
        )

    def test_labels_that_no_task_can_hold(self, model_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"text": "a", "label": label}) + "\n" for label in ("a", "b\x1b") * 9))
        assert r"the training data has the label 'b\x1b'" in self.train(model_folder, path)

    def test_usage_is_exit_2(self) -> None:
        assert run("classify").returncode == 2
        assert run("bench", "x", "--prompt-lengths", "a,b").returncode == 2


def test_a_sound_bundle_is_verified(bundle_folder: Path) -> None:
    done = run("verify", bundle_folder)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"sound"}
    report = json.loads(run("verify", bundle_folder, "--json").stdout)
    assert report["sound"]
    assert [finding["subject"] for finding in report["findings"]] == [
        line.split(maxsplit=1)[1] for line in done.stdout.splitlines()
    ]


def test_a_bundle_with_a_fault_is_told_line_by_line(bundle_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    (folder / "config.json").write_text("{}")
    (folder / "notes.txt").write_text("notes")
    done = run("verify", folder)
    assert done.returncode == 1
    lines = dict(line.split(maxsplit=1)[::-1] for line in done.stdout.splitlines())
    assert any(line.startswith("config.json: ") and "is damaged" in line for line in lines)
    assert lines["notes.txt: the manifest does not name it, and nothing reads it"] == "note"
    assert lines["onnx/model.onnx"] == "sound"
    done = run("verify", folder, "--json")
    assert done.returncode == 1
    assert not json.loads(done.stdout)["sound"]
