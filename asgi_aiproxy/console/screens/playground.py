"""The playground: call the gateway as oneself, and see what it answers.

The call goes through the whole gateway in this process, with the visitor as its principal: limits,
budgets and usage records are those of any other call of the visitor. What the gateway sends is
passed to the page as it is, while it arrives.
"""

from __future__ import annotations

import json

from asgi_aiproxy._asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.security import PAGE_HEADERS, content_policy
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.inprocess import post_scope

_PATH = "/v1/chat/completions"


def playground_pages() -> list[PageRoute]:
    """Return the page, and the call that it makes."""
    return [
        PageRoute("GET", "/playground", "token", _show),
        PageRoute("POST", "/playground/call", "token", _call),
    ]


async def _show(request: PageRequest) -> PageAnswer:
    return request.page(
        "playground.html",
        gateway=request.tools.public_gateway_url(request.scope, request.mount),
        model=request.query.get("model", ""),
        playgrounds=list(request.tools.playgrounds),
    )


async def _call(request: PageRequest) -> ASGIApp:
    text = {name: values[-1] for name, values in request.form.items()}
    if not text.get("model", "").strip() or not text.get("prompt", "").strip():
        raise invalid("Enter a model and a prompt.")
    messages = [{"role": "user", "content": text["prompt"]}]
    if text.get("system", "").strip():
        messages.insert(0, {"role": "system", "content": text["system"]})
    call: dict[str, object] = {"model": text["model"].strip(), "messages": messages}
    if text.get("stream"):
        call |= {"stream": True, "stream_options": {"include_usage": True}}
    gateway = request.tools.gateway
    if name := text.get("gateway", ""):
        if name not in request.tools.playgrounds:
            raise invalid(f"gateway: {name!r} does not exist.", "gateway")
        gateway = request.tools.playgrounds[name]
    return _GatewayCall(gateway, request, json.dumps(call).encode())


class _GatewayCall:
    """An ASGI app that answers with what the gateway answers to `body`."""

    def __init__(self, gateway: ASGIApp, request: PageRequest, body: bytes) -> None:
        self._gateway = gateway
        self._caller = request.caller
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"host", b"console"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self._body)),
        ]
        inner = post_scope(_PATH, headers, principal=self._caller)
        waiting = [self._body]

        async def read() -> Message:
            if waiting:
                return {"type": "http.request", "body": waiting.pop(), "more_body": False}
            return await receive()

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [content_policy(), *PAGE_HEADERS]
                names = {name for name, _ in own}
                kept = [pair for pair in message["headers"] if pair[0] not in names]
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        await self._gateway(inner, read, protected)
