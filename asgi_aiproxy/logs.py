"""The log format of `serve`: text lines with their time, or one JSON object per line."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from time import gmtime, strftime
from typing import Any, Literal

import msgspec

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JSONFormatter(logging.Formatter):
    """Formats one JSON object per line.

    Its members are `time`, `level`, `logger` and `message`, for usage records all of their fields
    as `usage` (`message` is then short), and the traceback of an exception as `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line break, in ASCII."""
        milliseconds = int(record.created * 1000)
        line: dict[str, Any] = {
            "time": f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        usage = getattr(record, "usage", None)
        if isinstance(usage, msgspec.Struct):
            line["message"] = getattr(record.msg, "summary", None) or record.getMessage()
            line["usage"] = usage
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line).decode("ascii")
        except UnicodeError:  # callers and vendors may have written anything
            return json.dumps(msgspec.to_builtins(line), separators=(",", ":"))


@lru_cache(maxsize=4)
def _second(time: int) -> str:
    """A Unix time in ISO 8601, to the second."""
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(time))


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
