"""Devices: what a backbone can run on, as data. A new execution provider is a row in `DEVICES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Device:
    """What a backbone runs on.

    Attributes:
        name: what users call it.
        provider: onnxruntime's execution provider.
        memory: onnxruntime's name for the memory that its inputs are in.
        batch_size: texts in one run, if nothing else is asked for and the graph's answers do not depend on the batch.
        default_precision: the precision if none is asked for; `None` is the bundle's own choice, int8 if it has it,
            with close calls answered again in fp32.
        prepares: whether the optimized graph can be kept and mapped again.
        threads: whether texts run side by side on threads.
        survives_fork: whether a process that is forked can go on using it.
        ray_gpus: GPUs that Ray reserves for one worker.
        provider_options: options of the execution provider.
        disabled_optimizers: graph optimizers of onnxruntime that make it slower there.
        install: what to do if the installed onnxruntime does not have the provider.
        needs: what must be there beside onnxruntime, to be checked if the provider does not start.
        tested: whether somebody has compared its answers with the CPU's; people are told if not.
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
    # There it takes 4 to 7 times as long as Add and LayerNormalization, which are vectorized.
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
    # By default products are rounded to TF32's 10 bits of fraction, which fp32 does not promise.
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
