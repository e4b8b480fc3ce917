"""Text to token ids, as the backbone was trained to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from edgetune_runtime.errors import BundleError
from edgetune_runtime.task import TEXT_SLOT, Task


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text, special tokens included, and whether its end was cut off."""

    ids: list[int]
    truncated: bool


class TextEncoder:
    """A tokenizer that truncates each text to its task's length, and never pads.

    Args:
        tokenizer_json: the contents of a `tokenizer.json`.
        max_positions: positions that the backbone has.
    """

    def __init__(self, tokenizer_json: bytes, max_positions: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
        except Exception as error:
            raise BundleError(f"tokenizer.json cannot be read ({error}): export the bundle again") from error
        # A stored truncation or padding would be applied to every text behind our back.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_positions = max_positions
        self._special = self._tokenizer.num_special_tokens_to_add(False)

    def max_length(self, task: Task) -> int:
        """Most tokens that a text of this task can have, special tokens included."""
        return min(task.max_length, self._max_positions - max(task.position_offset, task.prompt_length))

    def encode(self, texts: Sequence[str], tasks: Sequence[Task]) -> list[Tokens]:
        """Tokenize texts, each with the template and the length of its own task."""
        filled = [task.template.replace(TEXT_SLOT, text) for text, task in zip(texts, tasks, strict=True)]
        rows = []
        encodings = self._tokenizer.encode_batch(filled, add_special_tokens=False)
        for encoding, task in zip(encodings, tasks, strict=True):
            room = max(1, self.max_length(task) - self._special)
            truncated = len(encoding.ids) > room
            if truncated:
                encoding.truncate(room)
            # Without special tokens an empty text has no token at all, and a run needs one.
            rows.append(Tokens(self._tokenizer.post_process(encoding).ids or [0], truncated))
        return rows
