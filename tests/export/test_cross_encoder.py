"""A transformers cross-encoder becomes a task for pairs, with the same logits in the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TEXTS
from transformers import (
    AlbertForSequenceClassification,
    AutoConfig,
    BertForSequenceClassification,
    BertTokenizer,
    ElectraTokenizer,
)

from edgetune_export import export_bundle, load_backbone
from edgetune_runtime import Bundle, Engine, Task, contract

WORDS = sorted({word for text in TEXTS for word in text.replace(",", " ").replace(";", " ").split()})
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", ";", "?", *map(str.lower, WORDS)]
POSITIONS = 40
PAIRS = [
    *zip(TEXTS, TEXTS[3:] + TEXTS[:3], strict=True),
    ("good", ""),
    ("", "good"),
    ("the lamp is broken " * 20, "good"),
    ("good", "the lamp is broken " * 20),
    ("the lamp is broken " * 20, "the screen stays black " * 20),
]
MODELS: dict[str, tuple[Any, Any]] = {
    "bert": (BertForSequenceClassification, BertTokenizer),
    "albert": (AlbertForSequenceClassification, ElectraTokenizer),  # a WordPiece tokenizer is sufficient
}


class CrossEncoder:
    """A tiny model of random weights that reads pairs, in transformers and as a bundle."""

    def __init__(self, folder: Path, architecture: str, labels: int) -> None:
        model_class, tokenizer_class = MODELS[architecture]
        self.tokenizer = tokenizer_class(vocab={word: place for place, word in enumerate(dict.fromkeys(VOCABULARY))})
        torch.manual_seed(labels)
        config = AutoConfig.for_model(
            architecture,
            vocab_size=len(self.tokenizer),
            hidden_size=32,
            embedding_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=POSITIONS,
            num_labels=labels,
            pad_token_id=0,
            initializer_range=0.2,
        )
        self.model = model_class(config).eval()
        self.model.save_pretrained(folder / "model")
        self.tokenizer.save_pretrained(folder / "model")
        backbone = load_backbone(str(folder / "model"))
        classifier = self.model.classifier
        self.task = Task(
            name="cross",
            labels=tuple(f"label{place}" for place in range(labels)),
            backbone_sha256=backbone.facts.sha256,
            tensors={
                contract.HEAD_WEIGHT: classifier.weight.detach().numpy(),
                contract.HEAD_BIAS: classifier.bias.detach().numpy(),
            },
            method="imported",
            base_model=backbone.name,
            pooling="pooler",
            kind_name="score" if labels == 1 else "single-label",
            pairs=True,
        )
        export_bundle(backbone, folder / "bundle", precisions=["fp32"], tasks=[self.task])
        self.bundle = Bundle(folder / "bundle")

    def expected(self, first: str, second: str) -> np.ndarray:
        """The original's logits.

        A batch of one is used, because otherwise the tokenizer ignores an empty second text.
        """
        given = self.tokenizer(
            [first], [second], truncation="longest_first", max_length=POSITIONS, return_tensors="pt",
            return_token_type_ids=True,
        )  # fmt: skip
        with torch.no_grad():
            logits: np.ndarray = self.model(**given).logits[0].numpy()
        return logits


@pytest.fixture(scope="module", params=[("bert", 1), ("albert", 3)], ids=lambda given: f"{given[0]}-{given[1]}")
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A cross-encoder. Not to be changed."""
    return CrossEncoder(tmp_path_factory.mktemp("cross"), *request.param)


@pytest.fixture
def engine(both: CrossEncoder) -> Iterator[Engine]:
    with Engine(both.bundle, "fp32", threads=1) as opened:
        yield opened


def test_logits_are_those_of_transformers(both: CrossEncoder, engine: Engine) -> None:
    task = engine.task("cross")
    tokens = engine.encode(PAIRS, [task] * len(PAIRS))
    got = engine.run([(row, task) for row in tokens])
    expected = [both.expected(*pair) for pair in PAIRS]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.std(expected, axis=0).min() > 0.01  # pairs are told apart
    assert [row.truncated for row in tokens] == [False] * (len(PAIRS) - 3) + [True] * 3


def test_answers_are_those_of_transformers(both: CrossEncoder, engine: Engine) -> None:
    for result, pair in zip(engine.classify(PAIRS, "cross"), PAIRS, strict=True):
        logits = torch.from_numpy(both.expected(*pair))
        if len(logits) == 1:
            assert result.fields() == {"score": pytest.approx(float(logits[0]), abs=1e-4)}
        else:
            scores = dict(zip(both.task.labels, map(float, logits.softmax(dim=0)), strict=True))
            assert result.fields()["scores"] == pytest.approx(scores, abs=1e-4)


def test_batches_answer_as_single_runs(both: CrossEncoder, engine: Engine) -> None:
    with Engine(both.bundle, "fp32", threads=1, batch_size=8) as batched:
        for one, other in zip(engine.classify(PAIRS, "cross"), batched.classify(PAIRS, "cross"), strict=True):
            assert one.fields().keys() == other.fields().keys()
            numbers = [
                list(fields.get("scores", {"score": fields["score"]}).values())
                for fields in (one.fields(), other.fields())
            ]
            assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)


def test_it_was_measured_on_pairs(both: CrossEncoder) -> None:
    parity = both.bundle.manifest.graphs["fp32"].parity["cross"]
    assert parity.rows > 8
    assert parity.max_logit_difference < 1e-4
    assert both.bundle.load_task("cross").requires[-1] == "pairs"
    assert contract.TOKEN_TYPE_IDS in both.bundle.facts.inputs
