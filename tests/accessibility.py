"""Check a page that is open in a browser with axe-core."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from selenium import webdriver

AXE = Path(__file__).resolve().parents[1] / "web/node_modules/axe-core/axe.min.js"

needs_axe = pytest.mark.skipif(
    "CI" not in os.environ and not AXE.exists(), reason="the JavaScript packages are not installed: npm ci in web"
)

SCREENS = {
    "light": ("light", 1000),
    "dark": ("dark", 1000),
    "phone": ("light", 360),
    "phone, dark": ("dark", 360),
}
"""Name → colour scheme and width."""

_RUN = """
const done = arguments[arguments.length - 1];
const rules = { "target-size": { enabled: true } };
const isScrolledOut = ({ any }) => any.some(({ data }) => data?.messageKey === "elmPartiallyObscured");
const told = ({ id, nodes }) => nodes.filter((node) => !isScrolledOut(node))
  .map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`);
axe.run(document, { rules, resultTypes: ["violations", "incomplete"] }).then(
  ({ violations, incomplete }) => done([...violations, ...incomplete].flatMap(told)),
  (error) => done([String(error)]));
"""


def found_wrong(driver: webdriver.Chrome) -> list[str]:
    """Rule, element and reason of each violation, and of each that axe-core could not decide."""
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    return driver.execute_async_script(_RUN)
