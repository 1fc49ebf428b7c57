"""The log format of `serve`: text lines with their time, or one JSON object per line.

Theory of operation. A line that is written at once costs a system call, which is more than the line
itself. `BatchHandler` collects the lines of usage records, of which each call has one, and writes
them together some milliseconds later. Every other line is written at once, with all lines before
it: so lines are in order, and a server that says that it ends has written what its calls logged.
(It ends by the signal that it got, so nothing runs after that.) A process that is killed loses
usage lines of the last milliseconds. Without a running event loop each line is written at once.

The line of a usage record is made without a `logging.LogRecord`, if `BatchHandler` is the only
handler that would see that (`emit_usage`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from functools import lru_cache
from typing import Any, Literal, TextIO

import msgspec

from asgi_aiproxy.usage.record import UsageRecord

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_MAX_LINES = 200
_BATCH_SECONDS = 0.02

_encode = msgspec.json.Encoder().encode


class _UsageLine(msgspec.Struct, gc=False):
    time: str
    level: str
    logger: str
    message: str
    usage: UsageRecord


class JSONFormatter(logging.Formatter):
    """Formats one JSON object per line.

    Its members are `time`, `level`, `logger` and `message`, for usage records all of their fields
    as `usage` (`message` is then short), and the traceback of an exception as `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line break, in ASCII."""
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
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
        return _ascii_line(line)

    def format_usage(self, record: UsageRecord, logger: str) -> str:
        """Return the line for a usage record that was logged just now."""
        summary = f"{record.outcome} {record.operation}"
        return _ascii_line(_UsageLine(_timestamp(time.time()), "info", logger, summary, record))


def _ascii_line(line: Any) -> str:
    try:
        encoded = _encode(line)
    except UnicodeError:  # callers and vendors may have written anything
        return json.dumps(msgspec.to_builtins(line), separators=(",", ":"))
    if encoded.isascii():
        return encoded.decode("ascii")
    return _NON_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], encoded.decode())


def _timestamp(created: float) -> str:
    milliseconds = int(created * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """A Unix time in ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class BatchHandler(logging.StreamHandler[TextIO]):
    """A handler that writes lines to a stream in batches (see the top of this module).

    `stream` is standard error by default. `format` is that of `serve`: `"text"` or `"json"`; any
    other formatter may be set.
    """

    def __init__(self, stream: TextIO | None = None, *, format: LogFormat = "text") -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._due: asyncio.AbstractEventLoop | None = None  # that will write them
        self.setFormatter(JSONFormatter() if format == "json" else logging.Formatter(_TEXT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, some milliseconds later if it is that of a usage record."""
        try:
            self._add(self.format(record), at_once=not hasattr(record, "usage"))
        except Exception:
            self.handleError(record)

    def emit_usage(self, record: UsageRecord, logger: str) -> bool:
        """Write the line of a usage record; False if the format requires a `LogRecord`."""
        formatter = self.formatter
        if not isinstance(formatter, JSONFormatter) or self.level > logging.INFO or self.filters:
            return False
        line = formatter.format_usage(record, logger)
        self.acquire()
        try:
            self._add(line, at_once=False)
        finally:
            self.release()
        return True

    def _add(self, line: str, *, at_once: bool) -> None:
        self._lines.append(line)
        if at_once or len(self._lines) >= _MAX_LINES:
            self.flush()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._due is not loop:
            self._due = loop
            loop.call_later(_BATCH_SECONDS, self._write_due)

    def _write_due(self) -> None:
        self._due = None
        try:
            self.flush()
        except Exception:  # as the logging module does with one line
            name = f"{__name__}.BatchHandler"
            self.handleError(logging.makeLogRecord({"name": name, "msg": "lines of the log"}))

    def flush(self) -> None:
        """Write the lines that were collected."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                text = self.terminator.join([*lines, ""])
                try:
                    self.stream.write(text)
                except UnicodeEncodeError:  # because of one line, of which the others are not lost
                    encoding = self.stream.encoding
                    self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            super().flush()
        finally:
            self.release()

    def close(self) -> None:
        """Write the lines that were collected, and close the handler, not its stream."""
        try:
            self.flush()
        finally:
            super().close()


def configure(*, format: LogFormat = "text", level: LogLevel = "info") -> None:
    """Let the root logger write to standard error in this format.

    Only for `serve`: within a host application the host configures logging.
    """
    handlers = [BatchHandler(format=format)]
    logging.basicConfig(handlers=handlers, level=logging.WARNING, force=True)
    for name in ("asgi_aiproxy", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
