"""The log format of `serve`: text lines with their time, or one JSON object per line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JSONFormatter(logging.Formatter):
    """Formats one JSON object per line.

    Its members are `time`, `level`, `logger` and `message`, for usage records all of their fields
    as `usage`, and the traceback of an exception as `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line break."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        usage = getattr(record, "usage", None)
        if isinstance(usage, msgspec.Struct):
            line["usage"] = msgspec.to_builtins(usage)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII: callers and vendors may have written anything


def configure(*, format: LogFormat = "text", level: LogLevel = "info") -> None:
    """Let the root logger write to standard error in this format.

    Only for `serve`: within a host application the host configures logging.
    """
    handler = logging.StreamHandler()
    plain = logging.Formatter(_TEXT)
    handler.setFormatter(JSONFormatter() if format == "json" else plain)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("asgi_aiproxy", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
