"""The files of a checkpoint: find them, and check that they are what their names say."""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

from edgetune_export.families import FAMILIES
from edgetune_runtime.errors import BackboneError, in_one_line

CONFIG = "config.json"
ADDED_TOKENS = "added_tokens.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_MODULES = "modules.json"
_ADAPTER = "adapter_config.json"
_INDEX = ".index.json"
_WEIGHTS = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
"""Weight files, in the order in which transformers looks for them."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_PICKLE = b"\x80"  # PyTorch's format before it used zip archives
_TOKENIZER_FILES = (
    *("tokenizer.json", TOKENIZER_CONFIG, ADDED_TOKENS, "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)


def note(text: str) -> None:
    """Print a line for the user on stderr."""
    print(in_one_line(text), file=sys.stderr)


@dataclass(frozen=True)
class Checkpoint:
    """A model's files, in a folder or on the hub.

    Args:
        model: the name that the user gave.
        subfolder: the subfolder of the folder or the repository with the files.
        gguf_file: the single file with everything, in the folder `model`.
    """

    model: str
    subfolder: str = ""
    gguf_file: str | None = None

    @property
    def source(self) -> dict[str, Any]:
        """The arguments for transformers' `from_pretrained`."""
        if self.gguf_file is not None:
            return {"pretrained_model_name_or_path": str(self.folder), "gguf_file": self.gguf_file}
        if self.folder is not None:
            return {"pretrained_model_name_or_path": str(self.folder)}
        return {"pretrained_model_name_or_path": self.model, "subfolder": self.subfolder}

    @cached_property
    def folder(self) -> Path | None:
        """The folder with the files; `None` if they are on the hub."""
        path = Path(self.model)
        if self.gguf_file is not None:
            return path.parent
        return path / self.subfolder if path.is_dir() else None

    def path(self, file: str) -> Path | None:
        """The path of a file, if it exists; a file on the hub is downloaded."""
        if self.gguf_file is not None:
            return None
        if self.folder is not None:
            return self.folder / file if (self.folder / file).is_file() else None
        found = cached_file(
            self.model,
            file,
            subfolder=self.subfolder,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else Path(found)

    def weight_files(self) -> list[Path]:
        """Its weight files, in the form that transformers loads; empty for a `.gguf` file."""
        for file in _WEIGHTS:
            path = self.path(file)
            if path is None:
                continue
            if not file.endswith(_INDEX):
                return [path]
            named = sorted(set(self.read_json(file).get("weight_map", {}).values()))
            return [own for own in map(self.path, named) if own is not None]
        return []

    def read(self, file: str) -> bytes | None:
        """The contents of a file; `None` if it does not exist.

        Raises:
            BackboneError: it cannot be read, or is only a Git LFS pointer.
        """
        path = self.path(file)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BackboneError(f"{path} cannot be read: {error.strerror}; expected a file of a model") from error
        _check_no_pointer(path, data)
        return data

    def read_json(self, file: str) -> dict[str, Any]:
        """The object in a JSON file; empty if the file does not exist.

        Raises:
            BackboneError: it cannot be read, or contains something else.
        """
        data = self.read(file)
        if data is None:
            return {}
        try:
            value = json.loads(data)
        except ValueError as error:
            raise BackboneError(
                f"{file} of {self.model} is not JSON ({error}): copy or download the model again"
            ) from error
        if not isinstance(value, dict):
            raise BackboneError(f"{file} of {self.model} is not a JSON object: copy or download the model again")
        return value


def find_checkpoint(model: str) -> Checkpoint:
    """Find the checkpoint for a user's argument, and check its files before anything is loaded.

    Args:
        model: a folder, a `.gguf` file, or a hub id.

    Raises:
        BackboneError: there is no checkpoint, there are several, or its files are not those of a loadable model.
    """
    path = Path(model)
    if path.suffix == ".gguf":
        if path.is_file():
            with path.open("rb") as file:
                _check_no_pointer(path, file.read(len(_LFS_POINTER)))
        return Checkpoint(model, gguf_file=path.name)
    if path.is_file():
        raise BackboneError(
            f"{model} is a file: expected a folder with {CONFIG}, weights and tokenizer, a .gguf file, or a hub id"
        )
    if not path.exists() and (path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1):
        raise BackboneError(f"there is no folder {model}: expected a folder with {CONFIG}, weights and tokenizer")
    checkpoint = _with_config(Checkpoint(model))
    config = checkpoint.read_json(CONFIG)
    _check_own_code(checkpoint, config)
    _check_quantization(checkpoint, config)
    if checkpoint.folder is not None:
        _check_files(checkpoint, checkpoint.folder)
    return checkpoint


def _with_config(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, or the one in a subfolder, where sentence-transformers or a training run may save it."""
    if "model_type" in checkpoint.read_json(CONFIG):
        return checkpoint
    modules = modules_of(checkpoint)
    inner = [str(module.get("path", "")) for module in modules if kind_of(module) == "Transformer"]
    if not inner and checkpoint.folder is not None:
        inner = [path.parent.name for path in sorted(checkpoint.folder.glob(f"*/{CONFIG}")) if _has_type(path)]
    if len(inner) == 1 and inner[0]:
        found = dataclasses.replace(checkpoint, subfolder=inner[0])
        if "model_type" in found.read_json(CONFIG):
            note(f"{checkpoint.model} keeps its transformer in {inner[0]}: that is used")
            return found
    if checkpoint.folder is None:
        return checkpoint  # let transformers report what is wrong with a name on the hub
    if len(inner) > 1:
        raise BackboneError(
            f"{checkpoint.model} has no {CONFIG} but holds {len(inner)} models, in {', '.join(inner)}: name the folder "
            f"of one"
        )
    if (checkpoint.folder / _ADAPTER).is_file():
        base = checkpoint.read_json(_ADAPTER).get("base_model_name_or_path")
        raise BackboneError(
            f"{checkpoint.model} is a PEFT adapter of {base}, not a model: merge it into its model with PEFT "
            f"(merge_and_unload), save that, and name its folder"
        )
    lacks = "has no model_type in its config.json" if checkpoint.path(CONFIG) else f"has no {CONFIG}"
    held = sorted(path.name for path in checkpoint.folder.iterdir())
    raise BackboneError(
        f"the folder {checkpoint.model} {lacks} (it holds {', '.join(held[:8]) or 'nothing'}"
        f"{', …' if len(held) > 8 else ''}): expected {CONFIG}, weights and tokenizer, as save_pretrained writes them"
    )


def modules_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The modules of a sentence-transformers model; empty for other models.

    Raises:
        BackboneError: the file that lists them is damaged.
    """
    data = checkpoint.read(_MODULES)
    try:
        modules = json.loads(data) if data is not None else []
    except ValueError as error:
        raise BackboneError(
            f"{_MODULES} of {checkpoint.model} is not JSON ({error}): copy or download the model again"
        ) from error
    return [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []


def kind_of(module: Mapping[str, Any]) -> str:
    """The type of a module, such as "Pooling"."""
    return str(module.get("type", "")).rpartition(".")[2]


def _has_type(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and "model_type" in value


def _check_own_code(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    for file, record in ((CONFIG, config), (TOKENIZER_CONFIG, checkpoint.read_json(TOKENIZER_CONFIG))):
        if record.get("auto_map"):
            raise BackboneError(
                f"{checkpoint.model} brings code of its own ('auto_map' in {file}), and edgetune runs no code of a "
                f"model: expected one that transformers computes by itself, of {', '.join(sorted(FAMILIES))}"
            )


def _check_quantization(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise BackboneError(
            f"the weights of {checkpoint.model} are quantized ({method or 'quantization_config'} in {CONFIG}): "
            f"expected the weights that they were made from; edgetune quantizes while it exports (`precisions`)"
        )


def _check_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Check a local folder: tokenizer and weights must exist, be complete, and not be Git LFS pointers."""
    if (folder / _ADAPTER).is_file():
        raise BackboneError(
            f"{checkpoint.model} holds a PEFT adapter next to its weights ({_ADAPTER}): merge it with PEFT "
            f"(merge_and_unload) and save that, or move it to a folder of its own"
        )
    for file in _TOKENIZER_FILES:
        checkpoint.read(file)
    weights = next((file for file in _WEIGHTS if (folder / file).exists()), None)
    if weights is None:
        return  # transformers names the files that it looked for
    files = [weights]
    if weights.endswith(_INDEX):
        places = checkpoint.read_json(weights).get("weight_map")
        if not isinstance(places, dict):
            raise BackboneError(f"{folder / weights} has no weight_map: copy or download the model again")
        files = sorted({str(file) for file in places.values()})
    for file in files:
        _check_weights(folder / file, weights)


def _check_weights(path: Path, named_by: str) -> None:
    if not path.is_file():
        raise BackboneError(f"{path} is missing, which {named_by} names: copy or download the model again")
    with path.open("rb") as opened:
        start = opened.read(len(_LFS_POINTER))
    _check_no_pointer(path, start)
    reason = None
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            reason = str(error)
    elif not (zipfile.is_zipfile(path) or start.startswith(_PICKLE)):
        reason = "neither a zip archive nor a pickle"
    if reason is not None:
        raise BackboneError(
            f"{path} is damaged ({reason}): expected a whole file of weights; copy or download it again"
        )


def _check_no_pointer(path: Path, data: bytes) -> None:
    if data.startswith(_LFS_POINTER):
        raise BackboneError(
            f"{path} is a pointer of Git LFS, not the file itself: run 'git lfs pull' in the model's repository"
        )
