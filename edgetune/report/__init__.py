"""A report for people: one HTML page without scripts, and the rows behind it.

evaluation → material → sections (one module per family of pictures) → page
"""

from __future__ import annotations

from edgetune.report.page import write_report

__all__ = ["write_report"]
