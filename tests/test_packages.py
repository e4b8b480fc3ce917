"""The contents of the wheel."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"edgetune": ROOT, "edgetune_export": ROOT / "export", "edgetune_runtime": ROOT / "runtime"}
"""Package → its folder."""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the wheel's files."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_type_hints_are_for_users_too(shipped: set[str], package: str) -> None:
    assert f"{package}/py.typed" in shipped  # PEP 561: otherwise type checkers treat the package as untyped


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_the_wheel(shipped: set[str], package: str) -> None:
    modules = {path.relative_to(PACKAGES[package]).as_posix() for path in (PACKAGES[package] / package).rglob("*.py")}
    assert modules
    assert modules <= shipped


def test_no_other_package_is_in_the_wheel(shipped: set[str]) -> None:
    tops = {name.partition("/")[0] for name in shipped}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_what_a_site_is_made_of_is_in_the_wheel(shipped: set[str]) -> None:
    files = {
        path.relative_to(ROOT / "web").as_posix()
        for part in ("src", "site")
        for path in (ROOT / "web" / part).rglob("*.js")
    }
    assert len(files) > 20
    assert {f"edgetune/site/web/{file}" for file in files} <= shipped
    assert {path.name for path in (ROOT / "edgetune/server/page").iterdir()} <= {
        name.rpartition("/")[2] for name in shipped
    }
    assert not [name for name in shipped if "node_modules" in name]
