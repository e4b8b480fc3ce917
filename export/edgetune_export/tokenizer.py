"""The exported tokenizer: the checkpoint's tokenizer.json, unchanged, compared with transformers' tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from edgetune_export.checkpoint import ADDED_TOKENS, TOKENIZER_CONFIG, Checkpoint, note
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text, TextEncoder, Tokens

TOKENIZER = "tokenizer.json"
_BATTERY = (
    "",
    " ",
    "hello world",
    " Hello,  World! ",
    "The QUICK brown-fox can't jump: it's 3.14159, 1,000 and 2026-11-24.",
    "a\tb\nc\r\nd",
    "\u00a0non\u00adbreaking\u200bzero\u200dwidth\ufeff",
    "bell\x07 null\x00 escape\x1b",
    "naïve café, Zürich, Ångström, œuvre, İstanbul, ǅ",
    "e\u0301 and \u00e9, ﬁ, ½, ①, ℌ",
    "１２３４５ ＡＢＣ ｱｲｳ",
    "12345678901234567890 0x1F 1e-9 №5",
    "@user_name and #hashtag at https://example.org/a?b=c&d=1 or me@example.org",
    "Привет, как дела?",
    "你好，世界。今天天氣很好",
    "こんにちは世界、カタカナ",
    "안녕하세요 세계",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया १२३",
    "สวัสดีชาวโลก",
    "😀 👩‍👩‍👧 🇩🇪 ❤️",
    "$5 = €4.60 + £1; 50% <b>bold</b> & {x} [y] (z) \\n ~ ^ | `code`",
    "“quotes” ‘single’ — dash … dots",
    "def f(x):\n    return x ** 2  # twice",
    "a" * 120,
    "Donaudampfschifffahrtsgesellschaftskapitänsmütze " * 3,
)
"""Strings that reveal differences between tokenizers: scripts, digits, handles, white space, control characters, long
words."""


class BackboneEncoder(TextEncoder):
    """A text encoder that rejects tokens without an embedding in the backbone, with an error that names them.

    Args:
        tokenizer_json, max_positions, mask_token: see `TextEncoder`.
        embeddings: number of rows of the backbone's embedding table.
    """

    def __init__(self, tokenizer_json: bytes, max_positions: int, mask_token: str, embeddings: int) -> None:
        super().__init__(tokenizer_json, max_positions, mask_token)
        self._embeddings = embeddings

    def ids(self, text: str) -> list[int]:
        """Token ids of only a text, without template and special tokens.

        Raises:
            BackboneError: the backbone has no embedding for one of them.
        """
        found = super().ids(text)
        self._check_embedded(found, text)
        return found

    def encode(self, texts: Sequence[Text], tasks: Sequence[Task]) -> list[Tokens]:
        """Tokenize texts, each with its own task's template and length.

        Raises:
            BackboneError: the backbone has no embedding for a token of one of them.
        """
        rows = super().encode(texts, tasks)
        for row, text in zip(rows, texts, strict=True):
            self._check_embedded(row.ids, text if isinstance(text, str) else " | ".join(text))
        return rows

    def _check_embedded(self, ids: Iterable[int], text: str) -> None:
        beyond = next((token for token in ids if token >= self._embeddings), None)
        if beyond is not None:
            added = self._tokenizer.get_added_tokens_decoder()  # in the original spelling, not normalized
            token = added[beyond].content if beyond in added else self._tokenizer.id_to_token(beyond)
            raise BackboneError(
                f"the text {text[:60]!r} has the token {token} ({beyond}), and the model has embeddings for "
                f"{self._embeddings} tokens: {_RESIZE}, or leave the text out"
            )


_RESIZE = "resize the model's embeddings (model.resize_token_embeddings(len(tokenizer))), train them and save it again"


def exported_tokenizer(checkpoint: Checkpoint, made: Any) -> bytes:
    """The contents of the `tokenizer.json` to export.

    This is the checkpoint's own file, if it has one, because transformers rebuilds some tokenizers from the vocabulary,
    and these tokenize differently. Differences are reported on stderr.

    Args:
        checkpoint: the model's files.
        made: the tokenizer that transformers built from them.

    Raises:
        BackboneError: the file cannot be read, or lacks tokens and uses their ids for others.
    """
    rebuilt: Tokenizer = made.backend_tokenizer
    data = checkpoint.read(TOKENIZER)
    if data is None:
        return rebuilt.to_str().encode()
    try:
        own = Tokenizer.from_buffer(data)
    except Exception as error:
        raise BackboneError(
            f"{TOKENIZER} of {checkpoint.model} cannot be read ({error}): copy or download it again"
        ) from error
    lacking = _lacking(checkpoint, own)
    if lacking:
        own = _with_tokens(checkpoint, own, lacking)
        data = own.to_str().encode()
    _say_differences(checkpoint, own, rebuilt)
    return data


def usable_mask_token(tokenizer_json: bytes, made: Any, embeddings: int) -> tuple[str, int] | None:
    """The mask token and its id, if the exported tokenizer reads it as one token that the model knows."""
    if not made.mask_token:
        return None
    ids = Tokenizer.from_buffer(tokenizer_json).encode(made.mask_token, add_special_tokens=False).ids
    if len(ids) != 1 or ids[0] >= embeddings:
        return None
    return made.mask_token, ids[0]


def check_embedded(checkpoint: Checkpoint, tokenizer_json: bytes, embeddings: int) -> None:
    """Compare the tokenizer's ids with the rows of the model's embedding table.

    Raises:
        BackboneError: words of its vocabulary have no row, or most rows have no word.
    """
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    known = tokenizer.get_vocab_size()
    if known * 2 < embeddings:
        raise BackboneError(
            f"the tokenizer of {checkpoint.model} knows {known} tokens and the model {embeddings}: is {TOKENIZER} "
            f"missing? Copy the tokenizer's files next to the weights"
        )
    words = tokenizer.get_vocab(with_added_tokens=False)
    added = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    beyond = sorted((number, word) for word, number in {**words, **added}.items() if number >= embeddings)
    if not beyond:
        return
    if any(word not in added for _, word in beyond):
        raise BackboneError(
            f"the tokenizer of {checkpoint.model} has {max(beyond)[0] + 1} tokens and the model embeddings for "
            f"{embeddings}: it belongs to another model; copy the model's own tokenizer next to the weights"
        )
    names = ", ".join(word for _, word in beyond[:5]) + (", …" if len(beyond) > 5 else "")
    note(
        f"the tokenizer of {checkpoint.model} has added tokens for which the model has no embedding ({names}), so that "
        f"texts with them are refused: {_RESIZE}"
    )


def _lacking(checkpoint: Checkpoint, own: Tokenizer) -> dict[int, AddedToken]:
    """Tokens with an id in other files of the checkpoint that its tokenizer.json does not know."""
    tokens: dict[int, AddedToken] = {}
    for content, number in checkpoint.read_json(ADDED_TOKENS).items():
        tokens[int(number)] = AddedToken(content, normalized=False)
    for number, kept in (checkpoint.read_json(TOKENIZER_CONFIG).get("added_tokens_decoder") or {}).items():
        how = {key: kept[key] for key in ("single_word", "lstrip", "rstrip", "normalized", "special") if key in kept}
        tokens[int(number)] = AddedToken(kept["content"], **how)
    return {number: tokens[number] for number in sorted(tokens) if own.token_to_id(tokens[number].content) is None}


def _with_tokens(checkpoint: Checkpoint, own: Tokenizer, lacking: dict[int, AddedToken]) -> Tokenizer:
    names = ", ".join(token.content for token in lacking.values())
    for number, token in lacking.items():
        # A new token gets the first free id.
        own.add_tokens([token])
        if own.token_to_id(token.content) != number:
            raise BackboneError(
                f"{TOKENIZER} of {checkpoint.model} lacks tokens that {ADDED_TOKENS} or {TOKENIZER_CONFIG} has "
                f"({names}), and {token.content} cannot get its id {number} there: save the tokenizer again "
                f"(AutoTokenizer.from_pretrained(…).save_pretrained(…))"
            )
    note(
        f"{TOKENIZER} of {checkpoint.model} lacks tokens that {ADDED_TOKENS} or {TOKENIZER_CONFIG} has: {names}; they "
        f"are added"
    )
    return own


def _say_differences(checkpoint: Checkpoint, own: Tokenizer, rebuilt: Tokenizer) -> None:
    for tokenizer in (own, rebuilt):
        # Both changes are discarded: the file's bytes are exported.
        tokenizer.no_truncation()
        tokenizer.no_padding()
    added = [token.content for token in own.get_added_tokens_decoder().values()]
    battery = [*_BATTERY, *(f"a{token}b {token} c" for token in added[:50])]
    differing = [text for text in battery if own.encode(text).ids != rebuilt.encode(text).ids]
    if differing:
        shortest = min(differing, key=len)
        mine, theirs = (" ".join(each.encode(shortest).tokens) for each in (own, rebuilt))
        note(
            f"{TOKENIZER} of {checkpoint.model} reads {len(differing)} of {len(battery)} test strings otherwise than "
            f"the tokenizer that transformers makes of it ({shortest[:40]!r}: {mine[:80]!r}, not {theirs[:80]!r}): "
            f"the file is taken as it stands"
        )
