"""Keys from elsewhere: a file that is watched, the output of a command, a secret manager.

Theory of operation. A `KeySource` is a function that returns an async iterator of lists of keys,
usually an async generator function. `KeyPool.follow` has the pool replace its keys by each list, as
`KeyPool.replace` does: keys that stay keep their health, requests in flight keep the key that they
have. A source that raises is started again after a pause, and the pool keeps its keys; so it does
when a list is empty or has an invalid key. Each failure is logged once, without secrets.

The text of keys, in a file and in the output of a command, is a JSON array, or lines: each a
secret, an id and a secret, or a JSON object with the fields of `Key`. Empty lines and those that
begin with `#` are ignored.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import msgspec

from asgi_aiproxy._background_tasks import FailureLog, start
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.key import Key

logger = logging.getLogger("asgi_aiproxy")

KeySource = Callable[[], AsyncIterator[Sequence[str | Key]]]

_FIELDS = frozenset(field.name for field in fields(Key))
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds before a source that raised is started again
_MAX_BYTES = 16 * 1024 * 1024


def watch_file(path: str | Path, *, interval: float = 1.0) -> KeySource:
    """Return a source of the keys in the file `path`, which is read again when it has changed.

    `interval` is the number of seconds between two looks at it. Replace the file in one step
    (write another one, then rename it); one that is read while it is written may be invalid, and
    is then read again.
    """
    _check_positive("watch_file", interval=interval)

    async def source() -> AsyncIterator[Sequence[str | Key]]:
        seen: tuple[int, ...] = ()
        while True:
            found, text = await asyncio.to_thread(_read_if_changed, path, seen)
            if text is not None:
                yield parse_keys(text, str(path))
            seen = found
            await asyncio.sleep(interval)

    return source


def run_command(
    command: Sequence[str], *, interval: float = 300.0, timeout: float = 30.0
) -> KeySource:
    """Return a source of the keys that a command prints, which is run every `interval` seconds.

    `command` is the program and its arguments; no shell is involved. It is ended after `timeout`
    seconds. A command that fails leaves the keys as they are.
    """
    _check_positive("run_command", interval=interval, timeout=timeout)
    if isinstance(command, str) or not command:
        raise ConfigurationError("run_command: give a list, the program and its arguments.")

    async def source() -> AsyncIterator[Sequence[str | Key]]:
        while True:
            yield parse_keys(await _output(command, timeout), f"the output of {command[0]}")
            await asyncio.sleep(interval)

    return source


def _check_positive(what: str, **seconds: float) -> None:
    for name, value in seconds.items():
        if not value > 0:
            raise ConfigurationError(f"{what}: {name} must be > 0 seconds, got {value!r}.")


def _read_if_changed(
    path: str | Path, seen: tuple[int, ...]
) -> tuple[tuple[int, ...], bytes | None]:
    """What identifies the state of a file, and its content if that is not `seen`."""
    try:
        stat = os.stat(path)
        found = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if found == seen:
            return found, None
        return found, Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from None


async def _output(command: Sequence[str], timeout: float) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # it may quote secrets
        )
    except OSError as error:
        raise ConfigurationError(f"{command[0]}: cannot be run: {error.strerror}.") from None
    try:
        async with asyncio.timeout(timeout):
            out, _ = await process.communicate()
    except TimeoutError:
        raise ConfigurationError(f"{command[0]}: took longer than {timeout:g} s.") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise ConfigurationError(f"{command[0]}: ended with exit status {process.returncode}.")
    return out


def parse_keys(text: bytes, where: str) -> list[Key]:
    """Parse the text of keys, see the top of this module; `where` begins error messages.

    Raises ConfigurationError, without secrets.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigurationError(f"{where}: is longer than {_MAX_BYTES} bytes.")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where}: is not UTF-8 text.") from None
    if decoded.lstrip().startswith("["):
        found = _parse_json(decoded, where)
        return [_key(item, f"{where}[{at}]") for at, item in enumerate(found)]
    keys = []
    for number, raw in enumerate(decoded.splitlines(), 1):
        line = raw.strip()
        if line.startswith("{"):
            keys.append(_key(_parse_json(line, f"{where}:{number}"), f"{where}:{number}"))
        elif line and not line.startswith("#"):
            words = line.split()
            if len(words) > 2:
                raise ConfigurationError(
                    f"{where}:{number}: must be a secret, or an id and a secret."
                )
            keys.append(Key(words[-1], id=words[0] if len(words) == 2 else ""))
    return keys


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{where}: is not valid JSON.") from None


def _key(value: Any, where: str) -> Key:
    if isinstance(value, str):
        return Key(value)
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be a secret, or an object with a secret.")
    unknown = sorted(value.keys() - _FIELDS)
    if unknown:
        known = ", ".join(sorted(_FIELDS))
        raise ConfigurationError(f"{where}: unknown field {unknown[0]!r}. There are: {known}.")
    try:
        return msgspec.convert(value, Key)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}.") from None


class KeyFollower:
    """Has a pool follow a source; see `KeyPool.follow`.

    `replace` replaces the keys of the pool named `pool`; `start_timeout` is the number of seconds
    that `start` waits for the first list.
    """

    def __init__(
        self,
        source: KeySource,
        replace: Callable[[Iterable[str | Key]], Awaitable[None]],
        pool: str,
        start_timeout: float,
    ) -> None:
        self._source = source
        self._replace = replace
        self._pool = pool
        self._start_timeout = start_timeout
        self._arrived = asyncio.Event()
        self._last: list[str | Key] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Follow the source in the background, once its first list is there or time is up."""
        what = f"keys of pool {self._pool!r}"
        self._task = start(self._follow(FailureLog(what)), what=what)
        try:
            async with asyncio.timeout(self._start_timeout):
                await self._arrived.wait()
        except TimeoutError:
            logger.warning(
                "%s: none have arrived within %g s; it starts without them",
                *(what, self._start_timeout),
            )

    async def stop(self) -> None:
        """Stop following it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _follow(self, log: FailureLog) -> None:
        """Follow the source until it ends, from the beginning again when it raises."""
        while True:
            try:
                lists = self._source()
                async with aclosing(cast("Any", lists)):
                    async for keys in lists:
                        await self._take(list(keys))
                        log.log_recovery()
            except Exception as error:
                log.log_failure(error, unexpected=not isinstance(error, ConfigurationError))
                await asyncio.sleep(min(_FIRST_PAUSE * 2.0 ** min(log.failures, 10), _LAST_PAUSE))
            else:
                return

    async def _take(self, keys: list[str | Key]) -> None:
        if not keys:
            raise ConfigurationError("the list is empty, so the pool keeps its keys.")
        if keys != self._last:
            await self._replace(keys)
            self._last = keys
            logger.info("pool %r: %d keys from its source", self._pool, len(keys))
        self._arrived.set()
