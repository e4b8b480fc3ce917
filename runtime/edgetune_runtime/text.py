"""Text to token ids, as the backbone was trained to read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from edgetune_runtime import forks
from edgetune_runtime.contract import MASK_SLOT, TEXT_SLOT
from edgetune_runtime.errors import BundleError, TaskError, TextError
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text, special tokens included, and whether its end was cut off."""

    ids: list[int]
    truncated: bool


class TextEncoder:
    """A tokenizer that fills each text into its task's template, cuts it to the task's length, and never pads.

    Args:
        tokenizer_json: the contents of a `tokenizer.json`.
        max_positions: positions that the backbone has.
        mask_token: what `{mask}` becomes. Where a template has one, the text's own are read as spaces.
        vocabulary_size: token ids that the backbone knows; where it is told, other ids are refused, and more of them
            than there are positions. Where a model is trained or exported, its tokenizer is trusted.

    Raises:
        BundleError: the tokenizer cannot be read; from the methods a `TextError`, if it fails on a text or gives other
            ids.
    """

    def __init__(
        self, tokenizer_json: bytes, max_positions: int, mask_token: str = "", vocabulary_size: int | None = None
    ) -> None:
        with _failures_told("cannot be read", BundleError):
            self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
            # A stored truncation or padding would be applied to every text behind our back.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._special = self._tokenizer.num_special_tokens_to_add(False)
        if self._special >= max_positions:
            raise BundleError(
                f"tokenizer.json adds {self._special:,} special tokens to a text, and the backbone has "
                f"{max_positions:,} positions: export the bundle again"
            )
        self._max_positions = max_positions
        self._mask_token = mask_token
        self._vocabulary_size = vocabulary_size

    def max_length(self, task: Task) -> int:
        """Most tokens that a text of this task can have, special tokens and template included."""
        return min(task.max_length, self._positions(task))

    def fitted(self, task: Task) -> Task:
        """A new task with the length that it can have on this backbone.

        Raises:
            TaskError: its template leaves no room for text.
        """
        length = self.max_length(task)
        template = len(self.ids("".join(self._frame(task)))) + self._special
        if template >= length:
            raise TaskError(
                f"the template {task.template!r} of task '{task.name}' takes {template} tokens, special tokens "
                f"included, of {length} that are read: expected room for text; shorten it, or raise --max-length"
            )
        return dataclasses.replace(task, max_length=length)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text alone, without template or special tokens."""
        with _failures_told("fails on a text", TextError):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Sequence[str], tasks: Sequence[Task]) -> list[Tokens]:
        """Tokenize texts, each with the template and the length of its own task."""
        frames = [self._frame(task) for task in tasks]
        if self._mask_token:
            texts = [
                text.replace(self._mask_token, " ") if task.pooling == "mask" else text
                for text, task in zip(texts, tasks, strict=True)
            ]
        filled = [text.join(frame) for text, frame in zip(texts, frames, strict=True)]
        rows = []
        with _failures_told("fails on a text", TextError):
            encodings = self._read(filled)
            for encoding, text, frame, task in zip(encodings, texts, frames, tasks, strict=True):
                room = max(1, self.max_length(task) - self._special)
                truncated = len(encoding.ids) > room
                if truncated:
                    encoding = self._cut(encoding, text, frame, room)
                # Without special tokens an empty text has no token at all, and a run needs one.
                rows.append(Tokens(self._tokenizer.post_process(encoding).ids or [0], truncated))
        for row, task in zip(rows, tasks, strict=True):
            self._check(row.ids, task)
        return rows

    def _read(self, texts: Sequence[str]) -> list[Encoding]:
        if forks.is_forked():  # the threads that read many texts side by side are not here, and would be waited for
            return [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return list(self._tokenizer.encode_batch(texts, add_special_tokens=False))

    def _check(self, ids: Sequence[int], task: Task) -> None:
        if self._vocabulary_size is None:
            return
        if max(ids) >= self._vocabulary_size:
            raise TextError(
                f"tokenizer.json gives the token id {max(ids):,}, and the backbone knows {self._vocabulary_size:,}: "
                f"export the bundle again"
            )
        if len(ids) > self._positions(task):
            raise TextError(
                f"tokenizer.json gives {len(ids):,} tokens where task '{task.name}' leaves {self._positions(task):,} "
                f"positions: export the bundle again, or train the task with a shorter prompt"
            )

    def _positions(self, task: Task) -> int:
        """Positions that a task leaves for the text."""
        return self._max_positions - max(task.position_offset, task.prompt_length)

    def _frame(self, task: Task) -> tuple[str, str]:
        before, _, after = task.template.partition(TEXT_SLOT)
        return before.replace(MASK_SLOT, self._mask_token), after.replace(MASK_SLOT, self._mask_token)

    def _cut(self, encoding: Encoding, text: str, frame: tuple[str, str], room: int) -> Encoding:
        """Cut the end of the text, not of what the template puts behind it."""
        while frame[1] and len(encoding.ids) > room and text:
            start = len(frame[0])
            ends = [end for begin, end in encoding.offsets if begin >= start and end <= start + len(text)]
            kept = len(ends) - (len(encoding.ids) - room)
            # Tokens of one character share their ends: at least that character goes.
            text = text[: min(ends[kept - 1] - start, len(text) - 1)] if 0 < kept < len(ends) else ""
            encoding = self._tokenizer.encode(text.join(frame), add_special_tokens=False)
        encoding.truncate(room)
        return encoding


def is_unicode(text: str) -> bool:
    """Whether a string is whole characters: halves of surrogate pairs, which no tokenizer takes, are none."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _failures_told(what: str, told_as: type[BundleError]) -> Iterator[None]:
    """Around calls of the tokenizer: what it raises is told as a fault of its file."""
    try:
        yield
    except BaseException as error:
        # What is a panic in Rust comes as an exception that is no `Exception`, of a class that cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise told_as(f"tokenizer.json {what} ({error}): export the bundle again") from error
