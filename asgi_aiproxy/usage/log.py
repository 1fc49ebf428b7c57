"""`log_usage`: a line of the log for each exchange."""

from __future__ import annotations

import logging

import msgspec

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.applied import AppliedPrice, ratio_text
from asgi_aiproxy.usage.record import UsageRecord

usage_logger = logging.getLogger("asgi_aiproxy.usage")


async def log_usage(record: UsageRecord) -> None:
    """A sink that writes one line to the log `asgi_aiproxy.usage`.

    The record is the attribute `usage` of the `logging.LogRecord`.
    """
    if not usage_logger.isEnabledFor(logging.INFO):
        return
    emit_usage = getattr(_only_handler(), "emit_usage", None)
    if emit_usage is not None and emit_usage(record, usage_logger.name):
        return
    # (`info` would look for its caller in the stack, which costs as much as all the rest.)
    origin = __file__, 0, UsageMessage(record), (), None, log_usage.__name__
    extra = {"usage": record}
    usage_logger.handle(
        usage_logger.makeRecord(usage_logger.name, logging.INFO, *origin, extra=extra)
    )


def _only_handler() -> logging.Handler | None:
    """The handler of usage lines, if there is only one, and no filter."""
    found: logging.Handler | None = None
    logger: logging.Logger | None = usage_logger
    if usage_logger.filters or usage_logger.disabled:
        return None
    while logger is not None:
        for handler in logger.handlers:
            if found is not None:
                return None
            found = handler
        logger = logger.parent if logger.propagate else None
    return found


class UsageMessage(msgspec.Struct, frozen=True):
    """The message of a log line for a usage record; the text is written when it is needed.

    `summary` is for formats that have the fields of the record beside it.
    """

    record: UsageRecord

    @property
    def summary(self) -> str:
        """How the exchange ended, and its operation."""
        return f"{self.record.outcome.value} {self.record.operation}"

    def __str__(self) -> str:
        record = self.record
        used = record.usage or Usage()
        return (
            f"{self.summary} principal={_word(record.principal) or '-'} "
            f"model={_word(record.model or record.requested_model)} "
            f"provider={record.provider or '-'} key={record.key_id or '-'} "
            f"input={used.input} output={used.output} "
            f"cost={'-' if record.cost is None else f'${record.cost / 1_000_000:.6f}'} "
            f"{_price_words(record.price) if record.price is not None else ''}"
            f"status={record.status} attempts={record.attempts} "
            f"request={record.request_id or record.id} {record.duration:.3f}s"
            f"{_label_words(record) if record.session or record.tags else ''}"
            f"{f' error={_line(record.error)}' if record.error else ''}"
        )


def _price_words(price: AppliedPrice) -> str:
    """What the cost was computed by, as words of a log line."""
    ratio = ratio_text(price)
    return f"price={_word(f'{price.model}@{price.source}')} {f'ratio={ratio} ' if ratio else ''}"


def _label_words(record: UsageRecord) -> str:
    """The session and the tags as words of a log line."""
    words = {"session": record.session} if record.session else {}
    words |= {f"tag.{name}": value for name, value in record.tags.items()}
    return "".join(f" {_word(name)}={_word(value)}" for name, value in words.items())


def _word(text: str) -> str:
    """Text from callers as one word of a log line, so that it cannot pose as other fields."""
    plain = text.isprintable() and len(text) <= _MAX_LOGGED_CHARACTERS and " " not in text
    return text if plain else ascii(text[:_MAX_LOGGED_CHARACTERS])


def _line(text: str) -> str:
    """A message in quotes, shortened."""
    return ascii(text[: _MAX_LOGGED_CHARACTERS // 2])


_MAX_LOGGED_CHARACTERS = 200
