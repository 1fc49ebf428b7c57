"""`JudgeGuard`: an async function decides about requests and whole responses.

For judges that need a whole text and some time: a moderation endpoint, another model, a webhook.
In mode `hold` the response is released when the judge has accepted it; in mode `audit` it is
released at once, and the judge sees it in the background.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.hooks.base import Call, Hook, OnFailure
from asgi_aiproxy.hooks.json_text import texts_of
from asgi_aiproxy.messages import (
    Event,
    EventFilter,
    MessageEnd,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    fold,
)

logger = logging.getLogger("asgi_aiproxy")

# Takes a text and the call; returns why it is blocked, or None.
Judge = Callable[[str, Call], Awaitable[str | None]]


class JudgeGuard(Hook):
    """Has a function judge the texts of requests and responses.

    Arguments:

    - `judge`: takes a text and the call; returns the reason to block it, for the client, or None.
    - `mode`: `"hold"` or `"audit"`, for responses.
    - `request`, `response`: whether requests and responses are judged. Of a request the last
      message of the user is judged; of a response its text and its tool calls.
    - `seconds`, `on_failure`: as in `Hook`.

    Raises ConfigurationError for an invalid argument.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        mode: Literal["hold", "audit"] = "hold",
        request: bool = True,
        response: bool = True,
        seconds: float = 5.0,
        on_failure: OnFailure = "closed",
    ) -> None:
        if not asyncio.iscoroutinefunction(judge):
            raise ConfigurationError("JudgeGuard: judge must be an async function.")
        if mode not in ("hold", "audit"):
            raise ConfigurationError("JudgeGuard: mode is 'hold' or 'audit'.")
        self._judge = judge
        self._mode = mode
        self._request = request
        self._response = response
        self.seconds = seconds
        self.on_failure = on_failure

    def __repr__(self) -> str:
        return f"JudgeGuard({getattr(self._judge, '__qualname__', self._judge)})"

    async def before(self, call: Call) -> None:
        """Have the last message of the user judged, or all texts of a request that is not for chat.

        Raises APIError if it is blocked.
        """
        text = self._request_text(call) if self._request else ""
        reason = await self._judge(text, call) if text else None
        if reason is not None:
            raise _blocked(reason)

    def _request_text(self, call: Call) -> str:
        request = call.request
        if request is None:
            members: Any = dict(call.form_fields)
            with suppress(ValueError, RecursionError):
                members = members or json.loads(call.body)
            if isinstance(members, dict):
                members = [value for name, value in members.items() if name != "model"]
            return "\n".join(_strings(members))
        turns = [message for message in request.messages if message.role == "user"]
        parts = turns[-1].parts if turns else ()
        return "\n".join(part.text for part in parts if isinstance(part, Text))

    def filters(self, call: Call) -> Sequence[EventFilter]:
        """Make the filter of one response."""
        return [_JudgedResponse(self, call)] if self._response else []

    async def judge_response(self, response: Response, call: Call) -> None:
        """Have a response judged. Raises APIError if it is blocked, or cannot be judged."""
        judged = (Text, Reasoning, Refusal)
        pieces = [block.text for block in response.blocks if isinstance(block, judged)]
        for block in response.blocks:
            if isinstance(block, ToolCall):
                pieces += [block.name, *texts_of(block.arguments)]
        text = "\n".join(filter(None, pieces))
        if not text:
            return
        try:
            async with asyncio.timeout(self.seconds):
                reason = await self._judge(text, call)
        except APIError:
            raise
        except Exception as error:
            logger.exception("request %s: %r failed", call.request_id, self)
            if self.on_failure == "open":
                return
            raise APIError(
                ErrorKind.OVERLOADED,
                "The response could not be checked. Try again later.",
                code="hook_failed",
            ) from error
        if reason is not None:
            raise _blocked(reason)

    @property
    def audits(self) -> bool:
        """Whether responses are judged after they were released."""
        return self._mode == "audit"


class _JudgedResponse:
    """Holds the events of a response until it is complete, and has it judged."""

    limited = True  # by `judge_response`

    def __init__(self, guard: JudgeGuard, call: Call) -> None:
        self._guard = guard
        self._call = call
        self._events: list[Event] = []

    async def feed(self, event: Event) -> Sequence[Event]:
        self._events.append(event)
        if not isinstance(event, MessageEnd):
            return (event,) if self._guard.audits else ()
        response = fold(self._events)
        if self._guard.audits:
            start(self._audit(response), what="judging a response")
            return (event,)
        await self._guard.judge_response(response, self._call)
        return self._events

    async def close(self) -> Sequence[Event]:
        return ()

    async def _audit(self, response: Response) -> None:
        try:
            await self._guard.judge_response(response, self._call)
        except APIError as error:
            logger.warning("request %s: %s", self._call.request_id, error.message)


def _strings(value: Any) -> Iterator[str]:
    """The strings of a JSON value, in order, without the names of members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value if isinstance(value, list) else value.values():
            yield from _strings(each)


def _blocked(reason: str) -> APIError:
    return APIError(ErrorKind.FORBIDDEN, reason, code="content_blocked")
