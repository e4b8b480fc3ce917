"""The log: JSON lines on stderr that never block. Dropped lines are counted in a metric."""

from __future__ import annotations

import json
import logging

from edgetune.stderr import PatientStream, never_wait


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        told = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name, **told}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(requests: bool) -> PatientStream:
    """Log as JSON lines on stderr, and make sure that writing to stderr never blocks.

    Args:
        requests: whether to log every request; server errors and skipped tasks are always logged.
    """
    stream = never_wait(_dropped_line)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name, level in (("edgetune", logging.INFO), ("uvicorn", logging.ERROR), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("edgetune.access").setLevel(logging.INFO if requests else logging.ERROR)
    return stream


def _dropped_line(lines: int) -> str:
    told = {"event": "log_lines_dropped", "lines": lines}
    record = logging.LogRecord("edgetune.log", logging.WARNING, "", 0, told, None, None)
    return JsonLines().format(record)
