"""The mock provider: an ASGI app that serves every dialect and follows a script."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from anyio import to_thread

from asgi_aiproxy._asgi import (
    Receive,
    Scope,
    Send,
    read_body,
    refuse_websocket,
    serve_lifespan,
)
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.faults import Fault
from asgi_aiproxy.testing.received import ReceivedRequest, parse_received
from asgi_aiproxy.testing.reply import Reply, send_reply
from asgi_aiproxy.testing.simulator import VendorSimulator
from asgi_aiproxy.testing.simulators import SIMULATORS
from asgi_aiproxy.testing.stored_responses import StoredResponses

Step = Answer | Fault | Callable[[ReceivedRequest], Answer | Fault]

_LIMIT = 1 << 30


class MockProvider:
    """Answers like OpenAI, Anthropic, Google, Ollama, Cohere or Bedrock, depending on the path.

    `answer` is the default answer. With `key`, requests without that secret are refused. `models`
    are the models it lists; it answers requests for any model. Requests that a provider would
    refuse (an unknown path, as with a wrong `base_url`; a wrong key; a missing member) are refused
    and do not use up a step of the script. A step may also be a function that takes the
    `ReceivedRequest` and returns the answer or fault.

    Responses of OpenAI's Responses API are kept by their key, until they are deleted or `reset` is
    called: requests may refer to them, and retrieve them.

    ::

        mock = MockProvider(key="sk-good")

        mock.script(Fault.rate_limited("ms"), Answer("Now it works."))

        mock.on("anthropic", Fault.overloaded_first())
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        key: str | None = None,
        models: Sequence[str] = ("mock-model",),
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        self._first = answer if answer is not None else Answer()
        self._key = key
        self._models = tuple(models)
        self._arrived = threading.Condition()
        self._steps: deque[Step] = deque()
        self._special: list[tuple[str, deque[Step]]] = []
        self._usual: Step = self._first
        self._stored = StoredResponses()

    def __repr__(self) -> str:
        left = len(self._steps) + sum(len(steps) for _, steps in self._special)
        return f"<MockProvider: {len(self.requests)} requests received, {left} steps left>"

    def script(self, *steps: Step) -> None:
        """Set the steps for the next requests, in order; after them, the default answer
        is given.
        """
        self._steps.extend(steps)

    def on(self, where: str, *steps: Step) -> None:
        """Set the steps for the next requests of one dialect ("openai", "anthropic", "gemini",
        "ollama", "cohere", "bedrock"), or to paths that match the regular expression `where`.

        These steps take precedence over those of `script`.
        """
        self._special.append((where, deque(steps)))

    def always(self, step: Step) -> None:
        """Set the step for all requests for which no other step is left."""
        self._usual = step

    def reset(self) -> None:
        """Clear the script and the received requests."""
        with self._arrived:
            self.requests.clear()
        self._steps.clear()
        self._special.clear()
        self._stored.clear()
        self._usual = self._first

    async def wait_seen(self, count: int = 1, timeout: float = 10.0) -> ReceivedRequest:
        """Wait for request number `count`, answered or not; raises TimeoutError after `timeout`
        seconds.
        """
        wait = partial(self._wait_seen, count, timeout)
        if not await to_thread.run_sync(wait, abandon_on_cancel=True):
            raise TimeoutError(f"{self!r}, and not {count} within {timeout} seconds")
        return self.requests[count - 1]

    def _wait_seen(self, count: int, timeout: float) -> bool:
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.requests) >= count, timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await serve_lifespan(nullcontext(), receive, send)
        elif scope["type"] == "websocket":
            await refuse_websocket(scope, receive, send, 426, b'{"error": "no WebSockets"}', [])
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        try:
            body = await read_body(scope, receive, _LIMIT)
        except ClientGoneError:
            return  # the client disconnected while it sent its request
        with self._arrived:
            received = parse_received(scope, body, number=len(self.requests) + 1, started=started)
            self.requests.append(received)
            self._arrived.notify_all()
        gone = False
        try:
            await send_reply(self._reply(received), receive, send)
        except (ClientGoneError, OSError):
            gone = True
        finally:
            received.close(client_gone=gone)

    def _reply(self, received: ReceivedRequest) -> Reply:
        usual = self._usual if isinstance(self._usual, Answer) else self._first
        simulator = SIMULATORS[received.dialect](received, usual, self._models)
        reply = simulator.refuse(self._key) or self._stored.answer(received)
        if reply is None:
            reply = self._stored.remember(received, self._act(self._next(received), simulator))
        if simulator.id_header:
            headers = {simulator.id_header: f"req_{simulator.id}", **reply.headers}
            reply = replace(reply, headers=headers)
        return reply

    def _act(self, step: Step, simulator: VendorSimulator) -> Reply:
        if not isinstance(step, Answer | Fault):
            step = step(simulator.received)
        simulator.answer = (step if isinstance(step, Answer) else step.answer) or simulator.answer
        reply = simulator.reply(simulator.answer, stream=simulator.received.streamed)
        return reply if isinstance(step, Answer) else step.shape(reply, simulator)

    def _next(self, received: ReceivedRequest) -> Step:
        for where, steps in self._special:
            if steps and (where == received.dialect or _matches(where, received)):
                return steps.popleft()
        return self._steps.popleft() if self._steps else self._usual


def _matches(where: str, received: ReceivedRequest) -> bool:
    return where not in SIMULATORS and re.search(where, received.path) is not None
