"""The manifest of a bundle, `edgetune.json`: the backbone, its graphs, and the digests of all files."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgetune_runtime import contract, files, strict
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import BundleError
from edgetune_runtime.facts import BackboneFacts

FORMAT_VERSION = contract.FORMAT_VERSIONS[-1]
"""The version that is written. Its graphs take `spans`, which edgetune 0.1 does not feed."""

_LONGEST_TEXT = 1000
_LARGEST_SIZE = 1 << 16  # maximum size of a dimension, so that the size of every tensor fits into 64 bits
_MOST_POSITIONS = 1 << 24
_SHA256 = re.compile("[0-9a-f]{64}")
_FIGURE = re.compile("[a-z][a-z0-9_]{0,40}")
_MEASURED = (int, float, type(None))


@dataclass(frozen=True)
class TaskParity:
    """Comparison of a precision's answers with PyTorch's, for one task on real text.

    Attributes:
        rows: number of compared texts.
        max_logit_difference: the largest difference over all texts and labels.
        label_agreement: agreement of the answers, 0 to 1, as the kind of answer defines it.
        figure: headline figure of the kind of answer, such as "accuracy"; higher is better.
        value_torch: its value with PyTorch; `None` if the texts had no labels.
        value: its value in this precision; `None` if the texts had no labels.
    """

    rows: int
    max_logit_difference: float
    label_agreement: float
    figure: str = "accuracy"
    value_torch: float | None = None
    value: float | None = None

    @property
    def drop(self) -> float | None:
        """How much lower the figure is than with PyTorch (negative if it is higher)."""
        if self.value is None or self.value_torch is None:
            return None
        return self.value_torch - self.value

    def to_record(self) -> dict[str, Any]:
        """The record for JSON; the values are stored under the figure's name."""
        return {
            "rows": self.rows,
            "max_logit_difference": self.max_logit_difference,
            "label_agreement": self.label_agreement,
            "figure": self.figure,
            f"{self.figure}_torch": self.value_torch,
            self.figure: self.value,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TaskParity:
        """Read a record. Records of edgetune 0.1 do not name the figure, which is then the accuracy.

        Raises:
            ValueError, KeyError, TypeError: it does not have the format of `to_record`.
        """
        figure = record.get("figure", "accuracy")
        if not isinstance(figure, str) or not _FIGURE.fullmatch(figure):
            raise ValueError(f"a figure {figure!r:.60}")
        names = ("rows", "max_logit_difference", "label_agreement")
        measured = {name: record[name] for name in names}
        measured |= {"value_torch": record.get(f"{figure}_torch"), "value": record.get(figure)}
        odd = [value for value in measured.values() if type(value) not in _MEASURED]
        if odd:
            raise ValueError(f"a parity of {odd[0]!r:.40}")
        return cls(figure=figure, **measured)


@dataclass(frozen=True)
class Graph:
    """One precision of the backbone.

    Attributes:
        file: path of the graph inside the bundle.
        batch_invariant: whether a row's answer does not depend on the other rows in its batch. If it does (dynamic
            int8: the activation scale is computed over the whole batch), rows run one by one.
        parity: task name → comparison that was measured at export.
        data: path of the graph's weights inside the bundle, if they are too large for the graph's file (2 GB).
        variants: variant → path of its graph, which uses the same weights.
    """

    file: str
    batch_invariant: bool
    parity: Mapping[str, TaskParity] = field(default_factory=dict)
    data: str | None = None
    variants: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> str:
        """Path inside the bundle of the file with the weights."""
        return self.data or self.file

    @property
    def paths(self) -> list[str]:
        """Paths inside the bundle of all its files: the graph, the weights, the variants."""
        return [*self.paths_of(contract.BASE), *self.variants.values()]

    def paths_of(self, variant: str) -> list[str]:
        """Paths inside the bundle of a variant's graph and, if they are in another file, of its weights."""
        return list(dict.fromkeys((self.variants.get(variant, self.file), self.weights)))

    def to_record(self) -> dict[str, Any]:
        """The record for JSON."""
        record = {name: getattr(self, name) for name in ("file", "batch_invariant", "data")}
        parity = {name: one.to_record() for name, one in self.parity.items()}
        return {**record, "parity": parity, "variants": dict(self.variants)}


@dataclass(frozen=True)
class Manifest:
    """The contents of a bundle's `edgetune.json`.

    Attributes:
        facts: what tasks and texts need to know about the backbone.
        architecture: its `model_type`.
        graphs: precision → its graph.
        files: path inside the bundle → SHA-256, for all files except the tasks (which contain their own).
        edgetune_version: the version that wrote the bundle.
        format_version: the format version that it was written in.
    """

    facts: BackboneFacts
    architecture: str
    graphs: Mapping[str, Graph]
    files: Mapping[str, str]
    edgetune_version: str
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """The manifest as the bytes of `edgetune.json`, with the graph's inputs and outputs spelled out."""
        facts = self.facts
        outputs = contract.outputs(facts.inputs)
        record = {
            "format_version": self.format_version,
            "requires": [],
            "base_model": facts.name,
            "backbone_sha256": facts.sha256,
            "sizes": {name: size for name, size in vars(facts.sizes).items() if size},
            "max_positions": facts.max_positions,
            "poolings": facts.poolings,
            "mask_token": facts.mask_token,
            "inputs": _specs(facts.inputs),
            "variants": {variant: {"inputs": _specs(more)} for variant, more in facts.variants.items()},
            "outputs": {name: {"dtype": "float32", "dims": dims} for name, dims in outputs.items()},
            "architecture": self.architecture,
            "graphs": {precision: graph.to_record() for precision, graph in self.graphs.items()},
            "files": dict(self.files),
            "edgetune_version": self.edgetune_version,
        }
        if facts.classifier_sha256:
            record["classifier_sha256"] = facts.classifier_sha256
        return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, origin: str) -> Manifest:
        """Read a manifest. Unknown fields are ignored, unless `requires` names them.

        Raises:
            BundleError: it is not JSON, has an unknown format version or requirement, or a field is missing or not
                valid.
        """
        try:
            record: dict[str, Any] = strict.json_value(data)
            version = record["format_version"]
            if type(version) is not int or version not in contract.FORMAT_VERSIONS:
                expected = " or ".join(map(str, contract.FORMAT_VERSIONS))
                raise BundleError(
                    f"{origin} has bundle format version {version}, expected {expected}: export it "
                    f"again, or install the edgetune that wrote it"
                )
            _check_requires(record.get("requires", []), origin)
            sizes = {name: strict.whole_number(size, 1, _LARGEST_SIZE) for name, size in record["sizes"].items()}
            facts = BackboneFacts(
                name=strict.plain_text(record["base_model"], _LONGEST_TEXT),
                sha256=strict.plain_text(record["backbone_sha256"], _LONGEST_TEXT),
                sizes=BackboneSizes(**sizes),
                max_positions=strict.whole_number(record["max_positions"], 1, _MOST_POSITIONS),
                poolings=tuple(record["poolings"]),
                mask_token=strict.plain_text(record["mask_token"], _LONGEST_TEXT),
                inputs=contract.INPUTS_OF_0_1 if version == 1 else _inputs(record["inputs"]),
                variants=_variants(record.get("variants", {})),
                classifier_sha256=strict.plain_text(record.get("classifier_sha256", ""), _LONGEST_TEXT),
            )
            manifest = cls(
                facts=facts,
                architecture=strict.plain_text(record["architecture"], _LONGEST_TEXT),
                graphs={precision: _graph(precision, graph) for precision, graph in record["graphs"].items()},
                files=_digests(record["files"]),
                edgetune_version=strict.plain_text(record["edgetune_version"], _LONGEST_TEXT),
                format_version=version,
            )
            known = (
                isinstance(record["poolings"], list) and facts.poolings and {*facts.poolings} <= {*contract.POOLINGS}
            )
            lacking = [
                name for name, graph in manifest.graphs.items() if graph.variants.keys() != facts.variants.keys()
            ]
            if lacking:
                raise ValueError(f"variants {list(facts.variants)}, and others of {lacking[0]}")
            if not manifest.graphs or not known:
                raise ValueError(f"{len(manifest.graphs)} graphs, poolings {facts.poolings}")
            if "mask" in facts.poolings and not facts.mask_token:
                raise ValueError("the pooling 'mask' without a mask token")
            return manifest
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleError(
                f"{origin} is not a sound edgetune manifest ({type(error).__name__}: {error}): export the bundle again"
            ) from error


def _check_requires(needed: object, origin: str) -> None:
    if not isinstance(needed, list) or not all(isinstance(one, str) for one in needed):
        raise ValueError(f"requires is {needed!r:.60}")
    if needed:  # this version does not support any requirement of a manifest
        raise BundleError(
            f"{origin} requires {', '.join(needed)}, which this edgetune does not know: install a newer edgetune"
        )


def _specs(names: Collection[str]) -> dict[str, Any]:
    return {name: asdict(contract.INPUTS[name]) for name in names}


def _inputs(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The graph's inputs, in the contract's order."""
    found = _known_inputs(record)
    missing = sorted(set(contract.REQUIRED_INPUTS).difference(found))
    if missing:
        raise ValueError(f"a graph without the inputs {', '.join(missing)}")
    return found


def _variants(record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Variants and their additional inputs, cheapest first. Variants of newer versions are ignored."""
    known = [name for name in contract.VARIANTS if name in record and name != contract.BASE]
    return {name: _known_inputs(record[name]["inputs"]) for name in known}


def _known_inputs(record: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = sorted(record.keys() - contract.INPUTS.keys())
    if unknown:
        raise ValueError(f"graph inputs {unknown!r:.300}, which this edgetune does not know; a newer one may")
    for name, spec in record.items():
        own = contract.INPUTS[name]
        if (spec["dtype"], tuple(spec["dims"])) != (own.dtype, own.dims):
            raise ValueError(f"a graph input {name!r} of {spec!r:.100}")
    return tuple(name for name in contract.INPUTS if name in record)


def _graph(precision: str, record: Mapping[str, Any]) -> Graph:
    file, data, invariant = record["file"], record.get("data"), record["batch_invariant"]
    if not files.is_plain_path(precision) or file != files.graph_file(precision):
        raise ValueError(f"a graph or its weights in {file!r:.300}")
    if data not in (None, files.data_file(file)):
        raise ValueError(f"a graph or its weights in {data!r:.300}")
    if not isinstance(invariant, bool):
        raise ValueError(f"batch_invariant {invariant!r:.40}")
    variants = {name: path for name, path in record.get("variants", {}).items() if name in contract.VARIANTS}
    odd = [path for name, path in variants.items() if path != files.variant_file(file, name)]
    if odd:
        raise ValueError(f"a variant of a graph in {odd[0]!r:.300}")
    parity = {name: TaskParity.from_record(measured) for name, measured in record["parity"].items()}
    return Graph(file, invariant, parity, data, variants)


def _digests(record: Mapping[str, Any]) -> dict[str, str]:
    for name, digest in record.items():
        if not files.is_plain_path(name) or not _SHA256.fullmatch(digest):
            raise ValueError(f"a file {name!r:.300} with the SHA-256 {digest!r:.80}")
    return dict(record)
