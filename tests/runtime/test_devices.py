"""Devices: table rows that onnxruntime supports, and errors that name the missing package."""

from __future__ import annotations

import dataclasses

import onnxruntime as ort
import pytest
from click.testing import CliRunner

from edgetune.cli import cli
from edgetune_runtime.devices import CPU, CUDA, DEVICES, Device
from edgetune_runtime.errors import DeviceError
from edgetune_runtime.session import find_device

every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())


def test_devices_go_by_their_names() -> None:
    assert {"cpu": CPU, "cuda": CUDA}.items() <= DEVICES.items()
    assert [device.name for device in DEVICES.values()] == list(DEVICES)


@every_device
def test_its_provider_is_one_of_onnxruntimes(device: Device) -> None:
    assert device.provider in ort.get_all_providers()


@every_device
def test_its_memory_is_one_of_onnxruntimes(device: Device) -> None:
    """For a known memory type, a build without the device says that it lacks it.

    For an unknown one, that it is unknown.
    """
    import numpy as np

    with pytest.raises(Exception, match="Unsupported device"):
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1), "no such memory", 0)
    if device.provider in ort.get_available_providers():
        assert ort.OrtValue.ortvalue_from_numpy(np.zeros(1), device.memory, 0).device_name() == device.memory


@every_device
def test_what_it_says_of_itself_is_sound(device: Device) -> None:
    assert device.batch_size >= 1
    assert device.ray_gpus >= 0
    assert device.default_precision in (None, "fp32")
    assert device.install
    assert device.needs
    assert dataclasses.replace(device) == device


def test_only_what_was_tried_counts_as_tested() -> None:
    """Macs, and GPUs on Windows, are untested. Whoever tests them changes this test."""
    assert {name for name, device in DEVICES.items() if not device.tested} == {"coreml", "directml"}


@every_device
def test_people_are_told_of_a_device_that_nobody_has_tested(device: Device) -> None:
    done = CliRunner().invoke(cli, ["classify", "no bundle", "--device", device.name])
    assert ("nobody has tested" in done.output) is not device.tested


def test_a_device_that_is_there_is_found() -> None:
    assert find_device("cpu") is CPU


@pytest.mark.parametrize("name", ["tpu", "CPU", "cuda:0", "", "gpu"])
def test_a_device_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        find_device(name)
    assert str(caught.value) == f"device {name!r} is not known: expected one of {', '.join(DEVICES)}"


@every_device
def test_a_device_that_onnxruntime_has_not_is_refused_with_what_to_do(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["NoExecutionProvider"])
    with pytest.raises(DeviceError) as caught:
        find_device(device.name)
    told = str(caught.value)
    assert told.startswith(f"device '{device.name}' needs {device.provider}, and this onnxruntime {ort.__version__} ")
    assert told.endswith(f"offers NoExecutionProvider: {device.install}")
    assert "\n" not in told
