"""A whole engine for bundles of version 2, written from docs/format.md with only numpy, onnxruntime and tokenizers.

It shows that the page is complete, and serves as a template for other languages. It trusts its files and checks only
the digest. Each run has one text, at its exact length.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Encoding, Tokenizer

POOLINGS = ("cls", "mean", "last", "mask", "decoder", "pooler", "classifier", "classifier_mean")
SLOTS = ("{text}", "{text_pair}")
Array = np.ndarray[Any, Any]


class PlainTask:
    """A task file."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        fields = header.pop("__metadata__")
        written = fields.pop("sha256")
        self.tensors: dict[str, Array] = {}
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
        for name in sorted(header):
            begin, end = (start + offset for offset in header[name]["data_offsets"])
            self.tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(header[name]["shape"])
            digest.update(f"{name} <f4 {self.tensors[name].shape}\n".encode() + data[begin:end])
        if digest.hexdigest() != written:
            raise ValueError(f"{path} is damaged")
        self.labels = json.loads(fields["labels"])
        self.kind = fields.get("kind", "single-label")
        self.thresholds = json.loads(fields.get("thresholds", "[]")) or [0.5] * len(self.labels)
        self.pairs = fields.get("pairs", "false") == "true"
        self.pooling, self.template = fields["pooling"], fields["template"]
        self.offset, self.max_length = int(fields["position_offset"]), int(fields["max_length"])
        self.temperature = float(fields["temperature"])
        self.long_texts, self.stride = fields.get("long_texts", "cut"), int(fields.get("stride", "0"))
        self.prompt = len(self.tensors.get("prompt_embeddings", ()))


class PlainBundle:
    """A bundle in one precision."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "edgetune.json").read_bytes())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.x64quantprecision", "1")  # exact int8, also without VNNI
        graph = self.manifest["graphs"][precision]
        graphs = {(): graph["file"]} | {
            tuple(variant["inputs"]): graph["variants"][name] for name, variant in self.manifest["variants"].items()
        }
        # With the optimizer, int8 would differ from edgetune's in the last bits, and so sometimes in a rounding step.
        self.sessions = {
            inputs: ort.InferenceSession(
                folder / file, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
            )
            for inputs, file in graphs.items()
        }

    def task(self, name: str) -> PlainTask:
        """A task of the bundle."""
        return PlainTask(self.folder / f"tasks/{name}.safetensors")

    def read(self, texts: list[str], task: PlainTask) -> dict[str, Any]:
        """Tokenize a text or a pair."""
        mask = self.manifest["mask_token"]
        if task.pooling == "mask":
            texts = [text.replace(mask, " ") for text in texts]
        given, joined = texts[0], task.pairs and "{text_pair}" not in task.template
        positions = self.manifest["max_positions"] - max(task.offset, task.prompt)
        special = self.tokenizer.num_special_tokens_to_add(joined)
        room = max(1, min(task.max_length, positions) - special)
        if joined:
            start, encodings = 0, [self._encode(text) for text in texts]
            if task.kind == "spans":
                return self._context(*encodings, texts[1], task, room)
            lengths = [len(one.ids) for one in encodings]
            kept = longest_first(lengths, room)
            for one, length in zip(encodings, kept, strict=True):
                one.truncate(length)
            found, truncated = self.tokenizer.post_process(*encodings), kept != lengths
        else:
            pieces = [piece if piece in SLOTS else piece.replace("{mask}", mask) for piece in split(task.template)]
            encoding = self._encode(filled(pieces, texts)[0])
            truncated = len(encoding.ids) > room
            if truncated and task.long_texts == "windows":  # of a text with nothing around it, the only case here
                return self._windows(encoding, given, task, room)
            start = filled(pieces, texts)[1]["{text}"][0]
            if truncated:
                encoding = self._cut(pieces, texts, room)
            found = self.tokenizer.post_process(encoding)
        ids = found.ids or [0]
        types = found.type_ids if task.pairs and found.ids else [0] * len(ids)
        read = {"ids": ids, "type_ids": types, "truncated": truncated}
        if task.kind != "tokens":
            return read | {"spans": [self._span(ids, task)]}
        stop = len(given) if joined else start + len(given)
        own = [
            (token, begin - start, end - start)
            for token, (begin, end) in enumerate(found.offsets)
            if max(begin, start) < min(end, stop) and not (joined and found.sequence_ids[token] == 1)
        ]
        places = words(given)
        return read | read_words(places, tokens_of(own, places), task)

    def _windows(self, encoding: Encoding, text: str, task: PlainTask, room: int) -> dict[str, Any]:
        encoding.truncate(room, min(task.stride, room - 1))
        parts = [self.tokenizer.post_process(one) for one in (encoding, *encoding.overflowing)]
        own = [[(at, *one) for at, one in enumerate(part.offsets) if one[0] < one[1]] for part in parts]
        places = words(text)
        found = [tokens_of(one, places) for one in own]
        best: dict[int, tuple[tuple[float, float], int]] = {}
        for number, (part, one) in enumerate(zip(found, own, strict=True)):
            left = one[0][0] if number else -math.inf
            right = one[-1][0] if number + 1 < len(parts) else math.inf
            for word, (first, last) in part.items():
                rank = last - first, min(first - left, right - last)
                if word not in best or rank > best[word][0]:
                    best[word] = rank, number
        windows = []
        for number, part in enumerate(found):
            chosen = {word: tokens for word, tokens in part.items() if best[word][1] == number}
            ids = parts[number].ids
            windows.append({"ids": ids, "type_ids": [0] * len(ids)} | read_words(places, chosen, task))
        return windows[0] | {"more": windows[1:], "truncated": False}

    def _context(self, question: Encoding, context: Encoding, text: str, task: PlainTask, room: int) -> dict[str, Any]:
        parts, truncated = [context], False
        if len(question.ids) + len(context.ids) > room:
            truncated = len(question.ids) > room // 2
            question.truncate(min(len(question.ids), room // 2))
            size = room - len(question.ids)
            context.truncate(size, min(task.stride, size - 1))
            parts += context.overflowing
        places, windows = words(text), []
        joined = [self.tokenizer.post_process(question, part) for part in parts]
        found = [
            tokens_of(
                [(at, *one) for at, one in enumerate(part.offsets) if part.sequence_ids[at] == 1 and one[0] < one[1]],
                places,
            )
            for part in joined
        ]
        for part, own in zip(joined, found, strict=True):
            whole = {
                word: (first, last)
                for word, (first, last) in own.items()
                if all(last - first >= other[word][1] - other[word][0] for other in found if word in other)
            }
            read, none = read_words(places, whole, task), len(part.ids) - 1 if task.pooling == "last" else 0
            nones = [[none, none + 1]] * (2 if task.pooling == "ends" else 1)
            spans = {"spans": [*nones, *read["spans"]], "words": [[0, 0], *read["words"]]}
            windows.append({"ids": part.ids, "type_ids": part.type_ids} | spans)
        return windows[0] | ({"more": windows[1:]} if windows[1:] else {}) | {"truncated": truncated}

    def logits(self, read: dict[str, Any], task: PlainTask) -> Array:
        """The logits of a text or, for a task that answers words, of each word."""
        found = [self._run(window, task) for window in (read, *read.get("more", ()))]
        return np.concatenate(found) if task.kind in ("tokens", "spans") else found[0][0]

    def _run(self, read: dict[str, Any], task: PlainTask) -> Array:
        if not read["spans"]:
            return np.zeros((0, len(task.tensors["head_bias"])), np.float32)
        ids = read["ids"]
        feed = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "token_type_ids": np.array([read["type_ids"]], np.int64),
            "spans": np.array([read["spans"]], np.int64),
            "task_index": np.zeros(1, np.int64),
            "prompt_mask": np.ones((1, task.prompt), np.int64),
            "position_offset": np.array([task.offset], np.int64),
            "pooling": np.array([POOLINGS.index("cls" if task.pooling == "ends" else task.pooling)], np.int64),
        }
        feed |= {name: tensor[np.newaxis] for name, tensor in task.tensors.items()}
        if "prefix_keys" in feed:
            feed["prefix_mask"] = np.ones((1, feed["prefix_keys"].shape[3]), np.int64)
        parts = {name for variant in self.sessions for name in variant if name in task.tensors}
        cheapest = min((inputs for inputs in self.sessions if parts.issubset(inputs)), key=len)
        taken = {name: array for name, array in feed.items() if name in {*self.manifest["inputs"], *cheapest}}
        found: Array = self.sessions[cheapest].run(["logits"], taken)[0][0]
        return np.stack([found[::2, 0], found[1::2, 1]], axis=1) if task.pooling == "ends" else found

    def _encode(self, text: str) -> Encoding:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _cut(self, pieces: list[str], texts: list[str], room: int) -> Encoding:
        goes_on = len(texts) > 1 or pieces[-1] not in (*SLOTS, "")
        text, places = filled(pieces, texts)
        encoding = self._encode(text)
        while goes_on and len(encoding.ids) > room and any(texts):
            owned = {slot: ends_within(encoding, begin, end) for slot, (begin, end) in places.items()}
            numbers = [len(ends) for ends in owned.values()]
            kept = longest_first(numbers, max(0, sum(numbers) - (len(encoding.ids) - room)))
            shorter = dict(zip(SLOTS, texts, strict=False))
            for (slot, ends), keep in zip(owned.items(), kept, strict=True):
                if keep == 0:
                    shorter[slot] = ""
                elif keep < len(ends):
                    begin = places[slot][0]
                    shorter[slot] = shorter[slot][: min(ends[keep - 1] - begin, len(shorter[slot]) - 1)]
            changed = list(shorter.values()) != texts
            texts = list(shorter.values()) if changed else [""] * len(texts)
            text, places = filled(pieces, texts)
            encoding = self._encode(text)
        encoding.truncate(room)
        return encoding

    def _span(self, ids: list[int], task: PlainTask) -> list[int]:
        if task.pooling == "mask":
            number = self.tokenizer.token_to_id(self.manifest["mask_token"])
            place = ids.index(number) if number in ids else 0
            return [place, place + 1]
        spans = {
            "cls": (0, 1),
            "classifier": (0, 1),
            "last": (len(ids) - 1, len(ids)),
            "pooler": (-task.prompt, 1 - task.prompt),
        }
        return list(spans.get(task.pooling, (0, len(ids))))


WITHOUT_SPACES = (
    *((0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F), (0x20000, 0x3FFFF)),
)
WORD = re.compile(r"w(?:[wm]|[jz]+(?=[wm]))*|(?:p|ff?|c)m*(?:zpm*)*|m+")


def class_of(character: str) -> str:
    """The class of a character, which determines words."""
    category, code = unicodedata.category(character), ord(character)
    if code == 0x200D:
        return "z"
    if category[0] == "M" or 0x1F3FB <= code <= 0x1F3FF:
        return "m"
    if category[0] in "LN":
        return "c" if any(first <= code <= last for first, last in WITHOUT_SPACES) else "w"
    if category[0] == "Z" or category in ("Cc", "Cs"):
        return " "
    return "j" if category == "Cf" else "f" if 0x1F1E6 <= code <= 0x1F1FF else "p"


def words(text: str) -> list[tuple[int, int]]:
    """The places of a text's words."""
    return [found.span() for found in WORD.finditer("".join(map(class_of, text)))]


def tokens_of(tokens: list[tuple[int, int, int]], places: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Word → its first and its last token."""
    found: dict[int, tuple[int, int]] = {}
    for word, (begin, end) in enumerate(places):
        own = [token for token, first, last in tokens if first < end and last > begin]
        if own:
            found[word] = own[0], own[-1]
    return found


def read_words(
    places: list[tuple[int, int]], found: dict[int, tuple[int, int]], task: PlainTask
) -> dict[str, list[list[int]]]:
    """The words to read, and their spans."""
    ends = {"mean": [(0, 1)], "cls": [(0, 0)], "last": [(1, 1)], "ends": [(0, 0), (1, 1)]}[task.pooling]
    spans = [[own[first], own[last] + 1] for own in found.values() for first, last in ends]
    return {"spans": spans, "words": [list(places[word]) for word in found]}


def split(template: str) -> list[str]:
    """Split a template into slots and the text around them."""
    for slot in SLOTS:
        template = template.replace(slot, f"\0{slot}\0")  # a template has no control characters
    return template.split("\0")


def filled(pieces: list[str], texts: list[str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The template with its texts, and where they are, in the order of the slots."""
    values, text, places = dict(zip(SLOTS, texts, strict=False)), "", {}
    for piece in pieces:
        if piece in values:
            places[piece] = len(text), len(text) + len(values[piece])
        text += values.get(piece, piece)
    return text, places


def ends_within(encoding: Encoding, begin: int, end: int) -> list[int]:
    """The ends of the tokens between two characters."""
    return [last for first, last in encoding.offsets if first >= begin and last <= end]


def longest_first(lengths: list[int], room: int) -> list[int]:
    """How many tokens of one or two texts to keep."""
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    shorter = min(lengths)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = shorter + room % 2
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]


def entities(logits: Array, read: dict[str, Any], text: str, task: PlainTask) -> list[dict[str, Any]]:
    """The entities for the logits of words."""
    best, paths = [(0.0 if row == 0 or row % 2 else -math.inf) for row in range(2 * len(task.labels) + 1)], []
    for own in logits.astype(np.float64):
        highest, before, reached = max(best), [], []
        for row, logit in enumerate(own):
            from_row = best.index(highest)
            if row and row % 2 == 0:
                from_row = row if best[row] >= best[row - 1] else row - 1
            before.append(from_row)
            reached.append((best[from_row] if paths or row == 0 or row % 2 else -math.inf) + logit)
        paths.append(before)
        best = reached
    tags = [best.index(max(best))] if paths else []
    for before in paths[:0:-1]:
        tags.append(before[tags[-1]])
    places = [place for window in (read, *read.get("more", ())) for place in window["words"]]
    found: list[dict[str, Any]] = []
    sure: list[list[float]] = []
    for tag, (begin, end), own in zip(tags[::-1], places, logits.astype(np.float64), strict=True):
        weights = np.exp((own - own.max()) / task.temperature)
        if tag % 2:
            found.append({"label": task.labels[tag // 2], "start": begin})
            sure.append([])
        if tag:
            sure[-1].append(float(weights[tag] / weights.sum()))
            found[-1] |= {"end": end, "text": text[found[-1]["start"] : end], "score": sum(sure[-1]) / len(sure[-1])}
    return found


def best_stretch(logits: Array, read: dict[str, Any], text: str, task: PlainTask) -> dict[str, Any]:
    """The answer in a context."""
    windows = [window["words"] for window in (read, *read.get("more", ()))]
    places = sorted({tuple(place) for own in windows for place in own if place != [0, 0]})
    number = {place: count for count, place in enumerate(places)}
    sums: dict[tuple[int, int], float] = {}
    none, row = math.inf, 0
    for own in windows:
        z = logits[row : row + len(own)].astype(np.float64)
        row += len(own)
        none = min(none, float(z[0].sum()))
        for i in range(1, len(own)):
            for j in range(i, len(own)):
                pair = number[tuple(own[i])], number[tuple(own[j])]
                if pair[1] - pair[0] < 30:
                    sums[pair] = max(sums.get(pair, -math.inf), float(z[i, 0] + z[j, 1]))
    pairs = sorted(sums)
    values = [*(sums[pair] for pair in pairs), none]
    weights = [math.exp((value - max(values)) / task.temperature) for value in values]
    best = values.index(max(values))
    found = {"score": weights[best] / sum(weights), "no_answer": weights[-1] / sum(weights)}
    if best == len(pairs):
        return {"answer": None, "start": None, "end": None} | found
    start, end = places[pairs[best][0]][0], places[pairs[best][1]][1]
    return {"answer": text[start:end], "start": start, "end": end} | found


def answer(logits: Array, task: PlainTask, read: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """The answer for logits."""
    if task.kind == "tokens":
        return {"entities": entities(logits, read, texts[0], task)}
    if task.kind == "spans":
        return best_stretch(logits, read, texts[1], task)
    values = [float(value) for value in logits]
    if task.kind == "score":
        return {"score": values[0]}
    if task.kind == "multi-label":
        scores = {
            label: 1 / (1 + math.exp(-z / task.temperature)) for label, z in zip(task.labels, values, strict=True)
        }
        chosen = [label for label, least in zip(task.labels, task.thresholds, strict=True) if scores[label] >= least]
        return {"labels": chosen, "scores": scores}
    weights = [math.exp((z - max(values)) / task.temperature) for z in values]
    scores = {label: weight / sum(weights) for label, weight in zip(task.labels, weights, strict=True)}
    best = task.labels[values.index(max(values))]
    return {"label": best, "score": scores[best], "scores": scores}
