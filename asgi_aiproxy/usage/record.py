"""`UsageRecord`: one per exchange, however it ended, and the `Recorder` that hands it to a sink."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from operator import attrgetter

import msgspec

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.applied import AppliedPrice, compact

logger = logging.getLogger("asgi_aiproxy")
usage_logger = logging.getLogger("asgi_aiproxy.usage")


class Outcome(StrEnum):
    """How an exchange ended."""

    DONE = "done"
    CLIENT_DISCONNECTED = "cut"  # the client left
    FAILED = "failed"  # no target answered, or the answer broke
    REFUSED = "refused"  # the request itself was at fault, or not allowed


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request to an upstream, sent `started` seconds after the exchange began: `seconds` are
    until its first content, or until it failed.

    `status` is the upstream's, 0 if it gave none; `code` is the upstream's error code, and
    `error` the message. Both are empty for the attempt that was the answer.
    """

    provider: str
    model: str = ""
    key_id: str = ""
    status: int = 0
    code: str = ""
    error: str = ""
    seconds: float = 0.0
    started: float = 0.0


# No exchange has that many tokens.
_MAX_TOKENS = 10**9


def plausible_usage(usage: Usage | None) -> Usage | None:
    """The reported usage; None if its counts are impossible."""
    if usage is None or not 0 <= usage.input + usage.output < _MAX_TOKENS:
        return None
    return usage if usage.input >= 0 and usage.output >= 0 else None


def clamp_parts(usage: Usage) -> Usage:
    """The same usage, with each part between 0 and the whole that it is a part of."""
    whole = {"input": usage.input, "output": usage.output}
    changed = {}
    for name, side in _PARTS:
        part = getattr(usage, name)
        if not 0 <= part <= whole[side]:
            changed[name] = min(max(part, 0), whole[side])
    return msgspec.structs.replace(usage, **changed) if changed else usage


_PARTS = (
    ("cache_write", "input"),
    ("cache_read", "input"),
    ("reasoning", "output"),
    ("cache_write_1h", "input"),
    *((f"{kind}_{side}", side) for kind in ("audio", "image") for side in ("input", "output")),
)


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One exchange. Times are in seconds, `started` is Unix time.

    `provider`, `model` and `key_id` are those of the last attempt, `upstream_model` is the model it
    was asked for; `first_byte` is None if nothing was sent; `usage` holds what is known, None if
    the provider reported none. `attempts` counts the requests to upstreams; `attempt_details` are
    these,
    one by one, unless the first one was the answer. `request_id` is what answers, errors and logs
    call the exchange: the caller's `x-request-id`, if there was one, else the same as `id`. `cost`
    is in micro-dollars, `units` in quota units, None if there is no price. `estimated`: part of the
    usage was not reported but estimated. `not_charged`: the caller is not charged. `emulated`:
    features that the gateway emulated for the model, and what that made necessary
    (`asgi_aiproxy.emulation`).

    `session` and `tags` are what the exchange is attributed to (see
    `asgi_aiproxy.exchange.attribution`). `first_content` is the time until the first content was
    received, None if none was; `longest_pause` is the longest time without data after that, as far
    as the polling interval of requests (0.015 s or more) shows. `ignored` are the members of the
    request that the provider was not sent, as in the header `aiproxy-ignored`. `price` is what
    `cost` was computed by.
    """

    id: str
    principal: str = ""
    face: str = ""
    operation: str = ""
    provider: str = ""
    requested_model: str = ""
    upstream_model: str = ""
    model: str = ""
    key_id: str = ""
    usage: Usage | None = None
    outcome: Outcome = Outcome.DONE
    status: int = 0
    error: str = ""
    attempts: int = 0
    attempt_details: tuple[Attempt, ...] = ()
    request_id: str = ""
    started: float = 0.0
    first_byte: float | None = None
    duration: float = 0.0
    account: str = ""
    group: str = ""
    cost: int | None = None
    units: int | None = None
    estimated: bool = False
    not_charged: bool = False
    emulated: tuple[str, ...] = ()
    session: str = ""
    tags: dict[str, str] = {}
    first_content: float | None = None
    longest_pause: float = 0.0
    ignored: tuple[str, ...] = ()
    price: AppliedPrice | None = None


# If a sink has a method `drain`, it is called when the app that feeds the sink closes.
UsageSink = Callable[[UsageRecord], Awaitable[None]]


async def discard(record: UsageRecord) -> None:
    """A sink that keeps nothing."""


async def log_usage(record: UsageRecord) -> None:
    """A sink that writes one line to the log `asgi_aiproxy.usage`.

    The record is the attribute `usage` of the `logging.LogRecord`.
    """
    if not usage_logger.isEnabledFor(logging.INFO):
        return
    # (`info` would look for its caller in the stack, which costs as much as all the rest.)
    origin = __file__, 0, UsageMessage(record), (), None, log_usage.__name__
    extra = {"usage": record}
    usage_logger.handle(
        usage_logger.makeRecord(usage_logger.name, logging.INFO, *origin, extra=extra)
    )


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
            f"status={record.status} attempts={record.attempts} "
            f"request={record.request_id or record.id} {record.duration:.3f}s"
            f"{_label_words(record) if record.session or record.tags else ''}"
            f"{f' error={_line(record.error)}' if record.error else ''}"
        )


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


def _storable(record: UsageRecord) -> UsageRecord:
    """The same record with its texts as Unicode: callers and providers may write lone surrogates
    into a model's name, which no file, database or JSON library takes."""
    if record.price is not None:
        price = compact(record.price, record.usage)
        record = msgspec.structs.replace(record, price=price)
    if record.attempt_details:
        record = msgspec.structs.replace(
            record, attempt_details=tuple(map(_storable_attempt, record.attempt_details))
        )
    texts = _texts(record)
    if "".join(texts).isascii():
        return record
    encoded = (text.encode("utf-8", "replace").decode() for text in texts)
    plain = dict(zip(_TEXTS, encoded, strict=True))
    return msgspec.structs.replace(record, **plain)


def _storable_attempt(attempt: Attempt) -> Attempt:
    texts = (attempt.model, attempt.key_id, attempt.code, attempt.error)
    model, key_id, code, error = (t.encode("utf-8", "replace").decode() for t in texts)
    changes = {"model": model, "key_id": key_id, "code": code, "error": error}
    return msgspec.structs.replace(attempt, **changes)


_TEXTS = ("model", "requested_model", "upstream_model", "error", "principal", "key_id", "account")
_texts = attrgetter(*_TEXTS)


def tee(*sinks: UsageSink) -> UsageSink:
    """A sink that passes records to all of `sinks`. One that fails or hangs does not keep them from
    the others."""

    return _Tee(sinks)


class _Tee:
    def __init__(self, sinks: tuple[UsageSink, ...]) -> None:
        self._recorders = [Recorder(sink) for sink in sinks]

    async def __call__(self, record: UsageRecord) -> None:
        for recorder in self._recorders:
            recorder.put(record)

    async def drain(self, timeout: float = 5.0) -> None:
        await asyncio.gather(*(recorder.drain(timeout) for recorder in self._recorders))


def _check_sink(sink: object) -> None:
    """Raise ConfigurationError unless `sink` can be awaited with a record."""
    plain = inspect.isfunction(sink) and not inspect.iscoroutinefunction(sink)
    if callable(sink) and not plain:
        return
    what = "a plain function" if plain else repr(sink)
    raise ConfigurationError(
        f"A usage sink must be an async function that takes a UsageRecord, not {what}. "
        "Leave record= out to keep no records."
    )


_GATHER_SECONDS = 0.01


class Recorder:
    """Hand records to a sink in the background: no request waits for it.

    Records are handed over a few at a time, some milliseconds later, by a task that lives only as
    long as there are any. At most `max_waiting` records wait; then the oldest are lost. A sink that
    raises, or takes more than about `sink_timeout` seconds for a record, loses that record. Every
    loss is logged, and counted in `lost`.
    """

    def __init__(
        self, sink: UsageSink, *, max_waiting: int = 50_000, sink_timeout: float = 30.0
    ) -> None:
        _check_sink(sink)
        self._sink = sink
        self.records = sink is not discard  # whether anything is done with the records
        self._max_waiting = max_waiting
        self._sink_timeout = sink_timeout
        self._waiting: deque[UsageRecord] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._overflow = 0  # records lost since the queue became full
        self._handed = 0  # counts records given to the sink
        self._checked = 0  # what that was when the watchdog looked last
        self._expired = False
        self.lost = 0

    def put(self, record: UsageRecord, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Queue a record. `loop` is the running event loop, if the caller has it at hand."""
        if not self.records:
            return
        if len(self._waiting) >= self._max_waiting:
            self._drop_oldest()
        self._waiting.append(record)
        loop = loop if loop is not None else asyncio.get_running_loop()
        if self._loop is not loop:
            self._forget(loop)
        if self._timer is None and self._task is None:
            self._timer = loop.call_later(_GATHER_SECONDS, self._start)

    async def drain(self, timeout: float = 5.0) -> None:
        """Wait until all records are handed over and the sink has finished, for at most about
        `timeout` seconds. What is left then is lost, and the log says how much."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._forget(loop)
        end = loop.time() + timeout
        while self._waiting or self._task is not None:
            self._start()
            if self._task is None:
                break
            task = self._task
            await asyncio.wait((task,), timeout=max(end - loop.time(), 0.0))
            if not task.done():
                self._give_up(task, timeout)
                break
        await _finish(self._sink, max(end - loop.time(), _MIN_FINISH_SECONDS))

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop tasks and timers of another event loop: they do not run any more."""
        self._loop = loop
        self._task = self._timer = self._watchdog = None

    def _give_up(self, task: asyncio.Task[None], timeout: float) -> None:
        self._task = None
        task.cancel()
        self._stop_watching()
        count = len(self._waiting) + 1  # and the one that the sink has
        self._waiting.clear()
        self.lost += count
        logger.error(
            "%d usage records are lost: the usage sink %r did not take them within %g s at "
            "shutdown",
            *(count, self._sink, timeout),
        )

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self.lost += 1
        self._overflow += 1
        if self._overflow == 1:
            logger.error(
                "%d usage records wait for the usage sink %r, which does not take them: the "
                "oldest are lost from now on",
                *(self._max_waiting, self._sink),
            )

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and self._waiting:
            self._task = start(self._work(), what="handing usage records over")
            self._watch(self._task)

    async def _work(self) -> None:
        me = asyncio.current_task()
        try:
            while self._waiting:
                record = self._waiting.popleft()
                self._handed += 1
                try:
                    result = self._sink(_storable(record))
                    if hasattr(result, "__await__"):  # a callable object may be synchronous
                        await result
                except Exception:
                    self.lost += 1
                    logger.exception("a usage sink failed; its record is lost: %r", record)
                except asyncio.CancelledError:
                    if not self._expired or me is None or me.uncancel() > 0:
                        raise
                    self._expired = False
                    self.lost += 1
                    logger.error(
                        "the usage sink %r took more than %g s; its record is lost: %r",
                        *(self._sink, self._sink_timeout, record),
                    )
            if self._overflow:
                logger.error("%d usage records were lost in all", self._overflow)
                self._overflow = 0
        finally:
            if self._task is me:
                self._task = None
                self._stop_watching()

    def _watch(self, task: asyncio.Task[None]) -> None:
        """Check regularly whether the sink is still busy with the same record as last time."""
        self._stop_watching()
        self._checked = self._handed + 1  # the first one is just being handed over
        loop = task.get_loop()

        def look() -> None:
            self._watchdog = loop.call_later(self._sink_timeout, look)
            if self._checked == self._handed and not task.done():
                self._expired = True
                task.cancel()
            self._checked = self._handed

        self._watchdog = loop.call_later(self._sink_timeout, look)

    def _stop_watching(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None


_MIN_FINISH_SECONDS = 0.5  # for a sink to finish, even after the timeout


async def _finish(sink: UsageSink, timeout: float) -> None:
    """Call `drain` of a sink that has it; one that fails or hangs is logged and abandoned."""
    drain = getattr(sink, "drain", None)
    if drain is None:
        return
    if isinstance(sink, _Tee):  # whose recorders have the same limit
        await sink.drain(timeout)
        return
    work = drain()
    if not hasattr(work, "__await__"):
        return
    task = asyncio.ensure_future(work)
    await asyncio.wait((task,), timeout=timeout)
    if not task.done():
        task.cancel()
        logger.error("the usage sink %r did not finish within %g s", sink, timeout)
    elif not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the usage sink %r failed in drain()", sink, exc_info=error)
