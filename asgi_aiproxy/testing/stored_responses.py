"""The responses that a mock of OpenAI keeps: by API key, as OpenAI keeps them by account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import OpenAIResponses
from asgi_aiproxy.dialects.openai_responses import paths
from asgi_aiproxy.framing import SSEFramer, encode_frame
from asgi_aiproxy.testing.received import ReceivedRequest
from asgi_aiproxy.testing.reply import Reply
from asgi_aiproxy.testing.simulator import api_error

_FACE = OpenAIResponses()


class StoredResponses:
    """Responses of the Responses API, unless their requests said `"store": false`.

    A response with `background` is queued, and complete when it is retrieved.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[frozenset[str], str], tuple[dict[str, Any], Any]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def answer(self, seen: ReceivedRequest) -> Reply | None:
        """The reply to a request for a stored response, or one that refers to an unknown one."""
        if seen.dialect != "openai_responses":
            return None
        if seen.operation == "chat":
            previous = seen.members.get("previous_response_id")
            if not previous or (seen.secrets, previous) in self._kept:
                return None
            return _error(400, f"Previous response with id '{previous}' not found.", previous=True)
        if seen.operation not in (paths.RETRIEVE, paths.DELETE, paths.CANCEL, paths.INPUT_ITEMS):
            return None
        id = seen.path.partition("/responses/")[2].partition("/")[0]
        key = seen.secrets, id
        if key not in self._kept:
            return _error(404, f"Response with id '{id}' not found.")
        response, given = self._kept[key]
        match seen.operation:
            case paths.DELETE:
                del self._kept[key]
                return _whole({"id": id, "object": "response", "deleted": True})
            case paths.CANCEL:
                if not response["background"]:
                    return _error(400, "Cannot cancel a synchronous response.")
                self._kept[key] = response, given = {**response, "status": "cancelled"}, given
            case paths.INPUT_ITEMS:
                items = given if isinstance(given, list) else [{"role": "user", "content": given}]
                return _whole({"object": "list", "data": items, "has_more": False})
        return _whole(response)

    def remember(self, seen: ReceivedRequest, reply: Reply) -> Reply:
        """Keep the response in a reply; returns the reply to send."""
        if seen.dialect != "openai_responses" or seen.operation != "chat" or reply.status != 200:
            return reply
        echoed = {
            "store": seen.members.get("store") is not False,
            "background": seen.members.get("background") is True,
            "previous_response_id": seen.members.get("previous_response_id"),
        }
        events = [_with_members(event, echoed) for event in reply.events]
        response = next((found for _, found in reversed(events) if found is not None), None)
        if response is None:
            return reply
        if echoed["store"]:
            self._kept[seen.secrets, response["id"]] = response, seen.members.get("input")
        if echoed["background"] and not reply.streamed:
            queued = {**response, "status": "queued", "output": [], "usage": None}
            events = [(_json.dumps(queued), queued)]
        sent = tuple(event for event, _ in events)
        return replace(reply, events=sent, length=None if reply.streamed else len(sent[0]))


def _with_members(event: bytes, members: Mapping[str, Any]) -> tuple[bytes, dict[str, Any] | None]:
    """An event, or a whole body, whose response has these members; and the response, if any."""
    frames = SSEFramer().frames(event)
    frame = frames[0] if frames else None
    data = event if frame is None else frame.data
    if b'"response' not in data or not data.startswith(b"{"):
        return event, None
    found = _json.loads(data)
    response = found.get("response") if frame is not None else found
    if not isinstance(response, dict) or response.get("object") != "response":
        return event, None
    response.update(members)
    written = _json.dumps(found)
    return (written if frame is None else encode_frame(written, frame.event)), response


def _whole(value: dict[str, Any]) -> Reply:
    return Reply.whole(_json.dumps(value))


def _error(status: int, message: str, *, previous: bool = False) -> Reply:
    param = "previous_response_id" if previous else None
    code = "previous_response_not_found" if previous else None
    error = api_error(status, message, param=param, code=code)
    return Reply.whole(_FACE.encode_error(error), status=status)
