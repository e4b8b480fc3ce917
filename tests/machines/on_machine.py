"""Run on the machine that is tried: how far an engine's answers are from those that are written down.

    python on_machine.py CONFORMANCE [BUNDLE ROWS PRECISION,…]

CONFORMANCE is tests/conformance. ROWS is a JSON list of {task, text} and {task, text, text_pair} for tasks of BUNDLE;
the precision `both` is int8, and close calls in fp32. Prints one JSON object. It needs edgetune's runtime, no more.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetune_runtime import Engine

Found = dict[str, Any]

BOTH = "both"
"""The precision of an engine that is asked for none."""


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
    read = {
        **{"ids": row.ids, "type_ids": row.type_ids, "spans": row.spans, "truncated": row.truncated},
        "more": [{"ids": one.ids, "spans": one.spans, "words": one.places} for one in row.more],
    }
    told["cases"] += 1
    told["other_tokens"] += shown(read) != {
        **{name: case[name] for name in ("ids", "type_ids", "spans", "truncated")},
        "more": [{name: window[name] for name in ("ids", "spans", "words")} for window in case.get("more", ())],
    }
    (logits,) = engine.run([(row, task)])
    off = np.abs(logits - np.reshape(case["logits"], logits.shape))
    difference = float(off.max(initial=0.0))  # a text without words has no logits
    told["largest_difference"] = max(told["largest_difference"], difference)
    told["beyond"] += difference > case["tolerance"]
    got = decided(engine.classify([text], task=task.name)[0].fields())
    other = got != decided(case["answer"])
    told["other_answer"] += other
    told["clear_other_answer"] += other and case["clear"]


def decided(answer: Found) -> Found:
    """An answer without its numbers."""
    found = {name: value for name, value in shown(answer).items() if not isinstance(value, float | dict)}
    if "entities" in found:
        found["entities"] = [{**one, "score": None} for one in found["entities"]]
    return found


def shown(value: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(value))


def answers_to(engine: Engine, rows: Sequence[Found]) -> list[Found]:
    """Ids, probabilities, decision and milliseconds of each row, one text at a time.

    A row is {task, text} or {task, text, text_pair}; benchmarks/javascript/answers.js gives the same of JavaScript's.
    """
    found = []
    for row in rows:
        text = (row["text"], row["text_pair"]) if "text_pair" in row else row["text"]
        began = time.perf_counter()
        (result,) = engine.classify([text], task=row["task"])
        spent_ms = (time.perf_counter() - began) * 1000
        (read,) = engine.encode([text], [engine.task(row["task"])])
        ids = [id for window in read.windows for id in window.ids]
        found.append({"ids": ids, **answer_of(result.fields()), "spent_ms": spent_ms})
    return found


def answer_of(fields: Found) -> Found:
    """The scores of a result's fields in the order of the labels, and what is decided."""
    probs = list(fields["scores"].values()) if "scores" in fields else [fields["score"]]
    return {"probs": probs, "said": fields.get("label") or fields.get("labels")}


def main() -> None:
    found: Found = {
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "conformance": conformance(Path(sys.argv[1])),
    }
    if len(sys.argv) > 2:
        rows = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
        found["rows"] = {}
        for name in sys.argv[4].split(","):
            with Engine(sys.argv[2], None if name == BOTH else name, threads=1, prepare=False) as engine:
                found["rows"][name] = answers_to(engine, rows)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
