"""docs/python.md is true: its code runs in order, and code that does not need PyTorch does not load it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import save_tokenizer
from transformers import RobertaConfig, RobertaForSequenceClassification

import edgetune
from edgetune_runtime import Task

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/python.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BEFORE, AFTER = DOCUMENT.split("\n## Train\n")
NO_PYTORCH = "import sys\nassert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"


def save_classifier(folder: Path) -> None:
    """Save a tiny classifier with its tokenizer."""
    config = RobertaConfig(
        vocab_size=save_tokenizer(folder), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=80, pad_token_id=0, num_labels=3,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(folder)


def test_its_code_runs(bundle_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    shutil.copytree(model_folder, tmp_path / "MiniLM")
    save_classifier(tmp_path / "roberta-emotion")
    program = "\n".join([*BLOCK.findall(BEFORE), NO_PYTORCH, *BLOCK.findall(AFTER)])
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} == {
        "MiniLM", "bundle", "bundle-2", "bundle-3", "cache", "report", "roberta-emotion", "tickets.safetensors",
    }  # fmt: skip
    assert Task.load(tmp_path / "tickets.safetensors").labels == ("billing", "delivery")


def test_all_blocks_are_run() -> None:
    assert DOCUMENT.count("```") == 2 * len(BLOCK.findall(DOCUMENT))


def test_it_names_all_that_is_exported() -> None:
    named = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`\n]+)`", BLOCK.sub("", DOCUMENT)))))
    assert set(edgetune.__all__) <= named
    assert set(edgetune.sklearn.__all__) - {"InputError"} <= named


def test_its_links_lead_somewhere() -> None:
    headings = {line.strip("# ").lower().replace(" ", "-") for line in DOCUMENT.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", DOCUMENT):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (ROOT / "docs" / target.partition("#")[0]).is_file()
