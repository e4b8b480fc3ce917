"""Vectors of texts: the same as from transformers' own model with the usual pooling."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HIDDEN, TEXTS, MakeTask

from edgetune_runtime import Bundle, Engine
from edgetune_runtime.arrays import Array, unit_length
from edgetune_runtime.errors import DataError, TaskError

CLOSE = 1e-5
LONG = " ".join(TEXTS * 3)
"""More tokens than the backbone has positions."""


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with Engine(bundle, "fp32", threads=2) as engine:
        yield engine


def mean_pooled(folder: Path, texts: list[str]) -> Array:
    """The mean over a text's tokens, as sentence-transformers computes it: padded, in PyTorch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    read = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**read).last_hidden_state
    mask = read["attention_mask"][..., None]
    found: Array = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return found


def test_vectors_are_those_of_transformers(engine: Engine, model_folder: Path) -> None:
    texts = [*TEXTS, "", LONG]
    expected = mean_pooled(model_folder, texts)
    vectors = engine.embed(texts)
    assert (vectors.shape, vectors.dtype) == ((len(texts), HIDDEN), np.float32)
    np.testing.assert_allclose(vectors, expected, atol=CLOSE)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(engine.embed(texts, normalize=True), unit, atol=CLOSE)


def test_each_precision_has_its_own(bundle: Bundle, engine: Engine) -> None:
    with Engine(bundle, "int8") as small:
        near = (engine.embed(TEXTS, normalize=True) * small.embed(TEXTS, normalize=True)).sum(axis=1)
    assert near.min() > 0.9
    assert (near < 1 - 1e-6).any()


@pytest.mark.parametrize("name", ["colour", "size"])
def test_behind_the_prompt_of_a_task(engine: Engine, name: str) -> None:
    found = engine.embed(TEXTS, task=name)
    np.testing.assert_array_equal(found, engine.embed(TEXTS, task=engine.task(name)))
    np.testing.assert_array_equal(found, engine.features(TEXTS, name))
    assert np.abs(found - engine.embed(TEXTS)).max() > 0.1


def test_with_the_pooling_of_a_task(engine: Engine, make_task: MakeTask) -> None:
    first = dataclasses.replace(make_task(prefix=0), pooling="cls")
    assert np.abs(engine.embed(TEXTS, task=first) - engine.embed(TEXTS)).max() > 0.1
    mean = make_task(prefix=0)
    np.testing.assert_array_equal(engine.embed(TEXTS, task=mean), engine.embed(TEXTS))


def test_pairs_behind_a_task_that_takes_them(engine: Engine, make_task: MakeTask) -> None:
    pairs = dataclasses.replace(make_task(), pairs=True)
    found = engine.embed([(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0])], task=pairs)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with pytest.raises(DataError, match="text 0 is a string: expected a pair"):
        engine.embed(TEXTS, task=pairs)


def test_a_text_in_windows_has_the_mean_of_theirs(engine: Engine, make_task: MakeTask) -> None:
    windows = dataclasses.replace(make_task(prefix=0), long_texts="windows", max_length=16, stride=2)
    whole, cut = (engine.embed([LONG], task=dataclasses.replace(windows, long_texts=how)) for how in ("windows", "cut"))
    assert np.abs(whole - cut).max() > 1e-2


def test_no_texts(engine: Engine) -> None:
    assert engine.embed([]).shape == (0, HIDDEN)
    assert engine.embed([], normalize=True).shape == (0, HIDDEN)


def test_a_bundle_without_tasks_embeds(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(bundle.path, tmp_path / "bundle", ignore=shutil.ignore_patterns("tasks"))
    with Engine(folder, "fp32") as bare:
        assert bare.task_names == []
        np.testing.assert_array_equal(bare.embed(TEXTS), engine.embed(TEXTS))


@pytest.mark.parametrize("name", ["encoder", "decoder", "encoder-decoder", "fused-decoder"])
def test_every_architecture_embeds(name: str) -> None:
    """The committed bundles, each with its default pooling."""
    folder = Path(__file__).parents[1] / "conformance" / "bundle" / name
    with Engine(Bundle(folder), "fp32") as engine:
        vectors = engine.embed(TEXTS, normalize=True)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE)
        assert engine.bare_task.pooling == engine.bundle.facts.poolings[0]


def test_after_a_pickle(engine: Engine) -> None:
    expected = engine.embed(TEXTS)
    with pickle.loads(pickle.dumps(engine)) as other:
        np.testing.assert_array_equal(other.embed(TEXTS), expected)


@pytest.mark.parametrize(
    ("texts", "task", "kind", "why"),
    [
        ("good", None, DataError, "one string came instead of a list of texts: write [text]"),
        (["good", 3], None, DataError, "text 1 is a int: expected a string for task 'tiny-bert'"),
        ([("good", "bad")], None, DataError, "text 0 is a tuple of 2: expected a string for task 'tiny-bert'"),
        (["\ud800"], None, DataError, "text 0 has half of a surrogate pair: expected whole characters"),
        (["good"], "none", TaskError, "no task 'none' here"),
    ],
)
def test_refused(engine: Engine, texts: Any, task: Any, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind) as caught:
        engine.embed(texts, task=task)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vector_of_no_length_stays() -> None:
    np.testing.assert_array_equal(unit_length(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.6, 0.8]])
