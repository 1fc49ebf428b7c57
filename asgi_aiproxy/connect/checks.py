"""Send a gateway what a client will send, and report what is missing and what to do about it.

The requests are those of the client: its list of models in the form of its API, its probe, the path
of its calls, a WebSocket handshake if it prefers one, and, if wanted, one small streamed call. The
path of calls is checked with a body that every gateway refuses, so that no model is called.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.connect.clients import Client
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.messages import BlockDelta, Message, MessageEnd, Request, Text, Usage
from asgi_aiproxy.upstream import Transport, UpstreamRequest, UpstreamResponse

_MAX_BODY = 8 * 1024 * 1024
_MAX_SHOWN = 12  # names of models in a message
_HANDSHAKE_SECONDS = 20.0
# By the name of a dialect: the header of the credential, what comes before the token, and the
# members that only its list of models has.
_CREDENTIALS = {"gemini": ("x-goog-api-key", "")}
_LIST_MEMBERS = {"anthropic": "has_more", "gemini": "models"}
_API_NAMES = {
    "openai_chat": "OpenAI's Chat API",
    "openai_responses": "OpenAI's Responses API",
    "anthropic": "Anthropic's API",
    "gemini": "Google's Gemini API",
}


class Finding(msgspec.Struct, frozen=True):
    """One finding: `result` is `ok`, `note` (it works with a limit) or `missing`.

    `text` says what was found, `advice` what to do.
    """

    result: Literal["ok", "note", "missing"]
    text: str
    advice: str = ""


_WEBSOCKET_PATH = "/v1/responses"
_WEBSOCKET = Finding("ok", f"WebSocket {_WEBSOCKET_PATH} is served")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The `findings` about a gateway: `models` are those listed, and `model` is the one to use.

    `websocket` is whether it serves the Responses API over a WebSocket.
    """

    findings: tuple[Finding, ...]
    model: str
    models: tuple[str, ...] = ()
    websocket: bool = False


async def check_gateway(
    client: Client,
    url: str,
    transport: Transport,
    *,
    token: str = "",
    model: str = "",
    call: bool = False,
) -> Report:
    """Check the gateway that is mounted at `url` for one client, by requests over `transport`.

    Without `token`, requests carry no credential. Without `model`, the client's usual model is used
    if it is listed, otherwise the first that is. `call` sends a streamed request, which costs a few
    tokens.
    """
    checks = _Checks(client, url, token, transport)
    findings = [await checks.probe()] if client.probe else []
    models, listed = await checks.models()
    findings += listed
    chosen = model or _choose(client, models)
    if all(finding.result != "missing" for finding in findings):
        if models and chosen not in models:
            advice = f"Choose one of the list with --model, or add a route for {chosen!r}."
            findings.append(Finding("note", f"the model {chosen!r} is not listed", advice))
        findings.append(await checks.path(chosen))
        if client.websocket:
            findings.append(await checks.websocket())
        if call:
            findings.append(await checks.call(chosen))
    websocket = any(finding == _WEBSOCKET for finding in findings)
    return Report(findings=tuple(findings), model=chosen, models=models, websocket=websocket)


def _choose(client: Client, models: tuple[str, ...]) -> str:
    shown = [name for name in models if name.startswith(client.model_prefixes or "")]
    return client.model if client.model in models or not models else (shown or list(models))[0]


class _Checks:
    def __init__(self, client: Client, url: str, token: str, transport: Transport) -> None:
        self._client = client
        self._url = url
        self._token = token
        self._transport = transport

    async def probe(self) -> Finding:
        try:
            status, _ = await self._whole("HEAD", "/", base="")
        except APIError as error:
            return _unreachable(self._url, error)
        if status in (401, 403):
            return Finding("ok", f"HEAD / is answered ({status})")
        if status >= 400:
            return Finding("note", f"HEAD / is answered {status}", "The client works without it.")
        return Finding("ok", "HEAD / is answered")

    async def models(self) -> tuple[tuple[str, ...], list[Finding]]:
        draft = self._client.dialect.models_request()
        query = self._client.list_query or draft.query
        try:
            status, body = await self._whole("GET", draft.path, query=query)
        except APIError as error:
            return (), [_unreachable(self._url, error)]
        if status != 200:
            return (), [self._refused(status, body, f"GET {self._client.base}{draft.path}")]
        api = _API_NAMES[self._client.dialect.name]
        member = _LIST_MEMBERS.get(self._client.dialect.name, "data")
        try:
            names = self._client.dialect.decode_models(body)
        except ValueError:
            names = ()
        if member not in (_object(body) or {}):
            advice = "Check the URL. AIShim and `serve` list models in the form of every API."
            text = f"the list of models is not in the form of {api}"
            return (), [Finding("missing", text, advice)]
        found = [Finding("ok", f"models are listed in the form of {api}: {_enumerated(names)}")]
        prefixes = self._client.model_prefixes
        hidden = [name for name in names if prefixes and not name.startswith(prefixes)]
        if hidden:
            advice = f"Add aliases that begin with {prefixes[0]!r} to the gateway's routes."
            text = f"{self._client.title} does not offer {_enumerated(hidden)} in its list"
            found.append(Finding("note", text, advice))
        return names, found

    async def path(self, model: str) -> Finding:
        """Whether calls are served. The body lacks what every API requires."""
        draft = self._draft(model)
        try:
            status, body = await self._whole("POST", draft.path, query=draft.query, body={})
        except APIError as error:
            return _unreachable(self._url, error)
        what = f"POST {self._client.base}{draft.path}"
        if status in (404, 405, 501) and not _names_model(body):
            return self._refused(status, body, what)
        if status in (401, 403):
            return self._refused(status, body, what)
        return Finding("ok", f"{what} is served")

    async def websocket(self) -> Finding:
        path = _WEBSOCKET_PATH
        try:
            status = await _handshake(self._url, path, self._credential())
        except (OSError, ValueError) as error:
            return Finding("note", f"WebSocket {path} failed: {str(error) or 'it took too long'}")
        if status == 101:
            return _WEBSOCKET
        advice = "HTTP is used instead."
        return Finding("note", f"WebSocket {path} is not served ({status})", advice)

    async def call(self, model: str) -> Finding:
        draft = self._draft(model)
        try:
            answer = await self._send("POST", draft.path, query=draft.query, body=draft.body)
            try:
                return await self._streamed(model, answer)
            finally:
                await answer.aclose()
        except APIError as error:
            return Finding("missing", f"the call of {model!r} failed: {error.message}")

    async def _streamed(self, model: str, answer: UpstreamResponse) -> Finding:
        if answer.status != 200:
            body = await _read(answer)
            return self._refused(answer.status, body, f"the call of {model!r}")
        headers = dict(answer.headers)
        dialect = self._client.dialect
        framer, decoder = dialect.framer(headers.get("content-type", "")), dialect.decoder()
        text, usage = "", None
        events: list[Any] = []
        while data := await answer.read():
            for piece in framer.feed(data):
                events += decoder.feed(piece)
        last = framer.close()
        events += [*(decoder.feed(last) if last else ()), *decoder.close()]
        for event in events:
            if isinstance(event, BlockDelta):
                text += event.text
            elif isinstance(event, MessageEnd):
                usage = event.usage
        said = f"a call of {model!r} is answered with a stream: {text.strip()[:60]!r}"
        ignored = headers.get("aiproxy-ignored")
        if ignored:
            return Finding("note", f"{said}{_counted(usage)}; not carried: {ignored}")
        return Finding("ok", f"{said}{_counted(usage)}")

    # requests

    def _draft(self, model: str) -> ProviderRequest:
        said = Message("user", (Text("Reply with the word OK."),))
        return self._client.dialect.encode_request(
            Request(model=model, messages=(said,), stream=True)
        )

    def _credential(self) -> tuple[str, str] | None:
        name, before = _CREDENTIALS.get(self._client.dialect.name, ("authorization", "Bearer "))
        return (name, before + self._token) if self._token else None

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: Mapping[str, Any] | None = None,
        base: str | None = None,
    ) -> UpstreamResponse:
        headers = [("accept", "*/*"), ("user-agent", "asgi_aiproxy connect")]
        if self._client.dialect.name == "anthropic":
            headers.append(("anthropic-version", "2023-06-01"))
        if credential := self._credential():
            headers.append(credential)
        data = None
        if body is not None:
            data = _json.dumps(body)
            headers += [
                ("content-type", "application/json"),
                ("content-length", str(len(data))),
            ]
        prefix = self._client.base if base is None else base
        url = f"{self._url}{prefix}{path}{'?' if query else ''}{query}"
        request = UpstreamRequest(method=method, url=url, headers=headers, body=data, streamed=True)
        return await self._transport.send(request)

    async def _whole(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: Mapping[str, Any] | None = None,
        base: str | None = None,
    ) -> tuple[int, bytes]:
        answer = await self._send(method, path, query=query, body=body, base=base)
        try:
            return answer.status, await _read(answer)
        finally:
            await answer.aclose()

    def _refused(self, status: int, body: bytes, what: str) -> Finding:
        message = self._client.dialect.decode_error(status, body).message
        if status in (401, 403):
            given = "the token is refused" if self._token else "a token is required"
            advice = (
                "Give a valid one with --token. In the gateway: "
                "python -m asgi_aiproxy tokens issue --name NAME"
            )
            return Finding("missing", f"{given} ({status}: {message})", advice)
        if 300 <= status < 400:
            advice = "Clients do not follow redirects: give the URL that it leads to."
            return Finding("missing", f"{what} is redirected ({status})", advice)
        if status == 404:
            api = _API_NAMES[self._client.dialect.name]
            advice = (
                f"The URL must be where the gateway is mounted, without /v1, and the app there "
                f"must serve {api}: AIShim and `serve` do."
            )
            return Finding("missing", f"{what} is not served (404: {message})", advice)
        return Finding("missing", f"{what} is answered {status}: {message}")


async def _read(answer: UpstreamResponse) -> bytes:
    body = bytearray()
    while (data := await answer.read()) and len(body) < _MAX_BODY:
        body += data
    return bytes(body)


async def _handshake(url: str, path: str, credential: tuple[str, str] | None) -> int:
    """The status of a WebSocket handshake (RFC 6455, section 4.1)."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    lines = [
        f"GET {parts.path}{path} HTTP/1.1",
        f"host: {parts.netloc.rpartition('@')[2]}",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        f"sec-websocket-key: {base64.b64encode(os.urandom(16)).decode()}",
        *([": ".join(credential)] if credential else []),
    ]
    async with asyncio.timeout(_HANDSHAKE_SECONDS):
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            await writer.drain()
            status = (await reader.readline()).split(b" ")[1]
            return int(status)
        except IndexError:
            raise ValueError("the answer is not HTTP") from None
        finally:
            writer.close()


def _unreachable(url: str, error: APIError) -> Finding:
    advice = "Check the URL, and that the gateway runs: python -m asgi_aiproxy serve --config FILE"
    return Finding("missing", f"{url} cannot be reached: {error.message}", advice)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = _json.loads(body)
    except _json.NotJSONError:
        return None
    return found if isinstance(found, dict) else None


def _names_model(body: bytes) -> bool:
    return b"model" in body.lower()


def _enumerated(names: Any) -> str:
    shown = list(names)[:_MAX_SHOWN]
    more = len(names) - len(shown)
    return (", ".join(shown) + (f" and {more} more" if more else "")) or "none"


def _counted(usage: Usage | None) -> str:
    return "" if usage is None else f" ({usage.input} tokens in, {usage.output} out)"
