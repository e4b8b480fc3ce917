"""Build the sdist, and the wheel from it, twice; test both in clean folders.

The sdist's tests run against the wheel, with the sdist's own source deleted. The wheel is also installed alone in a new
environment, where it classifies and serves.

`make wheel-check` runs this. It is not a pytest module, because it creates an environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent

EXPORT_TINY_BUNDLE = """
import sys
from pathlib import Path
from urllib.request import Request, urlopen
sys.path.insert(0, sys.argv[1])
from conftest import random_task, save_tiny_bert
from edgetune_export import export_bundle, load_backbone
from edgetune_runtime import Bundle
folder = Path(sys.argv[2])
save_tiny_bert(folder / "model")
export_bundle(load_backbone(str(folder / "model")), folder / "bundle")
bundle = Bundle(folder / "bundle")
bundle.add_task(random_task(bundle, "colour", prefix=6))
"""

SOURCES = ("edgetune", "export", "runtime")
"""The folders of the sdist that are deleted before its tests run."""

SDIST_TESTS = [
    "tests/runtime/test_bundle.py",
    *("tests/cli/test_flags.py", "tests/docs/test_release.py"),
]
"""Tests that run from the sdist: a minute on bundles, the engine, the commands, and files that are not code."""

WHERE_PACKAGES_ARE = """
import edgetune
import edgetune_export
import edgetune_runtime
print(edgetune.__file__, edgetune_export.__file__, edgetune_runtime.__file__)
"""

NO_TRAINING_PACKAGES = """
import sys
import edgetune_runtime
from edgetune_runtime import Engine
assert Engine(sys.argv[1]).classify(["a text"], task="colour")[0].label
assert not {"torch", "transformers", "onnx", "optimum"} & set(sys.modules)
"""


def run(*command: object, text: str = "") -> str:
    """Run a command to its end. Returns its stdout."""
    return subprocess.run(list(map(str, command)), input=text, check=True, text=True, stdout=subprocess.PIPE).stdout


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it: files that the sdist lacks are missing in the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_sdist(sdist: Path, wheel: Path, folder: Path) -> None:
    """Run the sdist's tests against the wheel, without any source: neither the sdist's nor this checkout's."""
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "sdist", filter="data")
    (root,) = (folder / "sdist").iterdir()
    for name in SOURCES:
        shutil.rmtree(root / name)
    site = folder / "site-packages"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    environment = {**os.environ, "PYTHONPATH": str(site)}  # it comes before an editable install
    command = [sys.executable, "-c", WHERE_PACKAGES_ARE]
    found = subprocess.run(command, cwd=root, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout
    if found.count(str(site)) != len(SOURCES):
        raise SystemExit(f"the sdist's tests would not use the wheel, but {found}")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *SDIST_TESTS]
    subprocess.run(command, cwd=root, env=environment, check=True)
    print(f"the tests of {sdist.name} pass with {wheel.name}, without the source")


def serve(edgetune: Path, bundle: Path) -> None:
    """Raise an error if the server does not answer, or has no page."""
    command = [str(edgetune), "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = next(line for line in process.stderr or () if "tasks on http://" in line)
            url = said.split()[-1]
            question = json.dumps({"model": "colour", "input": "it is broken"}).encode()
            request = Request(f"{url}/v1/classify", question, {"content-type": "application/json"})
            with urlopen(request) as answer, urlopen(url) as page:
                if not json.load(answer)["data"][0]["label"] or b"edgetune" not in page.read():
                    raise SystemExit("the server of the wheel does not answer")
        finally:
            process.terminate()


def main() -> None:
    """Raise an error if anything does not work."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["EDGETUNE_CACHE"] = str(folder / "cache")
        built, again = build(folder / "dist"), build(folder / "again")
        for one, other in zip(built, again, strict=True):
            if one.read_bytes() != other.read_bytes():
                raise SystemExit(f"two builds of the same source give different files {one.name}")
        sdist, wheel = built
        test_sdist(sdist, wheel, folder)
        run(sys.executable, "-c", EXPORT_TINY_BUNDLE, ROOT / "tests", folder)

        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        run(scripts / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
        installed = json.loads(run(scripts / "python", "-m", "pip", "list", "--format", "json"))
        heavy = {"torch", "transformers", "onnx", "optimum"} & {package["name"] for package in installed}
        if heavy:
            raise SystemExit(f"the base install brings {', '.join(sorted(heavy))}")

        run(scripts / "edgetune", "--help")
        run(scripts / "python", "-c", NO_TRAINING_PACKAGES, folder / "bundle")
        printed = run(scripts / "edgetune", "classify", folder / "bundle", "--task", "colour", text="it is broken\n")
        answer = json.loads(printed)
        if answer["status"] != "ok":
            raise SystemExit(f"the wheel does not classify: {answer}")
        print(f"{wheel.name} alone classifies: {printed.strip()}")

        packages = ROOT / "web/node_modules"
        if packages.exists():
            run(scripts / "edgetune", "site", folder / "bundle", folder / "site", "--node-modules", packages)
            if not (folder / "site/edgetune/engine.js").exists():
                raise SystemExit("the wheel's site has no engine")
            print(f"{wheel.name} alone writes a site")

        run(scripts / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[serve]")
        serve(scripts / "edgetune", folder / "bundle")
        print(f"{wheel.name}[serve] serves")


if __name__ == "__main__":
    main()
