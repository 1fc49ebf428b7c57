"""Acknowledge a request that is to be continued, without a response: `generate: false`."""

from __future__ import annotations

import time
from random import getrandbits
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Send
from asgi_aiproxy.dialects.openai_responses import responses
from asgi_aiproxy.exchange.targets import allowed_targets
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import StopReason, Usage
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.responses_state.turn import ResponseTurn

# What a request is not read for here: it may be empty, or refer to what a provider keeps.
_NOT_READ = ("previous_response_id", "conversation", "background")


async def acknowledge(turn: ResponseTurn, router: Router, send: Send) -> None:
    """Send the events of a complete and empty response, and remember the request.

    Raises APIError if the request is invalid, or the caller may not use its model.
    """
    call = turn.call
    allowed_targets(router, call)
    fields: dict[str, Any] = {n: raw for n, raw in call.fields.items() if n not in _NOT_READ}
    fields["input"] = msgspec.Raw(b'"-"')
    request = call.face.decode_request(call.operation, _json.dumps(fields))
    response = responses.envelope(
        request, f"resp_{getrandbits(192):048x}", call.model, int(time.time())
    )
    created = _event("response.created", 0, response)
    responses.finish(response, [], StopReason.END, Usage())
    turn.warm_up(response)
    done = _event("response.completed", 1, response)
    await send({"type": "http.response.body", "body": created, "more_body": True})
    await send({"type": "http.response.body", "body": done, "more_body": False})


def _event(kind: str, number: int, response: dict[str, Any]) -> bytes:
    event = {"type": kind, "sequence_number": number, "response": response}
    return encode_frame(_json.dumps(event), kind.encode())
