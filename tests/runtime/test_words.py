"""Words of texts of every script, and their places."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune_runtime.words import words

SCRIPTS = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("aZ09.,_-'@#\t\r\n\f \u00a0\u200b\u200c\u200d\ufeff\u00ad\u0301\u0308\ufe0f\u202e\u2066"),
        st.sampled_from("éß京東タワーกำあ한글שלוםمرحباहिन्दी😀👩🏽🚀❤🇩🇪१²ﬁ\U00020000"),
    )
)


def said(text: str) -> list[str]:
    return [text[begin:end] for begin, end in words(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \t\r\n", []),
        ("\x00\x07\u200b\ufeff", []),
        ("It's 3.14!", ["It", "'", "s", "3", ".", "14", "!"]),
        ("a_b @c #d", ["a", "_", "b", "@", "c", "#", "d"]),
        ("Zu\u0308rich, Zürich", ["Zu\u0308rich", ",", "Zürich"]),
        ("co\u00adop \u200bx\u200b y", ["co\u00adop", "x", "y"]),
        ("京都a東京", ["京", "都", "a", "東", "京"]),
        ("東京タワー", list("東京タワー")),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("한글 문장", ["한글", "문장"]),
        ("שלום, עולם", ["שלום", ",", "עולם"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👩🏽\u200d🚀❤\ufe0f🇩🇪🇫🇷1\ufe0f\u20e3", ["👩🏽\u200d🚀", "❤\ufe0f", "🇩🇪", "🇫🇷", "1\ufe0f\u20e3"]),
        ("\u0301x", ["\u0301", "x"]),
        ("a\r\nb", ["a", "b"]),
    ],
)
def test_words_by_hand(text: str, found: list[str]) -> None:
    assert said(text) == found


@given(SCRIPTS)
def test_words_are_in_order_and_nothing_that_can_be_seen_is_left(text: str) -> None:
    places = words(text)
    ends = [0]
    for begin, end in places:
        assert ends[-1] <= begin < end <= len(text)
        assert not text[begin:end].isspace()
        assert not any(one.isspace() for one in text[begin:end])
        ends.append(end)
    inside = {at for begin, end in places for at in range(begin, end)}
    for at, character in enumerate(text):
        if unicodedata.category(character)[0] in "LNPSM":
            assert at in inside


@given(st.text(st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_is_the_long_one(text: str) -> None:
    assert words(text) == words(f"{text} é")[:-1]
