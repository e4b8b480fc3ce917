"""Long texts in windows: the whole text is read, and logits are averaged."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeTask
from hypothesis import given
from hypothesis import strategies as st

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import TaskError
from edgetune_runtime.text import _window_places

LONG = " ".join(["the lamp is broken", "thank you this works", "where is my parcel", "please send the money back"] * 9)


def in_windows(task: Task, **changes: object) -> Task:
    return dataclasses.replace(task, long_texts="windows", max_length=16, stride=4, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_logits_are_the_mean_of_those_of_the_windows(bundle: Bundle, make_task: MakeTask, pooling: str) -> None:
    task = in_windows(make_task(), pooling=pooling)
    with Engine(bundle, "fp32") as engine:
        (tokens,) = engine.encode([LONG], [task])
        cut = dataclasses.replace(task, long_texts="cut", max_length=60)
        bare = engine.encode([LONG], [cut])[0].ids
        windows = [window.ids for window in tokens.windows]
        assert len(windows) > 3 and not tokens.truncated
        inner = [ids[1:-1] for ids in windows]
        assert all(len(ids) == 14 for ids in inner[:-1])
        assert all(one[-4:] == other[:4] for one, other in itertools.pairwise(inner))
        whole = inner[0] + [id_ for ids in inner[1:] for id_ in ids[4:]]
        assert whole[:58] == bare[1:-1][:58]  # a text that is cut at 60 tokens is its beginning
        alone = engine.run([(ids, dataclasses.replace(task, long_texts="cut", stride=0)) for ids in windows])
        (together,) = engine.run([(tokens, task)])
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def test_a_short_text_is_read_as_ever(bundle: Bundle, make_task: MakeTask) -> None:
    task = make_task()
    with Engine(bundle, "fp32") as engine:
        engine.add_task(dataclasses.replace(task, name="plain"))
        engine.add_task(dataclasses.replace(task, name="windows", long_texts="windows", stride=4))
        plain, windows = engine.classify(["where is my parcel?"] * 2, tasks=["plain", "windows"])
    assert plain.fields() == windows.fields()


@pytest.mark.parametrize("template", ["it says: {text}", "{text} they wrote", "so {text} then"])
def test_each_window_has_the_template(bundle: Bundle, make_task: MakeTask, template: str) -> None:
    task = in_windows(make_task(), template=template)
    with Engine(bundle, "fp32") as engine:
        (tokens,) = engine.encode([LONG], [task])
        before, after = (engine._encoder.ids(part) for part in template.split("{text}"))
        for window in tokens.windows:
            ids = window.ids[1:-1]
            assert ids[: len(before)] == before
            assert ids[len(ids) - len(after) :] == after
            assert len(window.ids) <= 16
        read = [id_ for window in tokens.windows for id_ in window.ids]
        assert set(engine._encoder.ids(LONG)) <= set(read)


@pytest.mark.parametrize("long_side", [0, 1])
def test_of_a_pair_the_longer_side_is_read_in_windows(bundle: Bundle, make_task: MakeTask, long_side: int) -> None:
    task = in_windows(make_task(), pairs=True)
    pair = ("good lamp", LONG) if long_side else (LONG, "good lamp")
    with Engine(bundle, "fp32") as engine:
        (tokens,) = engine.encode([pair], [task])
        short = engine._encoder.ids("good lamp")
        for window in tokens.windows:
            joined = ",".join(map(str, window.ids))
            assert ",".join(map(str, short)) in joined
            assert len(window.ids) <= 16
        assert len(tokens.windows) > 5


def test_the_file_says_so_and_an_older_reader_is_told(make_task: MakeTask, tmp_path: Path) -> None:
    task = in_windows(make_task())
    task.save(tmp_path / "task.safetensors")
    again = Task.load(tmp_path / "task.safetensors")
    assert (again.long_texts, again.stride, again.requires) == ("windows", 4, ("long:windows",))


@pytest.mark.parametrize(
    "changes", [{"stride": 16}, {"stride": -1}, {"long_texts": "sideways"}], ids=lambda changes: str(changes)
)
def test_odd_settings_are_refused(make_task: MakeTask, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(TaskError, match="expected one of cut, windows, and a stride of at least 0 and below"):
        dataclasses.replace(in_windows(make_task()), **changes).save(tmp_path / "t")  # type: ignore[arg-type]


@given(st.integers(0, 300), st.integers(1, 60), st.integers(0, 80))
def test_windows_cover_all_tokens(length: int, size: int, stride: int) -> None:
    places = _window_places(length, size, stride)
    assert {place for begin, end in places for place in range(begin, end)} == set(range(length))
    assert all(0 < end - begin <= size for begin, end in places)
    assert [begin for begin, _ in places] == sorted({begin for begin, _ in places})
