"""Devices that a backbone can run on, as data. A new execution provider is an entry in `DEVICES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Device:
    """A device that a backbone can run on.

    Attributes:
        name: its name for users.
        provider: onnxruntime's execution provider.
        memory: onnxruntime's name for the memory that its inputs are in.
        batch_size: default number of texts in one run, for graphs whose answers do not depend on the batch.
        default_precision: the default precision; `None` leaves the choice to the bundle: int8 if it has it, with close
            calls answered again in fp32.
        prepares: whether the optimized graph can be cached and mapped again.
        threads: whether texts run in parallel on threads.
        survives_fork: whether a forked process can continue to use it.
        ray_gpus: number of GPUs that Ray reserves for one worker.
        provider_options: options of the execution provider.
        disabled_optimizers: graph optimizers of onnxruntime that make this device slower.
        install: what to do if the installed onnxruntime does not have the provider.
        needs: requirements other than onnxruntime, to check if the provider does not start.
        tested: whether somebody has compared its answers with the CPU's; if not, a note says so.
    """

    name: str
    provider: str
    memory: str = "cpu"
    batch_size: int = 1
    default_precision: str | None = None
    prepares: bool = False
    threads: bool = False
    survives_fork: bool = False
    ray_gpus: int = 0
    provider_options: Mapping[str, str] = field(default_factory=dict)
    disabled_optimizers: tuple[str, ...] = ()
    install: str = ""
    needs: str = "what onnxruntime's documentation says that it needs"
    tested: bool = True


CPU = Device(
    "cpu",
    "CPUExecutionProvider",
    prepares=True,
    threads=True,
    survives_fork=True,
    # On CPUs it takes 4 to 7 times as long as Add and LayerNormalization, which are vectorized.
    disabled_optimizers=("SkipLayerNormFusion",),
    install="pip install --force-reinstall onnxruntime",
)

CUDA = Device(
    "cuda",
    "CUDAExecutionProvider",
    memory="cuda",
    batch_size=32,
    default_precision="fp32",
    ray_gpus=1,
    # By default products are rounded to TF32 with 10 fraction bits, which is less precise than fp32.
    provider_options={"use_tf32": "0"},
    install="pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
    needs="the driver and the CUDA and cuDNN libraries",
)

COREML = Device(
    "coreml",
    "CoreMLExecutionProvider",
    default_precision="fp32",
    install="on macOS pip install --force-reinstall onnxruntime",
    needs="macOS 12 or later, or iOS 15",
    tested=False,
)

DIRECTML = Device(
    "directml",
    "DmlExecutionProvider",
    default_precision="fp32",
    install="on Windows pip uninstall -y onnxruntime && pip install onnxruntime-directml",
    needs="Windows 10 1903 or later, and a GPU with DirectX 12",
    tested=False,
)

DEVICES: dict[str, Device] = {device.name: device for device in (CPU, CUDA, COREML, DIRECTML)}
