"""Real but tiny: a seeded backbone with a trained tokenizer, exported once for the whole session."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import httpx
from serving import Serve, Server, run_server

from edgetune_runtime import Bundle, Task, contract
from edgetune_runtime.kinds import KINDS

TEXTS = [
    "the lamp is broken and the screen stays black",
    "thank you, this works very well",
    "where is my parcel?",
    "it was charged twice, please send the money back to my account today",
    "good",
    "I do not know why the camera sees nothing at night although the light is on",
    "the new speaker sounds great and the parcel came early",
    "cannot log in; the password mail never comes",
]
"""Everyday sentences of unequal length."""

HIDDEN, LAYERS, HEADS = 32, 2, 4


def save_tokenizer(folder: Path, padding: int = 0) -> int:
    """Save a WordPiece tokenizer of the words of `TEXTS` as transformers does. Returns its vocabulary's size.

    `padding` is the id of its padding token. The tokenizer is not trained, because the trainer breaks ties differently
    in each run, which would change all features.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in TEXTS for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = {letter for word in words for letter in word}
    inside = {f"##{word[place]}" for word in words for place in range(1, len(word))}
    ends = {f"##{word[-2:]}" for word in words if len(word) > 3}
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special.insert(padding, "[PAD]")
    pieces = dict.fromkeys([*special, *sorted(letters), *sorted(inside | ends), *sorted(words)])
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    around = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)
    return tokenizer.get_vocab_size()


def save_tiny_bert(folder: Path, positions: int = 64) -> None:
    """Save a tiny seeded BERT with its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)


def save_tiny_language_model(folder: Path, architecture: str) -> None:
    """Save a tiny seeded language model (bert, gpt2, llama, t5) with its tokenizer."""
    import torch
    from transformers import AutoConfig

    from edgetune_export.loading import language_model_class

    sizes: dict[str, Any] = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": HIDDEN}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2}
    own: dict[str, dict[str, Any]] = {
        "gpt2": {"n_positions": 64},
        "llama": {"num_key_value_heads": 2},
        "t5": {"num_layers": 2, "num_decoder_layers": 1, "d_kv": 8, "d_ff": 64, "decoder_start_token_id": 0},
    }
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**sizes, **own.get(architecture, {})}, vocab_size=vocabulary)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 2, 3
    model = language_model_class(architecture).from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared graphs are cached as for users, but away from the user's own cache."""
    os.environ["EDGETUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


LanguageModelFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def language_model_folder(tmp_path_factory: pytest.TempPathFactory) -> LanguageModelFolder:
    """Returns the folder of a tiny language model by architecture. Read-only."""
    folders: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in folders:
            folders[architecture] = tmp_path_factory.mktemp("models") / f"tiny-{architecture}"
            save_tiny_language_model(folders[architecture], architecture)
        return folders[architecture]

    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT's folder. Read-only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    save_tiny_bert(folder)
    return folder


MakeTask = Callable[..., Task]


def mixed(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(text, task) pairs as arguments of `Engine.classify`."""
    listed = list(pairs)
    return {"texts": [text for text, _ in listed], "tasks": [task for _, task in listed]}


@pytest.fixture(scope="session")
def make_task(bundle: Bundle) -> MakeTask:
    """Makes a random task that fits `bundle`."""

    def make(
        name: str = "task",
        prompt: int = 0,
        prefix: int = 5,
        labels: int = 3,
        seed: int = 0,
        kind_name: str = "single-label",
    ) -> Task:
        return random_task(bundle, name, prompt, prefix, labels, seed, kind_name)

    return make


def random_task(
    bundle: Bundle,
    name: str,
    prompt: int = 0,
    prefix: int = 0,
    labels: int = 3,
    seed: int = 0,
    kind_name: str = "single-label",
) -> Task:
    """A task of random numbers that fits `bundle`."""
    random = np.random.default_rng(seed)
    manifest = bundle.manifest
    rows = KINDS[kind_name].head_rows(labels)
    lengths = {"tasks": 1, "prompt": prompt, "prefix": prefix, "labels": rows}
    names = [contract.HEAD_WEIGHT, contract.HEAD_BIAS]
    names += [contract.PROMPT_EMBEDDINGS] if prompt else []
    names += [contract.PREFIX_KEYS, contract.PREFIX_VALUES] if prefix else []
    return Task(
        name=name,
        labels=tuple(f"label{place}" for place in range(labels)),
        backbone_sha256=manifest.facts.sha256,
        tensors={
            tensor: random.normal(0, 1, manifest.facts.sizes.shape(tensor, **lengths)[1:]).astype(np.float32)
            for tensor in names
        },
        method="random",
        base_model=manifest.facts.name,
        pooling=manifest.facts.poolings[0],
        kind_name=kind_name,
    )


@pytest.fixture(scope="session")
def bundle_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny backbone exported to fp32 and int8, with the tasks "colour" and "size". Read-only."""
    from edgetune_export import export_bundle, load_backbone

    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    export_bundle(load_backbone(str(model_folder)), folder)
    bundle = Bundle(folder)
    bundle.add_task(random_task(bundle, "colour", prefix=6, labels=3, seed=1))
    bundle.add_task(random_task(bundle, "size", prompt=4, labels=2, seed=2))
    return folder


@pytest.fixture
def here(bundle_folder: Path, tmp_path: Path) -> Path:
    """The publisher's bundle, which may be changed."""
    return shutil.copytree(bundle_folder, tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The destination, which does not exist yet."""
    return tmp_path / "there"


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    """The session's bundle."""
    return Bundle(bundle_folder)


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Serves a bundle: `with serve(bundle, *options) as server`."""
    return run_server


@pytest.fixture(scope="module")
def server_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny bundle. Read-only."""
    return shutil.copytree(bundle_folder, tmp_path_factory.mktemp("served") / "bundle")


@pytest.fixture(scope="module")
def server(server_bundle: Path) -> Iterator[Server]:
    """A server that all tests of a module share."""
    with run_server(server_bundle) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


BAD = "the [USER] says it is broken"
"""The tokenizer of `poisoned` gives this text a token without an embedding."""


@pytest.fixture(scope="session")
def poisoned(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose tokenizer has a token without a row in the backbone's embedding table."""
    folder = shutil.copytree(bundle_folder, tmp_path_factory.mktemp("poisoned") / "bundle")
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"].append({"id": 5000, "content": "[USER]", **flags})
    data = json.dumps(tokenizer).encode()
    (folder / "tokenizer.json").write_bytes(data)
    manifest = json.loads((folder / "edgetune.json").read_bytes())
    manifest["files"]["tokenizer.json"] = hashlib.sha256(data).hexdigest()
    (folder / "edgetune.json").write_text(json.dumps(manifest))
    return folder
