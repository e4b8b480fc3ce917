"""Export a frozen backbone to a bundle: graph, precisions, measured parity; all or nothing."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx

from edgetune_export import external, passes
from edgetune_export.backbone import Backbone
from edgetune_export.graph import to_onnx, with_default_bank
from edgetune_export.memory import give_back, page_out
from edgetune_export.parity import (
    CheckTexts,
    compare,
    default_texts,
    in_pairs,
    logits_by_text,
    probe_task,
)
from edgetune_export.quantize import PRECISIONS
from edgetune_export.weights import Weights
from edgetune_runtime import contract, files
from edgetune_runtime.arrays import Array
from edgetune_runtime.bundle import Bundle, WeightFiles
from edgetune_runtime.card import card
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import AccuracyDropError, BackboneError, BundleError, DataError
from edgetune_runtime.manifest import Graph, Manifest, TaskParity
from edgetune_runtime.task import Task

_EXACT = "fp32"
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
        destination: folder of the bundle; it appears only when the export is complete and checked.
        precisions: any of `PRECISIONS`.
        tasks: tasks to add to the bundle, and to measure with.
        checks: task name → texts to measure it on. Other tasks use sample sentences from the package.
        max_drop: how much of a task's figure (such as accuracy) a precision may lose on labelled texts.
        overwrite: whether an existing bundle may be replaced.
        progress: called with a message for each step.

    Raises:
        AccuracyDropError: a precision loses more than `max_drop`.
        BackboneError: the backbone cannot be exported, or its weights were rounded.
        BundleError: the destination already exists.
        DataError: a task's check data has labels that the task does not have.
        TaskError: a task was made for another backbone.
    """
    checks = checks or {}
    if backbone.is_rounded:
        raise BackboneError(
            f"the weights of {backbone.name} were rounded to bf16 to train on, and a bundle has them as they are "
            f'stored: load the model with `load_in` "stored" to export it'
        )
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
        variants = backbone.facts.variants if _EXACT in precisions else ()
        expected = _expected(backbone, tasks or [probe_task(backbone)], checks, variants, progress)
        page_out(backbone)
        give_back()
        graphs = _write_graphs(backbone, precisions, write, progress)
        manifest = Manifest(
            facts=backbone.facts,
            architecture=backbone.architecture,
            graphs=graphs,
            files=dict(hashes),
            edgetune_version=version("edgetune"),
        )
        files.write_atomic(staging / files.MANIFEST, manifest.to_json())
        page_out(backbone)
        give_back()
        staged = _Staged(staging)
        for task in tasks:
            staged.add_task(task)
        manifest = _measured(staged, *expected, progress)
        _check_drops(manifest, max_drop)
        write(files.CARD, [card(manifest, tasks).encode()])
        manifest = dataclasses.replace(manifest, files=dict(hashes))
        files.write_atomic(staging / files.MANIFEST, manifest.to_json())
        staging.chmod(0o755)
        _put(staging, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


class _Staged(Bundle):
    """A bundle that is being written. Nobody else changes its files, so their weights can be mapped."""

    def graph_source(self, precision: str, variant: str) -> tuple[bytes, WeightFiles]:
        return self.map_graph(precision, variant), self.path / files.GRAPHS


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
    weights = Weights(release=lambda: page_out(backbone))
    model = passes.optimize(to_onnx(backbone, weights), weights)
    give_back()
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


@dataclass(frozen=True)
class _Expected:
    """PyTorch's logits for each text of a check."""

    task: Task
    check: CheckTexts
    logits: Sequence[Array]


def _expected(
    backbone: Backbone,
    tasks: Sequence[Task],
    checks: Mapping[str, CheckTexts],
    variants: Collection[str],
    progress: Callable[[str], None],
) -> tuple[list[_Expected], list[_Expected]]:
    """PyTorch's answers: for tasks, and on a few texts for a random task per graph variant.

    They are computed before the graphs exist, so that PyTorch and the graphs do not need memory at the same time.
    """
    fallback = default_texts()
    few = CheckTexts(fallback.texts[:_TEXTS_OF_A_VARIANT])
    asked = [(task, checks.get(task.name, in_pairs(fallback) if task.pairs else fallback)) for task in tasks]
    probes = [(probe_task(backbone, variant), few) for variant in variants]
    found = []
    for task, check in [*asked, *probes]:
        progress(f"answering with PyTorch: {task.name}, {len(check.texts)} texts")
        found.append(_Expected(task, check, logits_by_text(backbone, task, check.texts)[0]))
    return found[: len(asked)], found[len(asked) :]


def _measured(
    staged: Bundle,
    expected: Sequence[_Expected],
    expected_of_variants: Sequence[_Expected],
    progress: Callable[[str], None],
) -> Manifest:
    """Compare the graphs with PyTorch, with one session at a time."""
    manifest, variant_for = staged.manifest, staged.facts.variant_for
    for probe in expected_of_variants:
        variant = variant_for(probe.task)
        progress(f"comparing with PyTorch: graph variant {variant}, {len(probe.check.texts)} texts")
        (found,) = _compared(staged, _EXACT, [probe]).values()
        if found.max_logit_difference > _LARGEST_FP32_DIFFERENCE:
            raise AccuracyDropError(
                f"the fp32 graph's variant {variant} differs from PyTorch by {found.max_logit_difference:.1e}, "
                f"expected at most {_LARGEST_FP32_DIFFERENCE:g}: nothing is written; please report it"
            )
    graphs = {}
    for precision, graph in manifest.graphs.items():
        progress(f"comparing with PyTorch: {precision}")
        parity: dict[str, TaskParity] = {}
        for variant in dict.fromkeys(variant_for(each.task) for each in expected):
            parity |= _compared(staged, precision, [each for each in expected if variant_for(each.task) == variant])
        graphs[precision] = dataclasses.replace(
            graph, parity={each.task.name: parity[each.task.name] for each in expected}
        )
    return dataclasses.replace(manifest, graphs=graphs)


def _compared(staged: Bundle, precision: str, expected: Sequence[_Expected]) -> dict[str, TaskParity]:
    """Task → comparison of a precision, in a session that is closed afterwards."""
    with Engine(staged, precision=precision, prepare=False) as engine:
        found = {each.task.name: compare(each.logits, engine, each.task, each.check) for each in expected}
    del engine
    give_back()
    return found


def _check_drops(manifest: Manifest, max_drop: float) -> None:
    for precision, graph in manifest.graphs.items():
        for name, parity in graph.parity.items():
            if precision == _EXACT and parity.max_logit_difference > _LARGEST_FP32_DIFFERENCE:
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
            f"the check data of task '{task.name}' has labels that the task does not have: {', '.join(unknown)}; "
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
    """A new folder next to the destination, so that the finished bundle needs only one rename."""
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
