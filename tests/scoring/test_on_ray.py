"""The cases on Ray, in a separate process, so that its threads do not affect other tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

CASES = Path(__file__).with_name("on_ray_cases.py")


def test_scoring_on_ray(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", CASES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert report.exists(), done.stdout + done.stderr
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    found = {kind: int(suite.attrib[kind]) for kind in ("tests", "failures", "errors", "skipped")}
    expected = CASES.read_text(encoding="utf-8").count("\ndef test_")
    assert found == {"tests": expected, "failures": 0, "errors": 0, "skipped": 0}, done.stdout
