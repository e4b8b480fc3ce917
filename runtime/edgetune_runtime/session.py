"""onnxruntime sessions: which execution provider, how many threads."""

from __future__ import annotations

import base64
import platform
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort

from edgetune_runtime import contract, files, forks, privacy
from edgetune_runtime.bundle import WeightFiles
from edgetune_runtime.devices import CPU, DEVICES, Device
from edgetune_runtime.errors import BundleError, DeviceError
from edgetune_runtime.setups import EXPORTED, Form

privacy.turn_off_imported(ort)

_PREPARATION = {
    "session.optimized_model_external_initializers_file_name": files.PREPARED_WEIGHTS,
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    "session.save_external_prepacked_constant_initializers": "1",
}

NO_WEIGHTS: WeightFiles = MappingProxyType({})

_TYPE_OF = {"int64": "tensor(int64)", "float32": "tensor(float)"}

# After a run the threads sleep. To let them spin wins 3% on texts one right after the other, and takes a core from
# whatever hands in the next text: over HTTP a lone client is answered 10% more often without.
_SLEEP_BETWEEN_RUNS = ("session.force_spinning_stop", "1")

EXACT_INT8 = ("session.x64quantprecision", "1")
_LARGEST_PAIR = base64.b64decode(
    "CAg6WQoYCgF4CgF3EgF5Ig1NYXRNdWxJbnRlZ2VyEgRwYWlyKg0IAggBEANCAXdKAn"
    "9/WhMKAXgSDgoMCAISCAoCCAEKAggCYhMKAXkSDgoMCAYSCAoCCAEKAggBQgQKABAN"
)
"""A graph: the product of x, uint8 [1, 2], and two int8 weights of 127."""

_INT8_DOT_PRODUCT_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


_FORKED = (
    "; this process was forked, and one that comes from a process that used a GPU cannot use it: start processes with "
    "multiprocessing's spawn"
)


def find_device(name: str) -> Device:
    """The device of that name.

    Raises:
        DeviceError: it is not known, or the installed onnxruntime has no execution provider for it.
    """
    if name not in DEVICES:
        raise DeviceError(f"device {name!r} is not known: expected one of {', '.join(DEVICES)}")
    device = DEVICES[name]
    available = ort.get_available_providers()
    if device.provider not in available:
        raise DeviceError(
            f"device '{name}' needs {device.provider}, and this onnxruntime {ort.__version__} offers "
            f"{', '.join(available)}: {device.install}"
        )
    return device


def open_session(
    graph: bytes,
    device: Device,
    threads: int,
    inputs: Collection[str],
    weights: WeightFiles = NO_WEIGHTS,
    form: Form = EXPORTED,
) -> ort.InferenceSession:
    """Make a session of a backbone's graph.

    Args:
        graph: the bytes of the ONNX file.
        device: what it runs on.
        threads: threads inside one run.
        inputs: names of the inputs that the graph should take.
        weights: name → bytes of the files that the graph takes weights from, of which none is opened; or the folder
            of these files, which are mapped, so they must not change while the session exists.
        form: what is made of the graph.

    Raises:
        BundleError: onnxruntime cannot load the graph, or it does not take and give what the contract says.
        DeviceError: the device is not there.
    """
    session = open_any(graph, device, threads, weights, form)
    _check_contract(session, inputs)
    return session


def open_any(
    graph: bytes, device: Device, threads: int, weights: WeightFiles = NO_WEIGHTS, form: Form = EXPORTED
) -> ort.InferenceSession:
    """Make a session of any graph, as `open_session` does of a backbone's."""
    options = _options(device, threads)
    if weights:
        _add_weights(options, weights)
    session = _load(form.rewritten(graph), options, device, form)
    if device.provider not in session.get_providers():
        # onnxruntime falls back to the CPU with a warning if a driver or library is missing.
        raise DeviceError(
            f"device '{device.name}' could not be used: {device.provider} did not start; check {device.needs}, or use "
            f"`device` cpu{_FORKED if forks.is_forked() else ''}"
        )
    return session


def write_prepared(graph: bytes, weights: WeightFiles, folder: Path, form: Form = EXPORTED) -> None:
    """Write what onnxruntime makes of a graph for this CPU: optimized, its weights laid out as they are multiplied.

    Args:
        graph, weights, form: as `open_session` takes them.
        folder: where to; a graph and a file of weights, for `open_prepared`.

    Raises:
        BundleError: onnxruntime cannot load the graph, or cannot write there.
    """
    options = _options(CPU, threads=1)
    if weights:
        _add_weights(options, weights)
    options.optimized_model_filepath = str(folder / files.PREPARED_GRAPH)
    for key, value in _PREPARATION.items():
        options.add_session_config_entry(key, value)
    _load(form.rewritten(graph), options, CPU, form)


def open_prepared(folder: Path, threads: int, inputs: Collection[str]) -> ort.InferenceSession:
    """Make a CPU session of what `write_prepared` wrote; its weights are mapped, one copy for all who open them.

    Arguments as `open_session` has them.

    Raises:
        BundleError: onnxruntime cannot load it, or it does not take and give what the contract says.
    """
    options = _options(CPU, threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is done
    session = _load(str(folder / files.PREPARED_GRAPH), options, CPU)
    _check_contract(session, inputs)
    return session


def preparation() -> str:
    """Everything besides the graph that a prepared graph depends on: onnxruntime, the CPU, and the session settings.

    If the system does not report the abilities of its CPU, an entry belongs to the computer.
    """
    told = sorted({line for line in _cpuinfo() if line.lower().startswith(("model name", "flags", "features"))})
    cpu = told or [platform.processor(), platform.node()]
    setup = _PREPARATION, list(CPU.disabled_optimizers), int8_saturates()
    return repr((ort.__version__, platform.machine(), cpu, setup))


def _options(device: Device, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*_SLEEP_BETWEEN_RUNS)
    # Nodes that another provider does not take run on the CPU, unless the device has its own memory.
    if device.memory == CPU.memory and int8_saturates():
        options.add_session_config_entry(*EXACT_INT8)
    return options


def _load(
    graph: bytes | str, options: ort.SessionOptions, device: Device, form: Form = EXPORTED
) -> ort.InferenceSession:
    try:
        with forks.waited_for():
            return ort.InferenceSession(
                graph,
                options,
                providers=[device.provider],
                provider_options=[dict(device.provider_options)],
                disabled_optimizers=form.disabled_optimizers(device.disabled_optimizers),
            )
    except Exception as error:
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load the graph ({error}): export the bundle again"
        ) from error


def _check_contract(session: ort.InferenceSession, inputs: Collection[str]) -> None:
    """Raise `BundleError` unless names, types and ranks of the graph's inputs and outputs are the contract's."""
    taken = [(name, _TYPE_OF[contract.INPUTS[name].dtype], len(contract.INPUTS[name].dims)) for name in inputs]
    given = [(name, _TYPE_OF["float32"], len(dims)) for name, dims in contract.outputs(inputs).items()]
    sides = (
        ("inputs", [*session.get_inputs(), *session.get_overridable_initializers()], sorted(taken)),
        ("outputs", session.get_outputs(), sorted(given)),
    )
    for side, values, expected in sides:
        found = sorted((value.name, value.type, len(value.shape)) for value in values)
        if found != expected:
            raise BundleError(
                f"the graph has the {side} {_told(found)}: expected those of a backbone, {_told(expected)}; export the "
                f"bundle again"
            )


def _told(values: Sequence[tuple[str, str, int]]) -> str:
    return ", ".join(f"{name!r:.60} ({kind} of rank {rank})" for name, kind, rank in values[:20]) or "none"


@cache
def int8_saturates() -> bool:
    """Whether int8 products come out wrong on this CPU unless onnxruntime is told to make them exact.

    x86 CPUs without VNNI add products of uint8 and int8 in pairs, of which 16 bits do not hold the largest. With
    `session.x64quantprecision` they are made of uint8 and uint8, which takes a sixth longer. Tried out, since
    onnxruntime would use it on any x86 CPU if told to, although VNNI is exact and far faster.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = _load(_LARGEST_PAIR, options, CPU)
    (product,) = session.run(None, {"x": np.full((1, 2), 255, np.uint8)})
    return int(product[0, 0]) != 2 * 255 * 127


def _add_weights(options: ort.SessionOptions, weights: WeightFiles) -> None:
    if isinstance(weights, Path):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
        return
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise BundleError(
            f"the bundle has weights outside its graph, which onnxruntime {ort.__version__} cannot take from memory: "
            f"pip install -U onnxruntime"
        )
    options.add_external_initializers_from_files_in_memory(
        list(weights), list(weights.values()), [len(data) for data in weights.values()]
    )


def cpu_name() -> str:
    """The processor's own name, if the system reports it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_int8_dot_product() -> bool | None:
    """Whether the CPU has the int8 instructions (VNNI and its kin) that int8 is fast with; `None`: unknown."""
    flags = cpu_flags()
    return not _INT8_DOT_PRODUCT_FLAGS.isdisjoint(flags) if flags else None


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty if the system does not report them."""
    lines = (line for line in _cpuinfo() if line.lower().startswith(("flags", "features")))
    return frozenset(next(lines, "").partition(":")[2].split())


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []
