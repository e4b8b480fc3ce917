"""`edgetune demo` runs to its end, with a tiny model whose accuracy means nothing."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import save_tiny_bert

from edgetune.demo.program import DESCRIPTIONS, run_demo


def test_the_demo_climbs_and_ends_with_a_page(tmp_path: Path) -> None:
    said: list[str] = []
    model = tmp_path / "model"
    save_tiny_bert(model, positions=160)  # the longest prompt that it measures is 100
    result = run_demo(tmp_path, str(model), 1, said.append, seconds_per_cell=0.01)
    assert [rung["title"].partition(":")[0] for rung in result["ladder"]] == [
        "no labelled text", "32 texts", "32 texts, and descriptions", "300 texts", "300 texts",
    ]  # fmt: skip
    assert all(0 < rung["value"] <= 1 for rung in [*result["ladder"], *result["others"].values()])
    assert {answer["task"] for answer in result["answers"]} == {"topic", "sentiment", "tags"}
    assert {answer["label"] for answer in result["answers"] if answer["task"] == "topic"} <= set(DESCRIPTIONS)
    assert json.loads((tmp_path / "demo.json").read_text(encoding="utf-8")) == result
    assert "report.html" in said[-1] and "edgetune serve" in said[-1]
    assert all((tmp_path / name).is_file() for name in ("report/report.html", "latency.png", "bundle/edgetune.json"))
