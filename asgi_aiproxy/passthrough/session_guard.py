"""Inspect the messages of a WebSocket client that is restricted to models or has a budget.

The model in the URL of a session was checked and priced. Later events can name others:
`session.update` changes those of the session and of its transcription, in `session.model`,
`session.audio.input.transcription.model` and similar members. Each message that is a JSON object is
inspected like a request body (see `asgi_aiproxy.inspection`); audio is forwarded unchanged.
https://platform.openai.com/docs/api-reference/realtime-client-events
"""

from __future__ import annotations

import re

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.inspection import inspect
from asgi_aiproxy.passthrough.request import ProxyRequest

_JSON_BEGINS = re.compile(rb"[\s\x00]*(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\x00]*[{\[]")

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class SessionGuard:
    """Inspects the messages of one client. `priced` are the models for which the session was
    admitted.
    """

    def __init__(self, request: ProxyRequest, priced: frozenset[str] | None) -> None:
        self._request = request
        self._priced = priced

    def check(self, message: str | bytes) -> None:
        """Raise APIError if the message names a model that the client may not use, or is
        ambiguous.
        """
        data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
        if isinstance(message, bytes) and not may_be_json(data):
            return
        found = inspect(data)
        models = found.beside("")
        self._request.check_models(models)
        for model in models:
            if self._priced is not None and model not in self._priced:
                text = f"The model {model!r} is not the model for which this session was admitted."
                raise APIError(ErrorKind.FORBIDDEN, text, param="model", code="model_not_priced")


def may_be_json(data: bytes) -> bool:
    """Return whether a binary message could be JSON. Audio is not, but may begin in the
    same way.
    """
    if _JSON_BEGINS.match(data) is None:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.startswith(UTF16_MARKS)
    return True
