"""Devices: what is said if one is not there, and one that this onnxruntime has beside the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from conftest import TEXTS

from edgetune_runtime import Engine
from edgetune_runtime.devices import DEVICES, Device
from edgetune_runtime.errors import DeviceError
from edgetune_runtime.session import find_device

OTHERS = [name for name in ort.get_available_providers() if name != "CPUExecutionProvider"]


@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_a_row_is_complete(device: Device) -> None:
    assert DEVICES[device.name] is device
    assert device.provider in ort.get_all_providers()
    assert device.install
    assert device.needs


def test_an_unknown_device_is_named_with_those_that_are_known() -> None:
    with pytest.raises(DeviceError, match=f"device 'tpu' is not known: expected one of {', '.join(DEVICES)}"):
        find_device("tpu")


@pytest.mark.parametrize(
    "device",
    [one for one in DEVICES.values() if one.provider not in ort.get_available_providers()],
    ids=lambda one: one.name,
)
def test_what_to_do_if_its_provider_is_not_there(device: Device) -> None:
    with pytest.raises(DeviceError) as caught:
        find_device(device.name)
    assert device.provider in str(caught.value)
    assert str(caught.value).endswith(device.install)


@pytest.mark.skipif(not OTHERS, reason="this onnxruntime has the CPU's provider alone")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_another_provider_is_a_row(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(DEVICES, "other", Device("other", OTHERS[0]))
    with Engine(bundle_folder, precision, device="other") as other, Engine(bundle_folder, precision) as cpu:
        for task in ("colour", "size"):
            for one, expected in zip(other.classify(TEXTS, task), cpu.classify(TEXTS, task), strict=True):
                assert one.fields()["scores"] == pytest.approx(expected.fields()["scores"], abs=1e-3)
