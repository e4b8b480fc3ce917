"""Nothing in a checkpoint is silently ignored: unused parts of the backbone are rejected, others are reported."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import LanguageModelFolder, save_tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel, DebertaV2Config, DebertaV2ForMaskedLM

from edgetune_export import load_backbone
from edgetune_runtime.errors import BackboneError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 133466304\n"
LAYER = "encoder.layer.0.attention.self"
Change = Callable[[Path], object]


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT's folder."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def change_json(path: Path, **values: Any) -> None:
    record = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(record | values))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def add_tensor(name: str, *shape: int) -> Change:
    return lambda folder: change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(shape)}))


def refused(folder: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_relative_positions_that_transformers_no_longer_computes_are_refused(folder: Path) -> None:
    """Configuration and tensors, each alone."""
    change_json(folder / "config.json", position_embedding_type="relative_key_query")
    assert "position_embedding_type 'relative_key_query'" in refused(folder)
    change_json(folder / "config.json", position_embedding_type="absolute")
    add_tensor(f"{LAYER}.distance_embedding.weight", 127, 8)(folder)
    said = refused(folder)
    assert "1 tensors inside the backbone that 'bert' does not use" in said
    assert f"{LAYER}.distance_embedding.weight" in said


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "t5"])
@pytest.mark.parametrize("prefixed", [True, False])
def test_tensors_inside_a_backbone_that_it_does_not_use_are_refused(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str, prefixed: bool
) -> None:
    """In every naming scheme: with a language model's prefix, and without, as the bare model's class writes them."""
    inside = {
        "bert": ("bert.", f"{LAYER}.adapter.weight"),
        "gpt2": ("transformer.", "h.1.attn.rotary.weight"),
        "llama": ("model.", "layers.0.self_attn.q_norm.weight"),
        "t5": ("", "encoder.block.0.layer.0.gate.weight"),
    }
    folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / "model"))
    load_backbone(str(folder))
    prefix, name = inside[architecture]
    if not prefixed:

        def strip(tensors: dict[str, torch.Tensor]) -> None:
            for key in list(tensors):
                tensors[key.removeprefix(prefix)] = tensors.pop(key)

        change_tensors(folder, strip)
        load_backbone(str(folder))
    add_tensor((prefix if prefixed else "") + name, 8)(folder)
    assert name in refused(folder)


def test_what_every_transformers_ignores_is_no_reason_to_refuse(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A buffer that older versions saved, and the heads of pre-training."""
    add_tensor("embeddings.position_ids", 1, 64)(folder)
    add_tensor("cls.seq_relationship.weight", 2, 32)(folder)
    load_backbone(str(folder))
    assert capsys.readouterr().err == ""


def test_tensors_of_another_shape_are_refused_by_name(folder: Path) -> None:
    change_json(folder / "config.json", intermediate_size=48)
    said = refused(folder)
    assert "encoder.layer.0.intermediate.dense.bias, [64] where [48] is expected" in said


def test_a_classifiers_head_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = BertConfig(
        vocab_size=save_tokenizer(tmp_path),
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
    )
    whole = BertForSequenceClassification(config)
    whole.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert "has a head of its own (classifier), which is not used" in capsys.readouterr().err
    assert "pooler" in backbone.poolings


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("attention_window", [64, 64], "attention_window [64, 64], which transformers"),
        ("attention_window", None, ""),
        ("alibi", False, ""),
        ("position_embedding_type", "absolute", ""),
        ("gradient_checkpointing", True, ""),
        ("summary_last_dropout", 0.1, ""),
        ("num_beams", 4, ""),
        ("id2label", {"0": "bad", "1": "good"}, ""),
    ],
)
def test_configuration_that_is_not_used_is_said_if_it_says_something_of_features(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, told: str
) -> None:
    change_json(folder / "config.json", **{key: value})
    load_backbone(str(folder))
    said = capsys.readouterr().err
    assert (told in said) if told else said == ""


def test_configuration_that_the_model_asks_for_by_name_is_used(
    language_model_folder: LanguageModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DeBERTa's third version has keys that its configuration's class does not declare, and its code reads."""
    folder = tmp_path / "model"
    vocabulary = save_tokenizer(folder)
    own = {"norm_rel_ebd": "layer_norm", "position_buckets": 16, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = DebertaV2Config(
        vocab_size=vocabulary, relative_attention=True, position_biased_input=False, **sizes, **own
    )
    DebertaV2ForMaskedLM(config).save_pretrained(folder)
    change_json(folder / "config.json", summary_of_distances=3)
    backbone = load_backbone(str(folder))
    assert backbone.model.encoder.position_buckets == 16
    said = capsys.readouterr().err
    assert "config.json" in said
    assert "has summary_of_distances 3, which transformers" in said
    # What a class reads under one name is not used under another.
    change_json(folder / "config.json", position_embedding_type="relative_key")
    assert "has position_embedding_type 'relative_key'" in refused(folder)


def test_older_names_in_a_configuration_are_used(
    language_model_folder: LanguageModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers takes rope_theta and rope_scaling, which no class declares any more, into rope_parameters."""
    folder = Path(shutil.copytree(language_model_folder("llama"), tmp_path / "model"))
    record = json.loads((folder / "config.json").read_text())
    del record["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(record))
    change_json(folder / "config.json", rope_theta=500.0, rope_scaling={"rope_type": "linear", "factor": 4.0})
    backbone = load_backbone(str(folder))
    assert backbone.config.rope_parameters["rope_theta"] == 500.0
    assert "rope" not in capsys.readouterr().err


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs_is_named(folder: Path, file: str) -> None:
    (folder / file).write_bytes(POINTER)
    said = refused(folder)
    assert f"{file} is a pointer of Git LFS" in said
    assert "git lfs pull" in said


def test_pointers_that_nobody_reads_do_not_matter(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    (folder / "tf_model.h5").write_bytes(POINTER)
    load_backbone(str(folder))


def test_a_gguf_file_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(POINTER)
    assert "git lfs pull" in refused(tmp_path / "model.gguf")


def sharded(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20kB")


def test_shards_are_read_and_a_missing_or_damaged_one_is_named(folder: Path) -> None:
    sharded(folder)
    load_backbone(str(folder))
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    data = shard.read_bytes()
    for broken, told in ((POINTER, "pointer of Git LFS"), (data[: len(data) // 2], "is damaged"), (b"", "is damaged")):
        shard.write_bytes(broken)
        said = refused(folder)
        assert shard.name in said
        assert told in said
    shard.unlink()
    assert f"{shard.name} is missing, which model.safetensors.index.json names" in refused(folder)


def test_weights_of_pytorch_that_are_damaged_are_one_line_with_their_name(folder: Path) -> None:
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    load_backbone(str(folder))
    data = (folder / "pytorch_model.bin").read_bytes()
    for broken in (data[: len(data) // 2], b"", b"no weights"):
        (folder / "pytorch_model.bin").write_bytes(broken)
        assert "pytorch_model.bin" in refused(folder)


@pytest.mark.parametrize("modules", [True, False])
def test_a_transformer_in_a_subfolder_is_found(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], modules: bool
) -> None:
    """As sentence-transformers saves it; also without modules.json, if only one folder has a model."""
    shutil.copytree(model_folder, tmp_path / "0_Transformer")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32}')
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    if modules:
        listed = [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (path, kind) in enumerate(kinds.items())
        ]
        (tmp_path / "modules.json").write_text(json.dumps(listed))
    backbone = load_backbone(str(tmp_path))
    said = capsys.readouterr().err
    assert "keeps its transformer in 0_Transformer" in said
    assert ("the modules Dense behind" in said) == modules
    assert backbone.fingerprint() == load_backbone(str(model_folder)).fingerprint()


def sentence_model(model_folder: Path, folder: Path, pooling: dict[str, Any], **config: Any) -> Path:
    """A model as sentence-transformers saves it."""
    shutil.copytree(model_folder, folder, dirs_exist_ok=True)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    return folder


@pytest.mark.parametrize(
    ("pooling", "usual", "told"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls", ""),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean", ""),
        ({"pooling_mode_lasttoken": True}, "last", ""),
        ({"pooling_mode": "cls"}, "cls", ""),
        ({"pooling_mode": ["lasttoken"], "include_prompt": True}, "last", ""),
        ({"pooling_mode": "cls", "include_prompt": False}, "cls", "to leave a prompt out of its pooling"),
        ({"pooling_mode_max_tokens": True}, "mean", "by the pooling max_tokens, which edgetune has not"),
        ({"pooling_mode": ["cls", "max"]}, "mean", "by the pooling cls and max, which edgetune has not"),
        ({"pooling_mode_weightedmean_tokens": True}, "mean", "by the pooling weightedmean, which"),
        ({}, "mean", ""),
    ],
)
def test_the_pooling_of_sentence_transformers_is_the_usual_one(
    model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pooling: dict[str, Any],
    usual: str,
    told: str,
) -> None:
    backbone = load_backbone(str(sentence_model(model_folder, tmp_path, pooling)))
    said = capsys.readouterr().err
    plain = load_backbone(str(model_folder))
    assert backbone.poolings[0] == usual and sorted(backbone.poolings) == sorted(plain.poolings)
    assert said.count("\n") == bool(told) and told in said
    assert backbone.fingerprint() == plain.fingerprint()


def test_words_before_texts_are_said(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {"query": "query: ", "document": ""}
    load_backbone(str(sentence_model(model_folder, tmp_path, {"pooling_mode": "mean"}, prompts=prompts)))
    assert "words before its texts (query 'query: ')" in (said := capsys.readouterr().err)
    assert "such as `template` 'query: {text}'" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda folder: None, r"has no config.json (it holds nothing)"),
        (lambda folder: (folder / "model.safetensors").touch(), r"has no config.json (it holds model.safetensors)"),
        (lambda folder: (folder / "config.json").write_text("{}"), "has no model_type in its config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json of"),
        (
            lambda folder: change_json(folder / "adapter_config.json", base_model_name_or_path="some/base"),
            "is a PEFT adapter of some/base",
        ),
    ],
)
def test_a_folder_without_a_model_is_told_what_it_lacks(tmp_path: Path, prepare: Change, told: str) -> None:
    prepare(tmp_path)
    assert told in refused(tmp_path)


def test_a_folder_of_several_models_asks_for_one(model_folder: Path, tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-200"):
        shutil.copytree(model_folder, tmp_path / name)
    assert "holds 2 models, in checkpoint-100, checkpoint-200" in refused(tmp_path)


def test_a_file_is_no_folder(folder: Path) -> None:
    assert "is a file: expected a folder" in refused(folder / "model.safetensors")


def test_an_adapter_beside_the_weights_is_refused(folder: Path) -> None:
    """transformers would silently load it into the model."""
    change_json(folder / "adapter_config.json", base_model_name_or_path="some/base", peft_type="LORA")
    assert "holds a PEFT adapter next to its weights" in refused(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_quantized_weights_are_refused_by_the_name_of_the_method(folder: Path, method: str) -> None:
    change_json(folder / "config.json", quantization_config={"quant_method": method, "bits": 4})
    said = refused(folder)
    assert f"are quantized ({method} in config.json)" in said


def bring_code(folder: Path, architecture: str, file: str) -> Path:
    """Let a checkpoint name its own code. Returns the file that this code would write."""
    proof = folder / "it-ran"
    code = f"open({str(proof)!r}, 'w')\n"
    code += "from transformers import BertConfig as Own, BertModel as OwnModel, BertTokenizer as OwnTok\n"
    (folder / "own.py").write_text(code)
    change_json(folder / "config.json", model_type=architecture)
    own = {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel", "AutoModelForMaskedLM": "own.OwnModel"}
    change_json(folder / file, auto_map=own if file == "config.json" else {"AutoTokenizer": [None, "own.OwnTok"]})
    return proof


@pytest.mark.parametrize("architecture", ["bert", "someones_own"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("answer", ["y\n" * 9, ""])
def test_code_of_a_checkpoint_is_never_run_and_never_asked_about(
    folder: Path, architecture: str, file: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = bring_code(folder, architecture, file)
    stdin = io.StringIO(answer)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert f"brings code of its own ('auto_map' in {file})" in refused(folder)
    assert not proof.exists()
    assert stdin.read() == answer


def test_a_process_whose_stdin_would_say_yes_runs_no_code_of_a_checkpoint(folder: Path) -> None:
    proof = bring_code(folder, "someones_own", "config.json")
    command = [sys.executable, "-m", "edgetune", "export", str(folder), str(folder / "bundle")]
    run = subprocess.run(command, input="y\n" * 9, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert not proof.exists()


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(
        BackboneError, match=f"there is no folder {re.escape(name)}: expected a folder with config.json"
    ):
        load_backbone(name)
