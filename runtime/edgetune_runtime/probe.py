"""The probe: try out a part of an untrusted bundle in a separate process.

A malicious graph or tokenizer can crash the process that loads it, use all memory or never finish. Here this happens in
a process with limited memory and time, and becomes a `BundleError`. It is not a sandbox: the process has all
permissions of its user.

`python -m edgetune_runtime.probe BUNDLE PART` is that process; PART is a precision or `tokenizer.json`. It prints one
line of JSON, `{"error": null}` if the part is sound.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import tokenizers

from edgetune_runtime import bank, contract, files, prepared, session, strict
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.devices import CPU
from edgetune_runtime.errors import BundleError, EdgetuneError
from edgetune_runtime.task import Task
from edgetune_runtime.text import TextEncoder

if sys.platform != "win32":
    import resource

TEXTS = ("", "The parcel came a day early, thank you!", "".join(map(chr, range(32, 0x250))), "größe 赤い 😀 " * 100)
"""Texts to try a tokenizer with."""

_TIME_S = 20.0
_BYTES_A_SECOND = 10_000_000  # a computer of a few watts is that fast
_MEMORY_BYTES = 1 << 30
_COPIES = 8  # of the file in memory: its bytes, the parsed message, the weights, and their layout for this CPU
_ANSWER_BYTES = 100_000
_PROBED = "probed"
_CHECKS = 1  # raised if more is tried


def probe_bundle(bundle: Bundle, precisions: Iterable[str]) -> None:
    """Try graphs of a bundle, each in a separate process: load it, check its contract, run one short row.

    Raises:
        BundleError: a file is damaged; or a graph does not load or run, crashes the process, or takes too much memory
            or time.
    """
    for precision in precisions:
        bundle.precision(precision)
        _probe(bundle, precision)


def probe_tokenizer(bundle: Bundle) -> None:
    """Try the tokenizer of a bundle in a separate process: load it, tokenize some texts.

    Raises:
        BundleError: it does not load, fails on a text, returns a token id that the backbone does not know, crashes the
            process, or takes too much memory or time.
    """
    _probe(bundle, files.TOKENIZER)


def probe_once(bundle: Bundle, precisions: Iterable[str]) -> None:
    """Try the tokenizer and graphs of a bundle, but for those that passed here before.

    What passed is noted in the cache folder, by the bundle's manifest, which has the SHA-256 of every file: files that
    are others are refused when they are read.

    Raises:
        BundleError: as `probe_bundle` and `probe_tokenizer` do.
    """
    for part in (files.TOKENIZER, *precisions):
        note = _note(bundle, part)
        if note is not None and os.path.lexists(note):
            continue
        if part == files.TOKENIZER:
            probe_tokenizer(bundle)
        else:
            probe_bundle(bundle, [part])
        if note is not None:
            with suppress(EdgetuneError):  # a cache that others fill may be read-only
                files.write_atomic(note, b"")


def _note(bundle: Bundle, part: str) -> Path | None:
    """The file that is there if a part passed; `None` if nothing is kept."""
    folder = prepared.cache_folder()
    if folder is None:
        return None
    tried = [] if part == files.TOKENIZER else bundle.variants(part)
    key = repr((_CHECKS, bundle.manifest_sha256, part, tried, session.preparation(), tokenizers.__version__))
    return folder.parent / _PROBED / files.sha256(key.encode())


def check_part(bundle: Bundle, part: str) -> None:
    """Try a part of a bundle in this process.

    Raises:
        BundleError: the part is not sound. With a malicious part anything can happen.
    """
    if part == files.TOKENIZER:
        _check_tokenizer(bundle)
    else:
        for variant in bundle.variants(part):
            _check_graph(bundle, part, variant)


def limit_process(file_bytes: int) -> None:
    """Limit this process from now on to the memory and time for a file of this size, and disable core dumps."""
    if sys.platform == "win32":
        return
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, int(_seconds(file_bytes)))
    _lower(resource.RLIMIT_FSIZE, _ANSWER_BYTES)
    taken = Path("/proc/self/statm")
    if taken.exists():
        pages = int(taken.read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + _MEMORY_BYTES + _COPIES * file_bytes)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (most, most))


def _seconds(file_bytes: int) -> float:
    return _TIME_S + file_bytes / _BYTES_A_SECOND


def _part_bytes(bundle: Bundle, part: str) -> int:
    try:
        return (bundle.path / part).stat().st_size if part == files.TOKENIZER else bundle.graph_bytes(part)
    except OSError as error:
        raise BundleError(f"{bundle.path} has no {part} ({error.strerror}): copy or export it again") from error


def _probe(bundle: Bundle, part: str) -> None:
    seconds = _seconds(_part_bytes(bundle, part))
    # -P: the working directory may be a bundle's folder, and modules must not be imported from it.
    command = [sys.executable, "-P", "-m", __name__, str(bundle.path), part]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}  # a thread uses as much of the limit as a graph
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _refused(bundle, part, f"it took longer than {seconds:.0f} s") from error
        answer.seek(0)
        lines = answer.read(_ANSWER_BYTES).splitlines() or [b""]
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        raise _refused(bundle, part, f"the process that tried it was ended by {name}")
    try:
        told = strict.json_value(lines[-1])["error"]
    except (ValueError, KeyError, TypeError) as error:
        code = ended.returncode
        raise _refused(bundle, part, f"the process that tried it ended with status {code} and no answer") from error
    if told is not None:
        raise _refused(bundle, part, str(told))


def _refused(bundle: Bundle, part: str, reason: str) -> BundleError:
    return BundleError(f"{bundle.path}: {part} does not pass its probe: {reason}; get the bundle from who exported it")


def _check_tokenizer(bundle: Bundle) -> None:
    facts, vocabulary = bundle.facts, bundle.vocabulary_size()
    encoder = TextEncoder(bundle.read(files.TOKENIZER), facts.max_positions, facts.mask_token, vocabulary)
    alone = Task("probe", (), facts.sha256, {}, "none", facts.name, facts.poolings[0])
    encoder.encode(TEXTS, [alone] * len(TEXTS))
    pairs = dataclasses.replace(alone, pairs=True)
    encoder.encode([(text, text) for text in TEXTS], [pairs] * len(TEXTS))


def _check_graph(bundle: Bundle, precision: str, variant: str) -> None:
    facts = bundle.facts
    inputs = facts.inputs_of(variant)
    graph, weights = bundle.read_graph(precision, variant)
    opened = session.open_session(graph, CPU, 1, inputs, weights)
    feed = bank.stack([], facts.sizes, inputs)
    if contract.POOLING in feed:
        feed[contract.POOLING][:] = contract.POOLINGS.index(facts.poolings[0])
    # The last token at the last position: a graph with fewer of them than the bundle states fails here.
    feed[contract.POSITION_OFFSET][:] = facts.max_positions - 1
    text = {
        contract.INPUT_IDS: np.array([[bundle.vocabulary_size() - 1]], np.int64),
        contract.ATTENTION_MASK: np.ones((1, 1), np.int64),
        contract.TOKEN_TYPE_IDS: np.ones((1, 1), np.int64),
        contract.SPANS: np.array([[[0, 1]]], np.int64),
        contract.TASK_INDEX: np.zeros(1, np.int64),
    }
    feed |= {name: array for name, array in text.items() if name in facts.inputs}
    try:
        logits, features = opened.run([contract.LOGITS, contract.FEATURES], feed)
    except Exception as error:
        raise BundleError(f"the graph does not run ({error})") from error
    sizes = {"batch": 1, "spans": 1, "labels": 0, "hidden": facts.sizes.hidden}
    expected = [tuple(sizes[dim] for dim in dims) for dims in contract.outputs(facts.inputs).values()]
    if [logits.shape, features.shape] != expected or not np.isfinite(features).all():
        raise BundleError(f"the graph gives logits {list(logits.shape)} and features {list(features.shape)}")


def _main() -> None:
    folder, part = sys.argv[1:]
    problem = None
    try:
        bundle = Bundle(folder)
        limit_process(_part_bytes(bundle, part))
        check_part(bundle, part)
    except EdgetuneError as error:
        problem = str(error)
    print(json.dumps({"error": problem}), flush=True)
    os._exit(0)  # do not destroy objects that a malicious graph may have left in memory


if __name__ == "__main__":
    _main()
