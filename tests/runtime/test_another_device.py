"""A device is a table row: another execution provider of this onnxruntime gives the CPU's answers."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from conftest import TEXTS

from edgetune_runtime import Engine
from edgetune_runtime.devices import DEVICES, Device

OTHERS = [name for name in ort.get_available_providers() if name != "CPUExecutionProvider"]


@pytest.mark.skipif(not OTHERS, reason="this onnxruntime has the CPU's provider alone")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_another_provider_is_a_row(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(DEVICES, "other", Device("other", OTHERS[0]))
    with Engine(bundle_folder, precision, device="other") as other, Engine(bundle_folder, precision) as cpu:
        for task in ("colour", "size"):
            for one, expected in zip(other.classify(TEXTS, task), cpu.classify(TEXTS, task), strict=True):
                assert one.fields()["scores"] == pytest.approx(expected.fields()["scores"], abs=1e-3)
