"""Build the sdist and of it the wheel, twice; install the wheel alone in a new environment, and classify there.

Run by `make wheel-check`; not a pytest module, since it makes an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
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

NO_TRAINING_PACKAGES = """
import sys
import edgetune_runtime
from edgetune_runtime import Engine
assert Engine(sys.argv[1]).classify(["a text"], task="colour")[0].label
assert not {"torch", "transformers", "onnx", "optimum"} & set(sys.modules)
"""


def run(*command: object, text: str = "") -> str:
    """Run a command to its end; gives what it prints."""
    return subprocess.run(list(map(str, command)), input=text, check=True, text=True, stdout=subprocess.PIPE).stdout


def build(folder: Path) -> Path:
    """The wheel, made of the sdist alone: what the sdist lacks, the wheel lacks."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def serve(edgetune: Path, bundle: Path) -> None:
    """Raise where the server does not answer, or has no page."""
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
    """Raise where anything does not work."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["EDGETUNE_CACHE"] = str(folder / "cache")
        wheel = build(folder / "dist")
        if wheel.read_bytes() != build(folder / "again").read_bytes():
            raise SystemExit("two builds of the same source give different wheels")
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
