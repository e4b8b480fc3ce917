"""The JavaScript files of a site: edgetune's own, and those of two npm packages that the user installs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgetune_runtime.errors import DataError

_TREE = Path(__file__).resolve().parents[2] / "web"


@dataclass(frozen=True)
class Package:
    """An npm package with files for the site.

    Attributes:
        name: name of the package.
        version: the one that edgetune was tested with.
        files: path inside the package → name in the site. Some file servers do not know that .mjs is JavaScript.
    """

    name: str
    version: str
    files: Mapping[str, str]


PACKAGES = (
    Package(
        "onnxruntime-web",
        "1.30.0",
        {
            "dist/ort.wasm.min.mjs": "onnxruntime.js",
            "dist/ort-wasm-simd-threaded.mjs": "onnxruntime-wasm.js",
            "dist/ort-wasm-simd-threaded.wasm": "onnxruntime.wasm",
        },
    ),
    Package("@huggingface/tokenizers", "0.2.0", {"dist/tokenizers.min.mjs": "tokenizers.js"}),
)
"""They are installed from npm, because onnxruntime's wasm file alone is larger than all of edgetune."""

INSTALL = "npm install " + " ".join(f"{package.name}@{package.version}" for package in PACKAGES)


def own_files() -> Iterator[tuple[str, bytes]]:
    """Path in the site and bytes of edgetune's own JavaScript."""
    # A wheel has it inside this package, the repository in a separate folder.
    inside = resources.files("edgetune.site") / "web"
    root = inside if inside.is_dir() else _TREE
    for file in (root / "site").iterdir():
        if file.name.endswith(".js"):
            yield file.name, file.read_bytes()
    for folder, prefix in ((root / "src", "edgetune"), (root / "src" / "kinds", "edgetune/kinds")):
        for file in folder.iterdir():
            if file.name.endswith(".js") and not file.name.startswith("node"):
                yield f"{prefix}/{file.name}", file.read_bytes()


def package_files(node_modules: Path) -> Iterator[tuple[str, bytes]]:
    """Path in the site and bytes of the files from npm packages.

    Raises:
        DataError: a package is missing, or has another version.
    """
    for package in PACKAGES:
        folder = node_modules / package.name
        try:
            found = json.loads((folder / "package.json").read_bytes())["version"]
            if found != package.version:
                raise DataError(
                    f"{folder} has version {found}: expected {package.version}, with which answers were tested; run "
                    f"'{INSTALL}', and name its folder with `node_modules`"
                )
            for path, name in package.files.items():
                yield f"npm/{name}", (folder / path).read_bytes()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{folder} does not have the npm package {package.name} ({error}): run '{INSTALL}', and name its "
                f"folder with `node_modules`"
            ) from error
