"""Run on the machine that is tried: how far an engine's answers are from those that are written down.

    python answers.py CONFORMANCE [BUNDLE TASK TEXTS ANSWERS]

CONFORMANCE is tests/conformance. ANSWERS are the answers of another machine to TEXTS, a text per line, by a task of
BUNDLE; they are written if they are not there. Prints one JSON object. It needs edgetune's runtime and nothing else.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgetune_runtime import Engine

Found = dict[str, Any]


def conformance(folder: Path) -> dict[str, Found]:
    """By precision, over all cases: how many read other tokens, lie beyond their tolerance, or give another answer."""
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, Found] = {}
    for name, precision in sorted({(case["bundle"], case["precision"]) for case in cases}):
        counts = dict.fromkeys(("cases", "other_tokens", "beyond", "other_answer", "clear_other_answer"), 0)
        told = found.setdefault(precision, {"largest_difference": 0.0, **counts})
        with Engine(folder / "bundle" / name, precision, threads=1, prepare=False) as engine:
            for case in cases:
                if (case["bundle"], case["precision"]) == (name, precision):
                    _count(engine, case, told)
    return found


def _count(engine: Engine, case: Found, told: Found) -> None:
    task = engine.task(case["task"])
    text = (case["text"], case["text_pair"]) if task.pairs else case["text"]
    (row,) = engine.encode([text], [task])
    read = {"ids": row.ids, "type_ids": row.type_ids, "spans": row.spans, "truncated": row.truncated}
    told["cases"] += 1
    told["other_tokens"] += any(shown(value) != shown(case[name]) for name, value in read.items())
    (logits,) = engine.run([(row, task)])
    difference = float(np.abs(np.asarray(logits) - case["logits"]).max())
    told["largest_difference"] = max(told["largest_difference"], difference)
    told["beyond"] += difference > case["tolerance"]
    fields = engine.classify([text], task=task.name)[0].fields()
    other = any(shown(fields[name]) != case["answer"][name] for name in ("label", "labels") if name in fields)
    told["other_answer"] += other
    told["clear_other_answer"] += other and case["clear"]


def shown(value: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(value))


def real_texts(bundle: Path, task: str, texts: Path, answers: Path) -> dict[str, Found]:
    """By precision ("usual": int8 with close calls in fp32): what differs from the other machine's answers."""
    lines = texts.read_text(encoding="utf-8").splitlines()
    mine: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, precision in (("fp32", "fp32"), ("int8", "int8"), ("usual", None)):
        with Engine(bundle, precision, threads=1, prepare=False) as engine:
            began = time.monotonic()
            results = engine.classify(lines, task=task)
            seconds[name] = round(time.monotonic() - began, 1)
        mine[name] = [[result.label, list(result.scores.values())] for result in results]
    if not answers.exists():
        answers.write_text(json.dumps(mine), encoding="utf-8")
    theirs = json.loads(answers.read_text(encoding="utf-8"))
    return {
        name: {
            "texts": len(lines),
            "same_label": sum(ours[0] == other[0] for ours, other in zip(mine[name], theirs[name], strict=True)),
            "same_as_fp32_there": sum(
                ours[0] == other[0] for ours, other in zip(mine[name], theirs["fp32"], strict=True)
            ),
            "largest_score_difference": float(
                max(np.abs(np.subtract(o[1], t[1])).max() for o, t in zip(mine[name], theirs[name], strict=True))
            ),
            "seconds": seconds[name],
        }
        for name in mine
    }


def main() -> None:
    found: Found = {
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "conformance": conformance(Path(sys.argv[1])),
    }
    if len(sys.argv) > 2:
        bundle, task, texts, answers = sys.argv[2:]
        found["real"] = real_texts(Path(bundle), task, Path(texts), Path(answers))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
