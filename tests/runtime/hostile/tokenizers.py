"""Tokenizers: unreadable, panicking, or with ids that the backbone does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgetune_runtime import files
from hostile.changes import Cases, Change, edit, edit_json, put


def tokenizer_with(change_value: Callable[[Any], object]) -> Change:
    return edit_json(files.TOKENIZER, change_value, sign=True)


def vocabulary_of(value: Any) -> Callable[[Any], None]:
    """The id of a word in the texts."""

    def changed(tokenizer: Any) -> None:
        tokenizer["model"]["vocab"]["lamp"] = value

    return changed


def post_processor(ids: list[int], times: int = 1) -> dict[str, Any]:
    special = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*[special] * times, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": ids, "tokens": ["[CLS]"] * len(ids)}},
    }


def part(name: str, value: Any) -> Callable[[Any], None]:
    def changed(tokenizer: Any) -> None:
        tokenizer[name] = value

    return changed


def of_tokenizers() -> Cases:
    unreadable, fails = "tokenizer.json cannot be read", "tokenizer.json fails on a text"
    whole = {
        "empty": "",
        "an object": "{}",
        "no JSON": "{tokenizer}",
        "a list": "[]",
        "null": "null",
        "nested 100,000 deep": "[" * 100_000,
        "no UTF-8": b"\xff\xfe",
        "version alone": '{"version": "1.0"}',
        "zeros": bytes(1000),
    }
    for name, data in whole.items():
        yield f"tokenizer: {name}", put(files.TOKENIZER, data, sign=True), unreadable
    yield "tokenizer: cut", edit(files.TOKENIZER, lambda data: data[: len(data) // 2], sign=True), unreadable
    for value in (1 << 32, -1, "5", 5.5, None, [5]):
        yield f"tokenizer: a word's id {value!r}", tokenizer_with(vocabulary_of(value)), unreadable
    for value in (100_000, (1 << 32) - 1, 1 << 31):
        yield f"tokenizer: a word's id {value:,}", tokenizer_with(vocabulary_of(value)), "gives the token id"
    ids = "tokenizer.json gives the token id"
    yield (
        "tokenizer: a special token's id 2**31",
        tokenizer_with(part("post_processor", post_processor([1 << 31]))),
        ids,
    )
    many = post_processor([2], times=1000)
    yield "tokenizer: 1,000 special tokens", tokenizer_with(part("post_processor", many)), "1,000 special tokens"
    wide = post_processor([2] * 1000)
    yield "tokenizer: a special token of 1,000 ids", tokenizer_with(part("post_processor", wide)), "special tokens"
    missing = post_processor([2])
    missing["special_tokens"] = {}
    yield "tokenizer: a special token that is not told", tokenizer_with(part("post_processor", missing)), fails
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model"):
        yield f"tokenizer: an unknown {name}", tokenizer_with(part(name, {"type": "Shell"})), unreadable
    split = {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
    yield "tokenizer: a pattern that is none", tokenizer_with(part("pre_tokenizer", split)), unreadable
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    yield "tokenizer: a character map that is none", tokenizer_with(part("normalizer", charsmap)), unreadable
    yield (
        "tokenizer: no token for unknown words",
        tokenizer_with(lambda tokenizer: tokenizer["model"]["vocab"].pop("[UNK]")),
        fails,
    )
    yield (
        "tokenizer: pieces without one for unknown ones",
        tokenizer_with(
            part("model", {"type": "Unigram", "unk_id": None, "vocab": [["q", -1.0]], "byte_fallback": False})
        ),
        fails,
    )
    yield (
        "tokenizer: an unknown piece past the end",
        tokenizer_with(part("model", {"type": "Unigram", "unk_id": 9, "vocab": [["q", -1.0]], "byte_fallback": False})),
        unreadable,
    )
