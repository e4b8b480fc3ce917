"""Values from untrusted files: JSON, integers and text, or a `ValueError` that says what came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune_runtime import strict
from edgetune_runtime.errors import EdgetuneError

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None)
@given(values)
def test_plain_json_comes_back(value: Any) -> None:
    assert strict.json_value(json.dumps(value)) == value
    assert strict.json_value(json.dumps(value, ensure_ascii=False).encode()) == value


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes | str) -> None:
    try:
        value = strict.json_value(data)
    except ValueError:
        return
    assert strict.json_value(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 1}', "a key twice"),
        ('[{"b": {"a": 1, "\\u0061": 2}}]', "a key twice"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e400", "1e400 is too large"),
        ('"\\udc00"', "surrogates not allowed"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufeff{}", "BOM"),
        ("1" * 5000, "digits"),
    ],
)
def test_loose_ends_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict.json_value(text)


@pytest.mark.parametrize("value", [0, 6, -1, True, 3.0, "3", None, [3]])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    assert strict.whole_number(3, 1, 5) == 3
    with pytest.raises(ValueError, match="expected a whole number from 1 to 5"):
        strict.whole_number(value, 1, 5)


@pytest.mark.parametrize("value", ["", "a b", "größe 赤い 😀", "a\tb\nc", "{text}", "x" * 20])
def test_text_is_kept(value: str) -> None:
    assert strict.plain_text(value, 20) == value


@pytest.mark.parametrize("value", ["\0", "a\rb", "\x1b[2J", "\x7f", "\x9b2J", "\ud800", "x" * 21, 3, None, b"a"])
def test_text_that_could_not_be_shown_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        strict.plain_text(value, 20)


@given(st.text(st.characters(), max_size=50))
def test_an_error_is_one_line_without_control_characters(text: str) -> None:
    shown = str(EdgetuneError(text))
    assert len(shown.splitlines()) <= 1
    strict.plain_text(shown, 5000)


def test_an_error_does_not_go_on_for_ever() -> None:
    shown = str(EdgetuneError("begins " + "x" * 1_000_000 + " and ends"))
    assert len(shown) < 2100
    assert shown.startswith("begins ")
    assert shown.endswith(" and ends")
