"""Every format of a model is read as the same model: transformers' features, and one fingerprint."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import sentencepiece
import torch
from conftest import TEXTS, LanguageModelFolder
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from edgetune_export import load_backbone
from edgetune_export.loading import language_model_class

WEIGHTS = "model.safetensors"
ARCHITECTURES = ["bert", "gpt2", "llama", "t5"]


def as_one_file(folder: Path, dtype: torch.dtype) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    safetensors.torch.save_file(stored, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))


def as_shards(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {}
    for number, name in enumerate(tensors):
        file = f"model-{number % 3 + 1:05}-of-00003.safetensors"
        places[name] = file
    for file in set(places.values()):
        own = {name: tensors[name] for name in tensors if places[name] == file}
        safetensors.torch.save_file(own, folder / file, {"format": "pt"})
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def as_pickle(folder: Path, *, zipped: bool = True) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def as_pickled_shards(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"pytorch_model-0000{number % 2 + 1}-of-00002.bin" for number, name in enumerate(tensors)}
    for file in set(places.values()):
        torch.save({name: tensors[name] for name in tensors if places[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


STORED: dict[str, Callable[[Path], None]] = {
    "safetensors in float32": lambda folder: as_one_file(folder, torch.float32),
    "safetensors in float16": lambda folder: as_one_file(folder, torch.float16),
    "safetensors in bfloat16": lambda folder: as_one_file(folder, torch.bfloat16),
    "safetensors in shards": as_shards,
    "pytorch_model.bin": as_pickle,
    "pytorch_model.bin as PyTorch wrote it before 1.6": lambda folder: as_pickle(folder, zipped=False),
    "pytorch_model.bin in shards": as_pickled_shards,
}


IN_GGUF = {
    "a .gguf file in float32": "F32",
    "a .gguf file in float16": "F16",
    "a .gguf file in 8 bits (Q8_0)": "Q8_0",
    "a .gguf file in 4 bits (Q4_0)": "Q4_0",
}


def as_gguf(folder: Path, file: Path, stored: str) -> None:
    """Write a Llama as one file, with a vocabulary of letters."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<|endoftext|>", *map(chr, range(33, 127)), "\u0120", "th", "the"]
    tokens += [f"unused{place}" for place in range(len(tokens), config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(["t h", "th e"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:  # the two halves that rotate take turns
                array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        kind = gguf.GGMLQuantizationType[stored if array.ndim > 1 else "F32"]
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight",)),
            gguf.quantize(np.ascontiguousarray(array), kind),
            raw_dtype=kind,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def features_of_transformers(folder: Path, ids: torch.Tensor, architecture: str) -> torch.Tensor:
    if architecture == "t5":
        model = language_model_class(architecture).from_pretrained(folder, dtype=torch.float32).eval()
        start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
        return model(input_ids=ids, decoder_input_ids=start, output_hidden_states=True).decoder_hidden_states[-1]
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model(input_ids=ids).last_hidden_state


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_features_are_those_of_the_library_however_a_model_is_stored(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str, stored: str
) -> None:
    folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / "model"))
    STORED[stored](folder)
    backbone = load_backbone(str(folder))
    ids = torch.tensor([backbone.text_encoder.ids(TEXTS[1])])
    assert ids.shape[1] > 3
    mask = torch.ones_like(ids)
    got = backbone.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got, features_of_transformers(folder, ids, architecture), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("load_in", ["fp32", "stored", "bf16"])
@pytest.mark.parametrize("stored", IN_GGUF)
@torch.no_grad()
def test_features_of_a_gguf_file_are_those_of_the_library(
    language_model_folder: LanguageModelFolder, tmp_path: Path, stored: str, load_in: str
) -> None:
    """And those of the original model, unless it was rounded."""
    folder = language_model_folder("llama")
    as_gguf(folder, tmp_path / "tiny.gguf", IN_GGUF[stored])
    backbone = load_backbone(str(tmp_path / "tiny.gguf"), load_in=load_in)
    ids = torch.tensor([backbone.text_encoder.ids(TEXTS[1])])
    assert ids.shape[1] > 3
    got = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    original = AutoModel.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32).eval()
    torch.testing.assert_close(got, original(input_ids=ids).last_hidden_state, atol=1e-5, rtol=1e-4)
    written = features_of_transformers(folder, ids, "llama")
    assert torch.allclose(got, written, atol=1e-5, rtol=1e-4) == ("32" in stored)
    expected = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    for text in TEXTS:
        assert backbone.text_encoder.ids(text) == expected(text, add_special_tokens=False)["input_ids"]


def test_the_documentation_has_the_tables_of_these_tests() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    for title, rows in (("weights", [*STORED, *IN_GGUF]), ("tokenizer", TOKENIZERS)):
        assert "\n".join([f"| {title} |", "|---|", *(f"| {name} |" for name in rows)]) in page


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fingerprint_does_not_depend_on_how_the_same_weights_are_stored(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    """16-bit weights and the same numbers in 32 bits are also the same model."""

    def fingerprint(name: str, *changes: Callable[[Path], None]) -> str:
        folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / name))
        for change in changes:
            change(folder)
        return load_backbone(str(folder)).facts.sha256

    whole = {name: fingerprint(name, STORED[name]) for name in STORED if "float" not in name}
    assert set(whole.values()) == {fingerprint("as it was")}
    for short in ("float16", "bfloat16"):
        in_short, in_float32 = STORED[f"safetensors in {short}"], STORED["safetensors in float32"]
        rounded = fingerprint(short, in_short)
        assert rounded == fingerprint(f"{short}, then float32", in_short, in_float32)
        assert rounded not in whole.values()


def test_a_pickle_that_would_run_code_is_refused(language_model_folder: LanguageModelFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(language_model_folder("bert"), tmp_path / "model"))
    as_pickle(folder)
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (ran,)

    torch.save({"bert.embeddings.word_embeddings.weight": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="cannot be loaded"):
        load_backbone(str(folder))
    assert not ran.exists()


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_a_tokenizer_without_tokenizer_json_is_converted(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    """From the vocabulary files of classes without their own fast tokenizer."""
    folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / "model"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    if architecture == "bert":
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
        config = {"tokenizer_class": "BertTokenizer"}
    else:
        letters = ["[PAD]", "<|endoftext|>", *map(chr, range(33, 127)), "Ġ"]
        learnt = {token: place for place, token in enumerate([*letters, "th", "the"])}
        (folder / "vocab.json").write_text(json.dumps(learnt))
        (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
        config = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(folder))
    expected = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert backbone.text_encoder.ids(text) == expected(text, add_special_tokens=False)["input_ids"]


SENTENCEPIECE: dict[str, dict[str, Any]] = {
    "spiece.model": {
        "architecture": "t5",
        "config": {"tokenizer_class": "T5Tokenizer", "extra_ids": 0},
        "training": {"model_type": "unigram", "vocab_size": 70, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    },
    "tokenizer.model": {
        "architecture": "llama",
        "config": {"tokenizer_class": "LlamaTokenizer", "legacy": False},
        "training": {"model_type": "bpe", "vocab_size": 330, "byte_fallback": True},
    },
}
TOKENIZERS = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json and merges.txt",
    *(f"{file} (sentencepiece)" for file in SENTENCEPIECE),
]


@pytest.mark.parametrize("file", SENTENCEPIECE)
def test_a_sentencepiece_file_alone_is_converted(
    language_model_folder: LanguageModelFolder, tmp_path: Path, file: str
) -> None:
    """Ids are those of sentencepiece itself."""
    made = SENTENCEPIECE[file]
    folder = Path(shutil.copytree(language_model_folder(made["architecture"]), tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(made["config"]))
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4), model_writer=trained, minloglevel=2, **made["training"]
    )
    (folder / file).write_bytes(trained.getvalue())
    grow = made["training"]["vocab_size"] - json.loads((folder / "config.json").read_text())["vocab_size"]
    if grow > 0:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(made["training"]["vocab_size"])
        model.save_pretrained(folder)
    backbone = load_backbone(str(folder))
    original = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    for text in [*TEXTS, "what is a zzz?"]:
        assert backbone.text_encoder.ids(text) == original.encode(text)
