"""`import edgetune`: its names, its import cost, and which names need PyTorch."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import types

import pytest

import edgetune

HEAVY = ("numpy", "onnxruntime", "sklearn", "tokenizers", "torch", "transformers")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_import_is_light() -> None:
    heavy = run(f"import sys, edgetune; dir(edgetune); print([name for name in {HEAVY} if name in sys.modules])")
    assert heavy == "[]"


def test_the_runtime_is_imported_first() -> None:
    assert run("import os, edgetune; print(os.environ['ORT_DISABLE_TELEMETRY'])") == "1"


@pytest.mark.parametrize("name", edgetune.__all__)
def test_every_name_is_there_without_pytorch_and_described(name: str) -> None:
    described = run(
        "import sys, json\n"
        "class No:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'onnx', 'optimum'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        f"import edgetune; print(json.dumps(edgetune.{name}.__doc__))"
    )
    assert len(json.loads(described)) > 40


def test_parameters_and_methods_are_described() -> None:
    for name in edgetune.__all__:
        thing = getattr(edgetune, name)
        if inspect.isfunction(thing):
            parameters = [one for one in inspect.signature(thing).parameters if one != "self"]
            assert [one for one in parameters if one not in thing.__doc__] == [], name
        for own, value in vars(thing).items() if inspect.isclass(thing) else ():
            if not own.startswith("_") and callable(value):
                assert value.__doc__, f"{name}.{own}"


def test_people_see_the_names() -> None:
    assert set(edgetune.__all__) <= set(dir(edgetune))
    assert set(edgetune._HOME) | {"sklearn"} == set(edgetune.__all__)
    assert sorted(edgetune.__all__) == edgetune.__all__
    assert isinstance(edgetune.sklearn, types.ModuleType)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        edgetune.trian  # noqa: B018


def test_type_checkers_import_them() -> None:
    tree = inspect.getsource(edgetune)
    for name in edgetune.__all__:
        assert f" {name}" in tree.split("TYPE_CHECKING:")[1].split("__all__")[0], name


@pytest.mark.parametrize("call", ["train('m', ['a'], ['b'], 'n')", "export('m', 'out')"])
def test_what_needs_pytorch_says_what_to_install(call: str) -> None:
    told = run(
        "import sys\n"
        "sys.modules['torch'] = sys.modules['accelerate'] = None\n"
        "import edgetune\n"
        f"try: edgetune.{call}\n"
        "except edgetune.EdgetuneError as error: print(error)"
    )
    extra = "train" if call.startswith("train") else "export"
    assert told.endswith(f"pip install 'edgetune[{extra}]'") and "\n" not in told
