"""examples/cpp: compiled, run, and compared with the engine.

It needs g++, make and the headers of onnxruntime and nlohmann's json, where compilers look or in CPLUS_INCLUDE_PATH.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from conftest import TEXTS

from edgetune.cli import cli
from edgetune_runtime import Bundle, Engine, files
from edgetune_runtime.session import int8_saturates

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"
FOLDER = "/usr/include/onnxruntime"


def _headers() -> bool:
    if not (shutil.which("g++") and shutil.which("make")):
        return False
    wanted = "#include <onnxruntime_cxx_api.h>\n#include <nlohmann/json.hpp>\n"
    command = ["g++", "-std=c++17", "-fsyntax-only", "-I", FOLDER, "-x", "c++", "-"]
    return subprocess.run(command, input=wanted, capture_output=True, text=True).returncode == 0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled programs."""
    if not _headers():
        pytest.skip("no g++ with the headers of onnxruntime and nlohmann's json: see examples/cpp/README.md")
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("cpp") / "cpp")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    made = subprocess.run(
        ["make", "-j2", f"INCLUDE={FOLDER}", f"SHARED={library}", "CXXFLAGS=-O0 -Werror"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return folder


def answer(program: Path, *arguments: object, lines: list[str]) -> list[str]:
    exact = ["exact"] if int8_saturates() else []
    done = subprocess.run(
        [program, *map(str, arguments), *exact],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def adapter(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter") / "colour.onnx_adapter"
    done = CliRunner().invoke(cli, ["tasks", "export-adapter", str(bundle_folder), "colour", "--out", str(path)])
    assert done.exit_code == 0
    return path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_ids_give_the_engines_logits(programs: Path, adapter: Path, bundle: Bundle, precision: str) -> None:
    with Engine(bundle, precision) as engine:
        task = engine.task("colour")
        rows = [row.ids for row in engine.encode(TEXTS, [task] * len(TEXTS))]
        expected = engine.run([(row, task) for row in rows])
    graph = bundle.path / files.graph_file(precision)
    got = answer(programs / "adapter", graph, adapter, lines=[" ".join(map(str, row)) for row in rows])
    np.testing.assert_allclose([[float(number) for number in line.split()] for line in got], expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_text_gives_the_engines_label(
    programs: Path, adapter: Path, bundle: Bundle, precision: str, tmp_path: Path
) -> None:
    texts = [*TEXTS, "GOOD!! (lamp) isn't", "  tabs\tand  spaces ", "unknownword $5.00", "lamp " * 300, "a" * 200, ""]
    told = CliRunner().invoke(cli, ["tasks", "show", str(bundle.path), "colour", "--json"])
    (tmp_path / "task.json").write_text(told.output)
    assert json.loads(told.output)["pooling"] == "mean"
    graph = files.graph_file(precision)
    got = answer(programs / "classify", bundle.path, graph, adapter, tmp_path / "task.json", lines=texts)
    with Engine(bundle, precision) as engine:
        for line, result in zip(got, engine.classify(texts, task="colour"), strict=True):
            label, score = line.split("\t")
            assert label == result.label
            assert float(score) == pytest.approx(max(result.scores.values()), abs=1e-5)


def test_what_it_does_not_do_is_refused(programs: Path, adapter: Path, bundle: Bundle, tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["tasks", "show", str(bundle.path), "colour", "--json"])
    (tmp_path / "task.json").write_text(told.output)
    arguments = [bundle.path, files.graph_file("fp32"), adapter, tmp_path / "task.json"]
    for text, message in (("größe", "not ASCII"), ("a [MASK] b", "has '[MASK]' in it")):
        done = subprocess.run([programs / "classify", *arguments], input=f"{text}\n", capture_output=True, text=True)
        assert (done.returncode, message in done.stderr) == (1, True)
