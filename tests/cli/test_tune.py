"""`edgetune tune`: the table, JSON, what is used afterwards, and taking it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import TEXTS

from edgetune.cli import cli
from edgetune.tables import WIDTH
from edgetune.tuning import timing
from edgetune.tuning.tune import tune
from edgetune_runtime import Bundle, Engine, files
from edgetune_runtime.operators import OWN_ATTENTION
from edgetune_runtime.setups import Form


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def attention_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in place of measured ones, in which onnxruntime's own attention takes half as long."""
    real = timing.compare

    def compare(times: Sequence[Mapping[str, Sequence[float]]], present: str) -> dict[str, timing.Comparison]:
        put = [{name: [1.0 if name == OWN_ATTENTION else 2.0] * 9 for name in one} for one in times]
        return real(put, present)

    monkeypatch.setattr("edgetune.tuning.tune.compare", compare)


def run(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done


def classified(bundle: Path) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli, ["classify", str(bundle), "--task", "colour"], input="\n".join(TEXTS))
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("attention_is_faster")
def test_the_table_says_what_was_tried_and_why(bundle_folder: Path, cache: Path) -> None:
    before = classified(bundle_folder)
    done = run("tune", bundle_folder, "--seconds", 0.01)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].split() == ["int8", "ms", "ratio", "same", "label"]
    assert lines[1] == "attention"
    assert lines[2].split()[:2] == ["as", "exported"] and "slower than the chosen one" in lines[2]
    assert lines[3].split() == ["*", OWN_ATTENTION, "fastest", "2.00", "2.00×", "100.0%"]
    assert lines[-2] == f"int8: attention as {OWN_ATTENTION}"
    assert lines[-1] == "fp32: as on any CPU: nothing else is faster here"
    assert "int8: attention …" in done.stderr.splitlines()
    with Engine(bundle_folder) as engine:
        assert engine.setups["int8"].form == Form(OWN_ATTENTION)
    assert classified(bundle_folder) == before
    record = json.loads(next((cache / "tuned").iterdir()).read_bytes())
    assert record["measured"][0]["question"] == "attention"


@pytest.mark.usefixtures("attention_is_faster")
def test_json_has_all_figures(bundle_folder: Path) -> None:
    told = json.loads(run("tune", bundle_folder, "--seconds", 0.01, "--json", "--precision", "int8").stdout)
    assert told["bundle"] == str(bundle_folder)
    assert told["threads"] >= 1 and told["cpu"] and told["versions"]["onnxruntime"]
    assert list(told["precisions"]) == ["int8"]
    found = told["precisions"]["int8"]
    assert found["setup"] == {
        "form": {"attention": OWN_ATTENTION, "fuses_normalization": False},
        "threads": [],
        "rows": 1,
    }
    assert found["busy"] is False
    assert found["tried"][1] == {
        "precision": "int8",
        "question": "attention",
        "name": OWN_ATTENTION,
        "comparison": {"ms": 2.0, "ratio": 2.0, "noise": 0.0, "spread": 0.0},
        "answers": {"agreement": 1.0, "error": found["tried"][0]["answers"]["error"], "to_the_bit": True},
        "chosen": True,
        "why": "fastest",
    }


@pytest.mark.usefixtures("attention_is_faster")
def test_forgetting_takes_it_back(bundle_folder: Path) -> None:
    run("tune", bundle_folder, "--seconds", 0.01, "--precision", "int8")
    assert "forgot what was chosen for int8" in run("tune", bundle_folder, "--forget").stderr
    with Engine(Bundle(bundle_folder)) as engine:
        assert engine.setups["int8"].form == Form()
    assert "nothing was chosen for this CPU" in run("tune", bundle_folder, "--forget").stderr
    assert json.loads(run("tune", bundle_folder, "--forget", "--json").stdout)["forgotten"] == []


def test_a_busy_machine_is_told(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(sides: Mapping[str, object], seconds: float) -> dict[str, list[float]]:
        return {name: [1.0 + (place + number) % 3 for number in range(9)] for place, name in enumerate(sides)}

    monkeypatch.setattr("edgetune.tuning.tune.tune", partial(tune, measure=uneven))
    assert "warning: the machine is busy" in run("tune", bundle_folder, "--precision", "int8").stderr


@pytest.mark.parametrize("cache", ["", "a file/cache"])
def test_nothing_is_measured_if_nothing_can_be_kept(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.CACHE_VARIABLE, cache)
    done = CliRunner().invoke(cli, ["tune", str(bundle_folder)])
    assert done.exit_code == 1
    assert "EDGETUNE_CACHE" in str(done.exception) and "…" not in done.stderr
