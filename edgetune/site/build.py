"""Write a folder that any file server can serve: the server's page, with the engine in the browser."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgetune.site.packages import own_files, package_files
from edgetune_runtime import contract, files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import BundleError, DataError

_PAGE = ("index.html", "page.css", "page.js", "dom.js")
_EXACT = "fp32"
_BUNDLE = "bundle"
_SITE = "site.json"
_COMPRESSED = (".wasm", ".onnx", ".data", ".json")
"""Extensions of files that compress well; they are stored as FILE.gz, whatever the file server does."""


@dataclass(frozen=True)
class Site:
    """A written site.

    Attributes:
        folder: its folder.
        tasks: names of its tasks.
        precisions: its precisions: the first for all texts, an optional second for close calls.
        total_bytes: size of all its files.
        first_bytes: maximum download size before the first answer; less if a task does not need a variant of the graph.
    """

    folder: Path
    tasks: tuple[str, ...]
    precisions: tuple[str, ...]
    total_bytes: int
    first_bytes: int


def build_site(
    bundle: Bundle,
    folder: Path,
    node_modules: Path,
    tasks: Sequence[str] = (),
    precisions: Sequence[str] = (),
    replace: bool = False,
) -> Site:
    """Write a static page that classifies in the browser.

    Args:
        bundle: the bundle; its files are checked.
        folder: the target folder, which must be missing, empty, or a site.
        node_modules: a folder with the npm packages in `packages.PACKAGES`.
        tasks: tasks of the bundle; all by default.
        precisions: one precision of the bundle, or int8 and fp32 for close calls; by default int8 if the bundle has it.
        replace: whether to replace the files of an existing site.

    Raises:
        BundleError: a file of the bundle is missing or damaged, or the precision does not exist.
        DataError: `folder` has other files, a package is missing, or there is no task.
        TaskError: a task does not exist or is damaged.
    """
    chosen = _precisions(bundle, precisions)
    names = list(dict.fromkeys(tasks)) or bundle.task_names()
    if not names:
        raise DataError(f"{bundle.path} has no tasks: put some there with 'edgetune tasks add'")
    loaded = [bundle.load_task(name) for name in names]
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / _SITE).is_file())):
        raise DataError(f"{folder} exists and is not a site: name a folder that is new or empty")
    if (folder / _SITE).exists() and not replace:
        raise DataError(f"{folder} has a site already: name another folder, or pass `replace`")
    variants = {bundle.facts.variant_for(task) for task in loaded}
    # All files are read before anything is written, so that missing files are reported before anything is replaced.
    page = list(_page_files(node_modules))
    own = list(_bundle_files(bundle, chosen, variants))
    told = {"tasks": names, "precision": chosen[0] if len(chosen) == 1 else None}
    written = {path: _write(folder, path, data) for path, data in page}
    written |= {f"{_BUNDLE}/{path}": _write(folder, f"{_BUNDLE}/{path}", data) for path, data in own}
    for name in names:
        path = files.task_file(name)
        with files.open_inside(bundle.path, path) as file:
            written[f"{_BUNDLE}/{path}"] = _write(folder, f"{_BUNDLE}/{path}", file.read())
    written[_SITE] = _write(folder, _SITE, (json.dumps(told, indent=2) + "\n").encode())
    later = {f"{_BUNDLE}/{path}" for path in bundle.manifest.graphs[_EXACT].paths} if len(chosen) > 1 else set()
    first = sum(size for path, size in written.items() if path not in later)
    return Site(folder, tuple(names), chosen, sum(written.values()), first)


def _precisions(bundle: Bundle, wanted: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(wanted)) or (bundle.precision(None),)
    for one in chosen:
        bundle.precision(one)
        if not bundle.has_graph(one):
            raise BundleError(f"{bundle.path} lacks the files of precision {one}: copy or export it again")
    if len(chosen) > 1:
        chosen = (*(one for one in chosen if one != _EXACT), *(one for one in chosen if one == _EXACT))
        if chosen != (bundle.precision(None), _EXACT):
            raise BundleError(
                f"`precisions` are {', '.join(wanted)}: expected one, or {bundle.precision(None)} and {_EXACT}, which "
                f"answers its close calls"
            )
    return chosen


def _page_files(node_modules: Path) -> Iterator[tuple[str, bytes]]:
    page = resources.files("edgetune.server") / "page"
    for name in _PAGE:
        yield name, (page / name).read_bytes()
    yield from own_files()
    yield from package_files(node_modules)


def _bundle_files(bundle: Bundle, precisions: Sequence[str], variants: set[str]) -> Iterator[tuple[str, bytes]]:
    with files.open_inside(bundle.path, files.MANIFEST) as file:
        yield files.MANIFEST, file.read()
    names = [files.TOKENIZER, files.CONFIG]
    for precision in precisions:
        for variant in sorted({*variants, contract.BASE} if contract.BASE in variants else variants):
            names += bundle.graph_files(precision, variant)
    for name in dict.fromkeys(names):
        yield name, bundle.read(name)


def _write(folder: Path, path: str, data: bytes) -> int:
    """Write a file of the site. Returns its size on disk."""
    if path.endswith(_COMPRESSED) and path not in (_SITE, f"{_BUNDLE}/{files.MANIFEST}"):
        path, data = f"{path}.gz", gzip.compress(data, 6, mtime=0)
    files.write_atomic(folder / path, data)
    return len(data)
