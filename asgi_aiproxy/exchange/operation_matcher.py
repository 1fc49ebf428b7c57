"""Which operation of which API a request is for, by its method and path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from asgi_aiproxy import _asgi, dialects
from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.dialects import NEUTRAL, neutral
from asgi_aiproxy.dialects.base import InboundDialect, Operation
from asgi_aiproxy.errors import APIError, ErrorKind

# How many matches are remembered, of paths up to which length in bytes.
_REMEMBERED, _LONG = 256, 256
_METHODS = ("POST", "GET", "DELETE")

Match = tuple[InboundDialect, Operation]


class OperationMatcher:
    """Finds the operation of requests among those of `faces`, the APIs that an app speaks."""

    def __init__(self, faces: Sequence[InboundDialect]) -> None:
        self.faces = faces
        self._matched: dict[object, Match] = {}  # of requests, by how they came

    def find(self, scope: Scope) -> Operation | None:
        """The operation of a request; None if it is for another app."""
        if (in_process := scope.get(neutral.SCOPE_KEY)) is not None:
            return cast("Operation", in_process)
        path = _asgi.local_path(scope)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        found = (face.match(method, path) for face in self.faces if path is not None)
        return next((operation for operation in found if operation is not None), None)

    def match(self, scope: Scope) -> Match:
        """The API and operation of a request. Raises APIError (404, 405, 426)."""
        if (in_process := scope.get(neutral.SCOPE_KEY)) is not None:
            return NEUTRAL, in_process
        method: str = scope["method"]
        # (Some servers leave the query in `raw_path`: it is not remembered, it may hold a key.)
        raw = scope.get("raw_path")
        sent = (method, scope["path"], raw, scope.get("root_path"))
        known = self._matched.get(sent)
        if known is not None:
            return known
        path = _asgi.local_path(scope)
        if path is None:
            raise APIError(ErrorKind.NOT_FOUND, f"There is nothing at {scope['path']!r}.")
        requested = "GET" if method == "HEAD" else method
        for face in self.faces:
            operation = face.match(method, path) or face.match(requested, path)
            if operation is not None:
                # (What names a model or a resource may be anything.)
                short = raw is None or (len(raw) < _LONG and b"?" not in raw)
                named = operation.model or operation.resource
                if not named and short and len(self._matched) < _REMEMBERED:
                    self._matched[sent] = face, operation
                return face, operation
        raise self._no_match(scope, method, path)

    def match_client(self, scope: Scope, face: InboundDialect, operation: Operation) -> Match:
        """The API of a list of models, whose path is that of several: by the client's headers.

        (Not the header of its credential: many send that as any API takes it.)
        """
        sent = {name for name, _ in scope["headers"]}
        path = _asgi.local_path(scope) or ""
        for other in self.faces:
            if not other.client_headers.isdisjoint(sent):
                found = other.match("GET", path)
                if found is not None and found.body == "none":
                    return other, found
        return face, operation

    def closest(self, scope: Scope) -> InboundDialect:
        """The API to answer a request in that is for none of the operations: that of the client's
        headers, else that of the path with another method, else the first one.
        """
        sent = {name for name, _ in scope["headers"]}
        path = _asgi.local_path(scope) or ""
        marked = [face for face in self.faces if not face.client_headers.isdisjoint(sent)]
        for face in (*marked, *self.faces):
            if any(face.match(method, path) for method in _METHODS):
                return face
        if marked:
            return marked[0]
        if path.startswith("/v1beta") and dialects.GEMINI_CONTENT in self.faces:
            return dialects.GEMINI_CONTENT
        return self.faces[0]

    def _no_match(self, scope: Scope, method: str, path: str) -> APIError:
        takes = [m for m in _METHODS if any(face.match(m, path) for face in self.faces)]
        if takes:
            if method == "GET" and (_asgi.header(scope, b"upgrade") or "").lower() == "websocket":
                return _asgi.no_websocket()  # a server without WebSockets passes it on like this
            message = f"Not allowed: {method} {path}. This path takes {' and '.join(takes)}."
            error = APIError(ErrorKind.INVALID, message, status=405)
            error.allow = (*takes, "HEAD") if "GET" in takes else tuple(takes)
            return error
        hint = self._hint(method, path)
        return APIError(ErrorKind.NOT_FOUND, f"Unknown request URL: {method} {path}.{hint}")

    def _hint(self, method: str, path: str) -> str:
        """What is probably wrong with the base URL or the mount; empty if that is not known."""
        version, _, rest = path[1:].partition("/")
        if any(face.match(method, "/v1" + path) for face in self.faces):
            return " The base URL of clients must end with '/v1'."
        if version.startswith("v1") and any(face.match(method, "/" + rest) for face in self.faces):
            return f" The base URL of this client must end before '/{version}'."
        known: tuple[InboundDialect, ...] = (
            dialects.OPENAI_CHAT,
            dialects.OPENAI_RESPONSES,
            dialects.ANTHROPIC_MESSAGES,
            dialects.GEMINI_CONTENT,
        )
        if any(face.match(method, path) for face in known):
            return " It belongs to an API that is not served here: mount AIShim, which serves all."
        return ""
