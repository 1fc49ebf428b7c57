"""A vendor that refuses what its documentation does not have: unknown members, missing ones, and
values of a wrong type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from asgi_aiproxy.upstream import HttpxTransport

NUMBER = (int, float)


@dataclass
class Endpoint:
    """A documented request: `members` are those of its body with their types, of which those in
    `required` must be there. `answer` makes the response from the body and the request: JSON, or a
    pair of content type and bytes. `form`: the body is one of these fields and files.
    """

    path: str
    members: Mapping[str, Any]
    answer: Callable[[Any, httpx.Request], Any]
    required: tuple[str, ...] = ()
    method: str = "POST"
    query: tuple[str, ...] = ()
    raw: bool = False
    status: int = 200

    def refusal(self, body: Mapping[str, Any], request: httpx.Request) -> str:
        """Why a request is refused; empty if it is not."""
        for name in request.url.params:
            if name not in self.query:
                return f"unknown parameter {name}"
        for name, value in body.items():
            if name not in self.members:
                return f"unknown member {name}"
            if not fits(value, self.members[name]):
                return f"{name} has a wrong type: {value!r}"
        missing = [name for name in self.required if name not in body]
        return f"missing {missing[0]}" if missing else ""


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has a type: a class, a tuple of classes, a list with the type of its items,
    an object with those of its members, or a set of values.
    """
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(each, kind[0]) for each in value)
    if isinstance(kind, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= kind.keys()
            and all(fits(v, kind[k]) for k, v in value.items())
        )
    if isinstance(kind, set | frozenset):
        return value in kind
    if kind is Any:
        return True
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


@dataclass
class StrictVendor:
    """Serves `endpoints`; `requests` and `bodies` are those received."""

    endpoints: list[Endpoint]
    requests: list[httpx.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    @property
    def transport(self) -> HttpxTransport:
        return HttpxTransport(httpx.MockTransport(self._handle))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        data = await request.aread()
        self.requests.append(request)
        path = request.url.raw_path.decode().partition("?")[0]
        for endpoint in self.endpoints:
            if endpoint.method != request.method or not re.fullmatch(endpoint.path, path):
                continue
            body = data if endpoint.raw else json.loads(data or b"{}")
            self.bodies.append(body)
            refusal = endpoint.refusal({} if endpoint.raw else body, request)
            if refusal:
                return httpx.Response(422, json={"message": refusal, "error": refusal})
            answer = endpoint.answer(body, request)
            if isinstance(answer, tuple):
                return httpx.Response(
                    endpoint.status, content=answer[1], headers={"content-type": answer[0]}
                )
            return httpx.Response(endpoint.status, json=answer)
        return httpx.Response(404, json={"message": f"no such path: {request.method} {path}"})
