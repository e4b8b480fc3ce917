"""Sphinx configuration of the documentation: `make docs` builds it into site/html, and fails on broken links.

The source folder is the repository, so that links between pages, and to the README, work as in the repository.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "export"), str(ROOT / "runtime")]

project = "edgetune"
author = "the edgetune authors"
version = release = installed("edgetune")
smartquotes = False  # they would turn the two dashes of an option into one
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/**.md",
    "docs/tour.ipynb",
    "benchmarks/results/*.md",
    "tests/conformance/README.md",
    "examples/cpp/README.md",
]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

nb_execution_mode = "off"  # `make tour` runs the notebook and stores its output
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_custom_sections = ["Shape"]


def _examples_as_code(app: object, context: object, lines: list[str]) -> None:
    """Show the unwrapped lines of a command's help, which are its examples, as code."""
    found: list[str] = []
    for line in lines:
        is_code = line.startswith("| ")
        if is_code and not (found and found[-1].startswith("   ")):
            found += ["", ".. code-block:: shell", ""]
        found.append(f"   {line[2:]}" if is_code else line)
    lines[:] = found


def setup(app: Any) -> None:
    """Connect the functions that change pages while they are read."""
    app.connect("sphinx-click-process-description", _examples_as_code)


html_theme = "furo"
html_title = f"edgetune {version}"
html_show_sphinx = False
