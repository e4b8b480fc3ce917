"""The exported tokenizer is the checkpoint's own file, and tokens that the model does not know are rejected."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from edgetune_export import load_backbone
from edgetune_runtime import contract
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.task import Task

HANDLE = "[HANDLE]"
STRANGE = ["１２ lamps", "@user_name says good", "the lamp 12", "", "😀", "good @a"]


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT's folder."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def change_json(path: Path, **values: object) -> None:
    record = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(record | values))


def with_own_normalizer(folder: Path, tokenizer_class: str) -> Tokenizer:
    """A tokenizer.json with its own normalizer and pre-tokenizer, of a class that transformers rebuilds."""
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"@\w+"), "camera"), normalizers.Lowercase()]
    )
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    own.save(str(folder / "tokenizer.json"))
    change_json(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    return own


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast"])
def test_the_file_is_exported_as_it_stands(
    folder: Path, tokenizer_class: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = with_own_normalizer(folder, tokenizer_class)
    rebuilt = AutoTokenizer.from_pretrained(folder)
    backbone = load_backbone(str(folder))
    assert backbone.tokenizer_json == (folder / "tokenizer.json").read_bytes()
    exported = Tokenizer.from_buffer(backbone.tokenizer_json)
    for text in [*TEXTS, *STRANGE]:
        assert exported.encode(text).ids == own.encode(text).ids
    differs = any(own.encode(text).ids != rebuilt(text)["input_ids"] for text in STRANGE)
    assert differs == tokenizer_class.startswith("Bert")
    assert ("the file is taken as it stands" in capsys.readouterr().err) == differs


def test_one_tokenizer_is_nothing_to_speak_of(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_backbone(str(model_folder))
    assert capsys.readouterr().err == ""


def test_without_the_file_transformers_makes_the_tokenizer(model_folder: Path, folder: Path) -> None:
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)), encoding="utf-8")
    change_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    made, own = (Tokenizer.from_buffer(load_backbone(str(path)).tokenizer_json) for path in (folder, model_folder))
    for text in TEXTS:
        assert made.encode(text).ids == own.encode(text).ids


def test_a_file_that_is_no_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BackboneError, match=r"tokenizer") as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)


def grown(folder: Path, *tokens: str) -> int:
    """Add tokens to the tokenizer, but not to the model. Returns the model's number of tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = len(tokenizer)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    return before


def task() -> Task:
    head = {contract.HEAD_WEIGHT: np.zeros((2, 32), np.float32), contract.HEAD_BIAS: np.zeros(2, np.float32)}
    return Task("t", ("a", "b"), "0" * 64, head, method="random", base_model="tiny", pooling="mean")


def test_added_tokens_beyond_the_table_are_said_and_texts_with_them_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = grown(folder, "[USER]", "[BOT]")
    backbone = load_backbone(str(folder))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "has added tokens for which the model has no embedding ([USER], [BOT])" in said
    assert "resize_token_embeddings" in said
    encoder = backbone.text_encoder
    (row,) = encoder.encode(["the lamp"], [task()])
    assert max(row.ids) < known
    with pytest.raises(BackboneError, match=rf"'the \[USER\] lamp' has the token \[USER\] \({known}\)"):
        encoder.encode(["the lamp", "the [USER] lamp"], [task()] * 2)
    with pytest.raises(BackboneError, match=r"has the token \[BOT\]"):
        encoder.ids("[BOT]")


def test_training_on_a_token_that_the_model_does_not_know_ends_in_one_line(folder: Path, tmp_path: Path) -> None:
    grown(folder, "[USER]")
    rows = [
        {"text": f"[USER] {text}" if place == 3 else text, "label": "ab"[place % 2]} for place, text in enumerate(TEXTS)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows * 2))
    command = ["train", str(folder), "--data", str(data), "--task", "t", "--out", str(tmp_path / "t.safetensors")]
    result = subprocess.run(
        [sys.executable, "-m", "edgetune", *command, "--epochs", "1"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "has the token [USER]" in result.stderr.splitlines()[-1]


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    record = json.loads((folder / "tokenizer.json").read_text())
    record["model"]["vocab"] |= {f"word{place}": len(record["model"]["vocab"]) + place for place in range(3)}
    (folder / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(BackboneError, match="it belongs to another model"):
        load_backbone(str(folder))


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
def test_tokens_that_the_file_lacks_are_added_with_their_ids_or_refused(
    folder: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    free = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    for number, works in ((free, True), (free + 5, False)):
        kept = {"[USER]": number} if file == "added_tokens.json" else {}
        decoder = {"added_tokens_decoder": {str(number): {"content": "[USER]", "normalized": False}}}
        change_json(folder / file, **(kept or decoder))
        if works:
            backbone = load_backbone(str(folder))
            assert "lacks tokens that added_tokens.json or tokenizer_config.json has: [USER]" in capsys.readouterr().err
            exported = Tokenizer.from_buffer(backbone.tokenizer_json)
            assert exported.encode("a [USER]", add_special_tokens=False).ids[-1] == free
        else:
            with pytest.raises(BackboneError, match=r"\[USER\] cannot get its id"):
                load_backbone(str(folder))


def test_a_model_of_the_hub_is_read_in_its_subfolder_with_its_own_tokenizer(folder: Path, tmp_path: Path) -> None:
    """From the hub's cache, in its layout, as in an offline process."""
    own = with_own_normalizer(folder, "BertTokenizer")
    repository = tmp_path / "home" / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot / "0_Transformer")
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (snapshot / "modules.json").write_text(json.dumps(modules))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    program = "from edgetune_export import load_backbone; print(load_backbone('someone/tiny').tokenizer_json.decode())"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "someone/tiny keeps its transformer in 0_Transformer" in run.stderr
    exported = Tokenizer.from_str(run.stdout)
    for text in STRANGE:
        assert exported.encode(text).ids == own.encode(text).ids
