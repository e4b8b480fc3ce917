"""Convert text to a backbone's input: token ids, segments, and the spans that features are read from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from tokenizers import Encoding, Tokenizer

from edgetune_runtime import contract, forks
from edgetune_runtime.candidates import NO_PLACE
from edgetune_runtime.contract import MASK_SLOT, TEXT_PAIR_SLOT, TEXT_SLOT, WINDOWS
from edgetune_runtime.errors import BundleError, TaskError, TextError
from edgetune_runtime.kinds.kind import WHOLE, Place, Read, Reading
from edgetune_runtime.pieces import Span, TokenPlace, pieces_of, span_of_none
from edgetune_runtime.task import Task

Text = str | tuple[str, str]
"""The input of a task: a text or, for tasks that take pairs, two texts."""

_SLOT = re.compile(f"({re.escape(TEXT_SLOT)})")
_PAIR_SLOTS = re.compile(f"({re.escape(TEXT_SLOT)}|{re.escape(TEXT_PAIR_SLOT)})")


@dataclass(frozen=True)
class Tokens:
    """One text as a backbone reads it.

    Attributes:
        ids: token ids, including special tokens.
        truncated: whether the end of the text was cut off.
        type_ids: for each token 1 if it belongs to the second text of a pair, otherwise 0.
        spans: the spans that features are read from; empty if the text is answered piece by piece and has no piece.
        more: further windows of a text that is read in several windows.
        text: the text with the pieces; empty if the text is answered as a whole.
        places: place of each piece, in characters of that text; empty if it is answered as a whole. If a text has
            several windows, each window lists the pieces that it answers. If a pooling reads several spans per piece,
            they follow each other in `spans`.
        by_piece: whether the text is answered piece by piece.
    """

    ids: list[int]
    truncated: bool
    type_ids: list[int]
    spans: tuple[Span, ...]
    more: tuple[Tokens, ...] = ()
    text: str = ""
    places: tuple[Place, ...] = ()
    by_piece: bool = False

    @property
    def read(self) -> Read:
        """What an answer needs to know about the text."""
        if not (self.by_piece or self.truncated):
            return WHOLE
        places = tuple(place for window in self.windows for place in window.places) if self.more else self.places
        return Read(self.text, places, self.truncated)

    @property
    def windows(self) -> tuple[Tokens, ...]:
        """All windows that the text is read in: this one, and `more`."""
        return (self, *self.more)

    @property
    def length(self) -> int:
        """Number of tokens, over all windows."""
        return sum(len(window.ids) for window in self.windows)


class TextEncoder:
    """A tokenizer that puts each text into its task's template, cuts it to the task's length, and never pads.

    Args:
        tokenizer_json: the contents of a `tokenizer.json`.
        max_positions: number of positions of the backbone.
        mask_token: the token that replaces `{mask}`. If a template contains it, mask tokens in the text itself are read
            as spaces.
        vocabulary_size: number of token ids that the backbone knows. If given, other ids are rejected, and so are texts
            with more tokens than positions. It is not given for training and export, which trust the model's tokenizer.

    Raises:
        BundleError: the tokenizer cannot be read. The methods raise a `TextError` if it fails on a text or returns
            other ids.
    """

    def __init__(
        self, tokenizer_json: bytes, max_positions: int, mask_token: str = "", vocabulary_size: int | None = None
    ) -> None:
        with _failures_told("cannot be read", BundleError):
            self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
            # A stored truncation or padding would silently apply to every text.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._special = [self._tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)]
            self._mask_id = self._tokenizer.token_to_id(mask_token) if mask_token else None
        if self._special[0] >= max_positions:
            raise BundleError(
                f"tokenizer.json adds {self._special[0]:,} special tokens to a text, and the backbone has "
                f"{max_positions:,} positions: export the bundle again"
            )
        self._max_positions = max_positions
        self._mask_token = mask_token
        self._vocabulary_size = vocabulary_size

    @property
    def separates_pairs(self) -> bool:
        """Whether the tokenizer puts a separator between the texts of a pair."""
        return self._special[1] > self._special[0]

    def max_length(self, task: Task) -> int:
        """Maximum number of tokens that a text of this task can have, including special tokens and template."""
        return min(task.max_length, self._positions(task))

    def fitted(self, task: Task) -> Task:
        """Limit a new task's length to what this backbone supports.

        Raises:
            TaskError: its template leaves no room for text.
        """
        length = self.max_length(task)
        template = len(self.ids("".join(self._pieces(task)[::2]))) + self._special[_joins(task)]
        if template >= length:
            raise TaskError(
                f"the template {task.template!r} of task '{task.name}' takes {template} tokens, special tokens "
                f"included, of {length} that are read: expected room for text; shorten it, or raise `max_length`"
            )
        return dataclasses.replace(task, max_length=length)

    def ids(self, text: str) -> list[int]:
        """Token ids of only a text, without template and special tokens."""
        with _failures_told("fails on a text", TextError):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Sequence[Text], tasks: Sequence[Task]) -> list[Tokens]:
        """Tokenize texts, each with its own task's template and length.

        If several tasks read a text in the same way, it is tokenized once and they get the same tokens.

        Raises:
            TextError: the tokenizer fails on a text, or a task that takes pairs got a single text, or vice versa.
        """
        if len(texts) == 1:
            return self._encode(texts, tasks)
        keys = [(text, self._manner(task)) for text, task in zip(texts, tasks, strict=True)]
        different = dict(zip(keys, zip(texts, tasks, strict=True), strict=True))
        if len(different) == len(keys):
            return self._encode(texts, tasks)
        found = self._encode(*zip(*different.values(), strict=True))
        made = dict(zip(different, found, strict=True))
        return [made[key] for key in keys]

    def _manner(self, task: Task) -> tuple[object, ...]:
        """All settings that affect how a task reads a text."""
        first = task.prompt_length if task.pooling == "pooler" else 0
        how = task.long_texts, task.stride, task.kind.reading
        return task.template, task.pairs, task.pooling, first, self.max_length(task), self._positions(task), how

    def _encode(self, texts: Sequence[Text], tasks: Sequence[Task]) -> list[Tokens]:
        filled = [self._filled(text, task) for text, task in zip(texts, tasks, strict=True)]
        with _failures_told("fails on a text", TextError):
            encodings = iter(self._read([part for row in filled for part in row.parts()]))
            rows = []
            for row, task in zip(filled, tasks, strict=True):
                own = [next(encodings) for _ in row.parts()]
                room = max(1, self.max_length(task) - self._special[_joins(task)])
                truncated = sum(len(encoding.ids) for encoding in own) > room
                windows = task.long_texts == WINDOWS and truncated
                read = self._in_windows(own, row, room, task) if windows else [self._whole(own, row, room)]
                cut, reading = truncated and not windows, task.kind.reading
                found = [self._tokens(part.encoding.ids, task, cut, part.encoding.type_ids) for part in read]
                if reading is not None:
                    found = self._by_piece(found, read, reading, row, task)
                first, *more = found
                rows.append(dataclasses.replace(first, more=tuple(more)) if more else first)
        for tokens, task in zip(rows, tasks, strict=True):
            for window in tokens.windows:
                self._check(window.ids, task)
        return rows

    def _by_piece(
        self, windows: Sequence[Tokens], read: Sequence[_Part], reading: Reading, row: _Filled, task: Task
    ) -> list[Tokens]:
        """The windows of a text that is answered piece by piece, each with the pieces that it answers."""
        text = row.given(reading.second)
        places = reading.pieces(text)
        tokens = [part.tokens(reading.second) for part in read]
        reads = contract.reads(task.pooling)
        found, *more = [pieces_of(tokens, places, pooling, reading.or_none) for pooling in reads]
        # Words that do not fit into a window together with the template are reported as lost.
        may_be = reading.or_none or (len(windows) > 1 and sum(map(len, found)) < len(places))
        lost = may_be and any(part.is_cut for part in read)
        return [
            Tokens(
                window.ids,
                window.truncated or lost,
                window.type_ids,
                (*([span_of_none(len(window.ids), task.pooling)] * len(reads) if reading.or_none else []), *spans),
                text=text,
                places=(*([NO_PLACE] if reading.or_none else []), *(places[place] for place in own)),
                by_piece=True,
            )
            for window, own, spans in zip(windows, found, _in_turns(found, more), strict=True)
        ]

    def _whole(self, own: Sequence[Encoding], row: _Filled, room: int) -> _Part:
        """A text or a pair with special tokens, cut if it is too long."""
        if len(own) == 1:
            (encoding,) = own
            if len(encoding.ids) > room:
                encoding, row = self._cut(encoding, row, room)
                return self._part([encoding], row, is_cut=True)
            return self._part(own, row)
        for encoding, length in zip(own, longest_first([len(one.ids) for one in own], room), strict=True):
            encoding.truncate(length)
        return self._part(own, row)

    def _part(self, own: Sequence[Encoding], row: _Filled, is_cut: bool = False) -> _Part:
        """A text or a pair with special tokens."""
        first, second = own[0], own[1] if len(own) > 1 else None
        return _Part(self._tokenizer.post_process(first, second), row, tuple(own), is_cut)

    def _in_windows(self, own: Sequence[Encoding], row: _Filled, room: int, task: Task) -> list[_Part]:
        """A long text in windows, each with the template.

        For a pair, the longer side is read in windows, or the side with the pieces if each window answers all its
        pieces.
        """
        stride, reading = task.stride, task.kind.reading
        fixed = int(reading.second) if reading is not None and reading.or_none else None
        if len(own) == 2:  # the shorter side is in every window, and takes at most half of it
            long = int(len(own[1].ids) >= len(own[0].ids)) if fixed is None else fixed
            other = own[1 - long]
            is_cut = fixed is not None and len(other.ids) > room // 2
            other.truncate(min(len(other.ids), room // 2))
            windows = _windows(own[long], room - len(other.ids), stride)
            pairs = [(one, other) if long == 0 else (other, one) for one in windows]
            return [self._part(pair, row, is_cut) for pair in pairs]
        (encoding,) = own
        if not row.goes_on and not row.pieces[0]:
            return [self._part([one], row) for one in _windows(encoding, room, stride)]
        longest = max(range(len(row.texts)), key=lambda place: len(row.texts[place]))
        longest = longest if fixed is None else row.order.index(fixed)
        start, stop = row.places()[longest]
        inside = [(begin, end) for begin, end in encoding.offsets if begin >= start and end <= stop]
        size = room - (len(encoding.ids) - len(inside))
        found = []
        for first, last in _window_places(len(inside), size, stride):
            # A token at an end may contain a character of the template, such as the space before the text.
            skipped = inside[first][0] - start if first else 0
            end = inside[last - 1][1] - start if last < len(inside) else None
            part = row.texts[longest][skipped:end]
            filled = row.with_text(longest, part, skipped)
            found.append(self._whole([self._tokenizer.encode(filled.text(), add_special_tokens=False)], filled, room))
        return found

    def tokens(self, ids: Sequence[int], task: Task) -> Tokens:
        """Prepare token ids from elsewhere, including special tokens, for a task.

        Raises:
            TextError: the task answers piece by piece, but ids do not show where the pieces are.
        """
        if task.kind.reading is not None:
            raise TextError(
                f"token ids came for task '{task.name}', which answers pieces of a text: expected the text, encoded"
            )
        return self._tokens(list(ids), task)

    def _tokens(self, ids: list[int], task: Task, truncated: bool = False, type_ids: list[int] | None = None) -> Tokens:
        ids = ids or [0]  # Without special tokens an empty text has no tokens, and a run needs at least one.
        segments = type_ids if task.pairs and type_ids else [0] * len(ids)
        return Tokens(ids, truncated, segments, (self._span(ids, task),))

    def _span(self, ids: Sequence[int], task: Task) -> Span:
        """The span that a task's pooling reads."""
        if task.pooling in ("cls", "classifier"):
            return 0, 1
        if task.pooling == "last":
            return len(ids) - 1, len(ids)
        if task.pooling == "mask":
            place = ids.index(self._mask_id) if self._mask_id in ids else 0
            return place, place + 1
        if task.pooling == "pooler":  # the very first token, which belongs to a soft prompt if there is one
            return -task.prompt_length, 1 - task.prompt_length
        return 0, len(ids)

    def _filled(self, text: Text, task: Task) -> _Filled:
        """Put a text into its template."""
        if isinstance(text, str) == task.pairs:
            raise TextError(
                f"task '{task.name}' takes {'pairs of texts' if task.pairs else 'single texts'}, and "
                f"{'one text' if task.pairs else 'a pair'} came: "
                f"{'expected (text, text_pair)' if task.pairs else 'expected a text alone'}"
            )
        given: tuple[str, ...] = (text,) if isinstance(text, str) else text
        if self._mask_token and task.pooling == "mask":
            given = tuple(one.replace(self._mask_token, " ") for one in given)
        if _joins(task):
            return _Filled((), given, (0, 1))
        values = dict(zip((TEXT_SLOT, TEXT_PAIR_SLOT), given, strict=False))
        pieces = self._pieces(task)
        slots = pieces[1::2]
        return _Filled(pieces, tuple(values[slot] for slot in slots), tuple(map(list(values).index, slots)))

    def _pieces(self, task: Task) -> tuple[str, ...]:
        """A template's pieces: texts with the mask filled in and, at the odd indices, the slots between them.

        In a task for single texts, `{text_pair}` is ordinary text.
        """
        return _pieces(task.template, task.pairs, self._mask_token)

    def _read(self, texts: Sequence[str]) -> list[Encoding]:
        if forks.is_forked():  # the tokenizer's worker threads do not exist here, and it would wait for them
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
        """Number of positions that a task leaves for the text."""
        return self._max_positions - max(task.position_offset, task.prompt_length)

    def _cut(self, encoding: Encoding, row: _Filled, room: int) -> tuple[Encoding, _Filled]:
        """Cut the ends of the texts, not the template around them."""
        while row.goes_on and len(encoding.ids) > room and any(row.texts):
            places = row.places()
            # Tokens of one character share their ends.
            ends = [
                [end for begin, end in encoding.offsets if begin >= start and end <= stop] for start, stop in places
            ]
            most = sum(map(len, ends)) - (len(encoding.ids) - room)
            kept = longest_first([len(own) for own in ends], max(0, most))
            texts = list(row.texts)
            for place, (own, number, (start, _)) in enumerate(zip(ends, kept, places, strict=True)):
                if 0 < number < len(own):
                    texts[place] = texts[place][: min(own[number - 1] - start, len(texts[place]) - 1)]
                elif number == 0 or not own:
                    texts[place] = ""
            # Each iteration cuts a text, or drops all of them.
            row = dataclasses.replace(row, texts=tuple(texts) if tuple(texts) != row.texts else ("",) * len(texts))
            encoding = self._tokenizer.encode(row.text(), add_special_tokens=False)
        encoding.truncate(room)
        return encoding, row


@lru_cache
def _pieces(template: str, pairs: bool, mask_token: str) -> tuple[str, ...]:
    slots = _PAIR_SLOTS if pairs else _SLOT
    return tuple(piece.replace(MASK_SLOT, mask_token) for piece in slots.split(template))


@dataclass(frozen=True)
class _Filled:
    """Texts in a template.

    Attributes:
        pieces: the template's pieces, with slots at the odd indices; empty if the tokenizer joins the texts itself.
        texts: the texts, in the order of their slots.
        order: for each of them 0 for the first given text, or 1 for the second.
        skipped: number of characters that are skipped at the beginning of each text, for later windows.
    """

    pieces: tuple[str, ...]
    texts: tuple[str, ...]
    order: tuple[int, ...]
    skipped: tuple[int, ...] = (0, 0)

    @property
    def goes_on(self) -> bool:
        """Whether anything follows the first text; it has to be kept when texts are cut."""
        return len(self.texts) > 1 or bool(self.pieces[-1])

    def with_text(self, place: int, text: str, skipped: int) -> _Filled:
        """The same, with part of a text in one of the slots."""
        texts = (*self.texts[:place], text, *self.texts[place + 1 :])
        return dataclasses.replace(self, texts=texts, skipped=tuple(skipped * (own == place) for own in range(2)))

    def given(self, second: bool) -> str:
        """The first or the second given text."""
        return self.texts[self.order.index(int(second))]

    def parts(self) -> tuple[str, ...]:
        """The strings that are passed to the tokenizer."""
        return (self.text(),) if self.pieces else self.texts

    def text(self) -> str:
        """The template with the texts in its slots."""
        return "".join(self._values())

    def places(self) -> list[tuple[int, int]]:
        """Start and end of each text, in characters."""
        found, at = [], 0
        for place, value in enumerate(self._values()):
            if place % 2:
                found.append((at, at + len(value)))
            at += len(value)
        return found

    def _values(self) -> list[str]:
        texts = iter(self.texts)
        return [next(texts) if place % 2 else piece for place, piece in enumerate(self.pieces)]


@dataclass(frozen=True)
class _Part:
    """The part of a text or a pair that is read at once.

    Attributes:
        encoding: its tokens, including special tokens.
        row: the texts in it.
        own: the tokens of the text, or of the two texts that the tokenizer joins, without special tokens. Their offsets
            are used, because in `encoding` RoBERTa's tokenizers strip spaces from the offsets a second time.
        is_cut: whether the end of its text was cut off.
    """

    encoding: Encoding
    row: _Filled
    own: tuple[Encoding, ...]
    is_cut: bool = False

    def tokens(self, second: bool) -> list[TokenPlace]:
        """The tokens of the first or the second given text, each with its place in that text."""
        place = self.row.order.index(int(second))
        tokens = [token for token, special in enumerate(self.encoding.special_tokens_mask) if not special]
        if not self.row.pieces:
            if len(self.own) > 1:
                owners = self.encoding.sequence_ids  # some tokenizers do not say of the first text whose a token is
                tokens = [token for token in tokens if (owners[token] or 0) == place]
            own = zip(tokens, self.own[place].offsets, strict=True)
            return [(token, begin, end) for token, (begin, end) in own if begin < end]
        start, stop = self.row.places()[place]
        shift = self.row.skipped[place] - start
        return [
            (token, begin + shift, end + shift)
            for token, (begin, end) in zip(tokens, self.own[0].offsets, strict=True)
            if begin < end and begin < stop and start < end
        ]


def longest_first(lengths: Sequence[int], room: int) -> tuple[int, ...]:
    """How many tokens of each of one or two texts to keep. The longer one is cut first, as in transformers."""
    if sum(lengths) <= room:
        return tuple(lengths)
    if len(lengths) == 1:
        return (room,)
    shorter, longer = sorted(lengths)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = shorter + room % 2
    return (shorter, longer) if lengths[0] <= lengths[1] else (longer, shorter)


def _in_turns(found: Sequence[dict[int, Span]], more: Sequence[Sequence[dict[int, Span]]]) -> Iterator[Iterable[Span]]:
    """The spans of each window. Several spans of a piece follow each other."""
    for number, own in enumerate(found):
        others = [each[number] for each in more]
        yield (
            own.values()
            if not others
            else chain.from_iterable(zip(*(each.values() for each in (own, *others)), strict=True))
        )


def _windows(encoding: Encoding, size: int, stride: int) -> list[Encoding]:
    """Tokens in windows of a size, each overlapping the one before it by `stride` tokens."""
    encoding.truncate(max(1, size), min(stride, max(0, size - 1)))
    return [encoding, *encoding.overflowing]


def _window_places(length: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of windows over this many tokens; the last window ends with the last token."""
    size = max(1, size)
    stride = min(stride, size - 1)
    step = size - stride
    return [(begin, min(begin + size, length)) for begin in range(0, max(1, length - stride), step) if begin < length]


def is_unicode(text: str) -> bool:
    """Whether a string has no lone surrogates, which tokenizers do not accept."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _joins(task: Task) -> bool:
    """Whether the tokenizer's own pair template joins the task's texts."""
    return task.pairs and TEXT_PAIR_SLOT not in task.template


@contextmanager
def _failures_told(what: str, told_as: type[BundleError]) -> Iterator[None]:
    """Wrap calls of the tokenizer: its errors are reported as a fault of its file."""
    try:
        yield
    except BaseException as error:
        # A panic in Rust arrives as a `BaseException` of a class that cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise told_as(f"tokenizer.json {what} ({error}): export the bundle again") from error
