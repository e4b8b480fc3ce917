"""docs/format.md and its subpages are true: the example runs, and the dump is that of the file.

The example imports nothing of edgetune; tests/conformance has the files that it reads.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetune_runtime import contract, files, task_file
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.kinds.kind import sigmoid
from edgetune_runtime.text import longest_first

ROOT = Path(__file__).parents[2]
PAGES = ("format", "format-graphs", "format-tasks", "format-tokens", "format-answers", "format-example")
DOCUMENT = "\n".join((ROOT / f"docs/{page}.md").read_text(encoding="utf-8") for page in PAGES)
TASK = ROOT / "tests/conformance/bundle/encoder/tasks/tags.safetensors"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
DUMP, HASHED, EXAMPLE, PRINTED = [text for _, text in BLOCKS[-4:]]

NO_EDGETUNE = "\nimport sys\nassert not any(name.startswith('edgetune') for name in sys.modules)\n"


def parted(text: str, separator: str) -> list[str]:
    """JSON of one line, split into lines."""
    return [line.strip() for line in re.sub(rf"({separator})(?=\")|(?<=\{{)(?=\"__)", r"\1\n", text).split("\n")]


def dump(data: bytes) -> str:
    """A task file for people."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    del header["__metadata__"]
    text = data[8:start].decode()
    spaces = len(text) - len(text.rstrip())
    lines = [f"byte 0: {data[:8].hex(' ')}", "byte 8:", *(f"  {line}" for line in parted(text.rstrip(), ","))]
    lines += [f"  and {spaces} spaces"] if spaces else []
    for name, place in header.items():
        begin, end = (start + offset for offset in place["data_offsets"])
        first = np.frombuffer(data[begin:end], "<f4")[:2]
        lines.append(
            f"byte {begin}: {name}, {(end - begin) // 4} numbers: {data[begin : begin + 8].hex(' ')} … = "
            f"{', '.join(f'{number:.6f}' for number in first)}, …"
        )
    return "".join(f"{line}\n" for line in lines) + f"byte {len(data)}: the end\n"


def hashed(data: bytes) -> str:
    """The bytes that a task file's digest covers, for people."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__")
    del metadata["sha256"]
    lines = [line + " " * line.endswith(",") for line in parted(json.dumps(metadata, sort_keys=True), ", ")]
    for name, place in sorted(header.items()):
        begin, end = (start + offset for offset in place["data_offsets"])
        lines.append(f"{name} <f4 {tuple(place['shape'])}\\n and bytes {begin} to {end - 1}")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def test_the_dump_is_that_of_the_file() -> None:
    assert dump(TASK.read_bytes()) == DUMP
    assert hashed(TASK.read_bytes()) == HASHED


def test_the_example_prints_what_the_document_says() -> None:
    command = [sys.executable, "-c", EXAMPLE + NO_EDGETUNE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PRINTED


def rows(heading: str) -> dict[str, list[str]]:
    """Names (code) in the first column → the other columns, of the first table after a text."""
    table = DOCUMENT[DOCUMENT.index(heading) :].split("\n|---", 1)[1].split("\n\n")[0]
    found = {}
    for line in table.splitlines()[1:]:
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        found |= dict.fromkeys(re.findall("`([^`]+)`", first), others)
    return found


def test_inputs_and_their_types_are_the_contract() -> None:
    listed = rows("Dimensions: `batch`")
    assert {name: (spec.dtype, ", ".join(spec.dims)) for name, spec in contract.INPUTS.items()} == {
        name: (dtype, dims) for name, (dtype, dims, *_) in listed.items()
    }
    assert {name for name, (_, _, graphs, _) in listed.items() if graphs == "every graph"} == set(
        contract.REQUIRED_INPUTS
    )
    assert f"({', '.join(f'`{name}`' for name in contract.POOLINGS)})" in DOCUMENT


def test_fields_and_defaults_of_a_task_are_those_that_are_read() -> None:
    listed = rows("The rest is in `__metadata__`")
    own = {one.key: one for one in task_file._FIELDS}
    assert listed.keys() == {"format_version", "sha256", "requires", *own}
    assert {name for name, (_, default) in listed.items() if default} == {
        "requires",
        *(name for name, one in own.items() if one.default is not task_file._REQUIRED),
    }


def test_kinds_are_those_that_are_known() -> None:
    for heading in ("A writer lists all", "From here on", "an engine may leave it out"):
        assert rows(heading).keys() == KINDS.keys()
    for name, (labels,) in rows("A writer lists all").items():
        assert labels == " to ".join(f"{number:,}" for number in dict.fromkeys(KINDS[name].labels))


@pytest.mark.parametrize("path", [files.MANIFEST, files.CONFIG, files.TOKENIZER, "tasks/a.safetensors", files.INDEX])
def test_limits_are_those_that_are_held(path: str) -> None:
    assert f"{files.limit_bytes(path):,}" in DOCUMENT


def test_the_arithmetic_of_cutting_is_the_documents() -> None:
    """The document's lines, as Python."""
    (written,) = [text for _, text in BLOCKS if text.startswith("longest_first(a, b, room):")]
    code = written.split("#")[0].strip() + "\n" + written.split("\n", 1)[1]
    code = f"def {code}".replace(" / 2, rounded down", " // 2").replace(" mod ", " % ")
    scope: dict[str, object] = {}
    exec(code, scope)
    for first in range(8):
        for second in range(8):
            for room in range(12):
                kept = scope["longest_first"](first, second, room)  # type: ignore[operator]
                assert kept == longest_first((first, second), room)


def test_scores_of_labels_are_the_documents() -> None:
    logits = np.linspace(-30, 30, 41, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(logits), 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-12)
