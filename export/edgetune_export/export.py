"""From a frozen backbone to a bundle: graph, precisions, measured parity, all or nothing."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import onnx

from edgetune_export import external, passes
from edgetune_export.backbone import Backbone
from edgetune_export.card import card
from edgetune_export.graph import to_onnx, with_default_bank
from edgetune_export.parity import CheckTexts, compare, default_texts, in_pairs, probe_task, torch_logits
from edgetune_export.quantize import PRECISIONS
from edgetune_export.weights import Weights
from edgetune_runtime import contract, files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import AccuracyDropError, BundleError, DataError
from edgetune_runtime.manifest import Graph, Manifest, TaskParity
from edgetune_runtime.task import Task

_LARGEST_FP32_DIFFERENCE = 1e-2
_TEXTS_OF_A_VARIANT = 8


def export_bundle(
    backbone: Backbone,
    destination: Path,
    *,
    precisions: Sequence[str] = ("fp32", "int8"),
    tasks: Sequence[Task] = (),
    checks: Mapping[str, CheckTexts] | None = None,
    max_drop: float = 0.01,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export a backbone, and measure every precision against PyTorch.

    Args:
        backbone: the frozen backbone.
        destination: folder of the bundle; it appears when all is done and checked.
        precisions: some of `PRECISIONS`.
        tasks: tasks to put into the bundle, and to measure with.
        checks: task name → texts to measure it on; sentences that come with the package for the others.
        max_drop: most that a precision may lose of a task's figure (such as its accuracy) on labelled texts.
        overwrite: whether a bundle that is there may be replaced.
        progress: told of each step.

    Raises:
        AccuracyDropError: a precision lost more than `max_drop`.
        BackboneError: the backbone cannot be exported.
        BundleError: the destination is taken.
        DataError: a task is checked with labels that it does not have.
        TaskError: a task was made for another backbone.
    """
    checks = checks or {}
    _check_destination(destination, overwrite)
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise BundleError(f"two tasks have the same name among {', '.join(names)}: a bundle holds each name once")
    for task in tasks:
        backbone.facts.check(task)
        _check_targets(task, checks.get(task.name))
    staging = _staging(destination)
    try:
        hashes: dict[str, str] = {}

        def write(name: str, chunks: external.Chunks) -> None:
            digest = hashlib.sha256()
            files.write_chunks(staging / name, _hashed(chunks, digest))
            hashes[name] = digest.hexdigest()

        write(files.CONFIG, [backbone.config.to_json_string().encode()])
        write(files.TOKENIZER, [backbone.tokenizer_json])
        graphs = _write_graphs(backbone, precisions, write, progress)
        manifest = Manifest(
            facts=backbone.facts,
            architecture=backbone.architecture,
            graphs=graphs,
            files=dict(hashes),
            edgetune_version=version("edgetune"),
        )
        files.write_atomic(staging / files.MANIFEST, manifest.to_json())
        staged = Bundle(staging)
        for task in tasks:
            staged.add_task(task)
        _check_variants(backbone, staged, progress)
        manifest = _measured(backbone, staged, tasks or [probe_task(backbone)], checks, progress)
        _check_drops(manifest, max_drop)
        write(files.CARD, [card(manifest).encode()])
        manifest = dataclasses.replace(manifest, files=dict(hashes))
        files.write_atomic(staging / files.MANIFEST, manifest.to_json())
        staging.chmod(0o755)
        _put(staging, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _hashed(chunks: external.Chunks, digest: hashlib._Hash) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _write_graphs(
    backbone: Backbone,
    precisions: Sequence[str],
    write: Callable[[str, external.Chunks], None],
    progress: Callable[[str], None],
) -> dict[str, Graph]:
    progress("tracing the backbone")
    weights = Weights()
    model = passes.optimize(to_onnx(backbone, weights), weights)
    graphs = {}
    for name in precisions:
        progress(f"writing {name}")
        graphs[name] = _write_graph(model, weights, backbone, name, write)
    return graphs


def _write_graph(
    model: onnx.ModelProto,
    weights: Weights,
    backbone: Backbone,
    name: str,
    write: Callable[[str, external.Chunks], None],
) -> Graph:
    precision, facts = PRECISIONS[name], backbone.facts
    file = files.graph_file(name)
    data_file = files.data_file(file)
    every = precision.convert(model, weights)

    def variant(name: str) -> onnx.ModelProto:
        lacking = set(backbone.inputs).difference(facts.inputs_of(name))
        return with_default_bank(passes.without_parts(copy.deepcopy(every), lacking), backbone)

    base = variant(contract.BASE)
    lie = external.lay_out(base, Path(file).name, Path(data_file).name)
    beside = any(place.file == Path(data_file).name for place in lie.values())
    write(file, external.graph_chunks(base, weights, lie if beside else {}))
    if beside:
        write(data_file, external.data_chunks(base, weights, lie))
    variants = {one: files.variant_file(file, one) for one in facts.variants}
    for one, path in variants.items():
        write(path, external.graph_chunks(variant(one), weights, lie))
    return Graph(file, precision.batch_invariant, data=data_file if beside else None, variants=variants)


def _measured(
    backbone: Backbone,
    staged: Bundle,
    tasks: Sequence[Task],
    checks: Mapping[str, CheckTexts],
    progress: Callable[[str], None],
) -> Manifest:
    manifest = staged.manifest
    parity: dict[str, dict[str, TaskParity]] = {precision: {} for precision in manifest.graphs}
    fallback = default_texts()
    for task in tasks:
        check = checks.get(task.name, in_pairs(fallback) if task.pairs else fallback)
        progress(f"comparing with PyTorch: {task.name}, {len(check.texts)} texts")
        expected = torch_logits(backbone, task, check.texts)
        for precision in manifest.graphs:
            with Engine(staged, precision=precision, prepare=False) as engine:
                parity[precision][task.name] = compare(expected, engine, task, check)
    return dataclasses.replace(
        manifest,
        graphs={name: dataclasses.replace(graph, parity=parity[name]) for name, graph in manifest.graphs.items()},
    )


def _check_variants(backbone: Backbone, staged: Bundle, progress: Callable[[str], None]) -> None:
    """Compare the variants of the fp32 graph with PyTorch, on a few texts."""
    if "fp32" not in staged.manifest.graphs:
        return
    few = CheckTexts(default_texts().texts[:_TEXTS_OF_A_VARIANT])
    with Engine(staged, precision="fp32", prepare=False) as engine:
        for variant in staged.facts.variants:
            progress(f"comparing with PyTorch: graph variant {variant}, {len(few.texts)} texts")
            task = probe_task(backbone, variant)
            found = compare(torch_logits(backbone, task, few.texts), engine, task, few)
            if found.max_logit_difference > _LARGEST_FP32_DIFFERENCE:
                raise AccuracyDropError(
                    f"the fp32 graph's variant {variant} differs from PyTorch by {found.max_logit_difference:.1e}, "
                    f"expected at most {_LARGEST_FP32_DIFFERENCE:g}: nothing is written; please report it"
                )


def _check_drops(manifest: Manifest, max_drop: float) -> None:
    for precision, graph in manifest.graphs.items():
        for name, parity in graph.parity.items():
            if precision == "fp32" and parity.max_logit_difference > _LARGEST_FP32_DIFFERENCE:
                raise AccuracyDropError(
                    f"the fp32 graph differs from PyTorch by {parity.max_logit_difference:.1e} on the logits of task "
                    f"'{name}', expected at most {_LARGEST_FP32_DIFFERENCE:g}: nothing is written; please report it"
                )
            if parity.drop is not None and parity.drop > max_drop:
                raise AccuracyDropError(
                    f"{precision} loses {parity.drop:.1%} {parity.figure} on task '{name}' ({parity.value_torch:.1%} "
                    f"to {parity.value:.1%} on {parity.rows} texts), more than `max_drop` {max_drop:g} allows: "
                    f"leave {precision} out of `precisions`, or raise `max_drop`"
                )


def _check_targets(task: Task, check: CheckTexts | None) -> None:
    named = {label for target in (check.targets if check else None) or () for label in task.kind.named(target)}
    unknown = sorted(named - set(task.labels))
    if unknown:
        raise DataError(
            f"the check data of task '{task.name}' has labels that the task does not: {', '.join(unknown)}; "
            f"it has {', '.join(task.labels)}"
        )


def _check_destination(destination: Path, overwrite: bool) -> None:
    if not destination.exists():
        return
    if not overwrite:
        raise BundleError(f"{destination} already exists: name another folder, or pass `overwrite`")
    if not (destination / files.MANIFEST).is_file():
        raise BundleError(
            f"{destination} is not a bundle (it has no {files.MANIFEST}), so it is not overwritten: name another folder"
        )


def _staging(destination: Path) -> Path:
    """A new folder beside the destination, so that the finished bundle is one rename away."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
    except OSError as error:
        raise BundleError(f"{destination} cannot be written: {error.strerror}; name another folder") from error


def _put(staging: Path, destination: Path) -> None:
    if destination.exists():
        old = staging.with_suffix(".old")
        destination.replace(old)
        try:
            staging.replace(destination)
        except OSError:
            old.replace(destination)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.replace(destination)
    files.sync_folder(destination.parent)
