"""Pictures as chatgpt-adapter makes them: a secret that names a model, prompts, and its answer.

Theory of operation. Clients of chatgpt-adapter chose who makes a picture by a word in place of an
API key, or by the name of the model; `models` maps both to models of this gateway. The prompt may
contain tags: `<tag content="..." />` has keywords that are added as they are, `<tag llm=false />`
keeps the prompt from being rewritten. With a `rewriter`, a chat model turns the wish into keywords
first, in a request of the same caller, with its limits and a usage record of its own; not for a
caller with its own API key, which is for the vendor of the picture. The answer is OpenAI's with the
members that these clients read: `styles`, `samples`, `prompt`, `currStyle`, `currSamples`. With
`store`, pictures in base64 are given to the host, which returns their URLs. A stream passes
unchanged.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import ASGIApp, Message, RawHeaders, Send
from asgi_aiproxy.compat.callers import Caller
from asgi_aiproxy.compat.routing import CompatCall
from asgi_aiproxy.errors import APIError, ErrorKind

# Takes the bytes of a picture and its media type, and returns the URL at which it can be read.
StorePicture = Callable[[bytes, str], Awaitable[str]]

_TAG = re.compile(r"<tag\s([^<>]{0,2000})>")
_CONTENT = re.compile(r'content="([^"]*)"')
_NOT_REWRITTEN = re.compile(r'llm="?false"?(?![\w"])')
_QUOTED = re.compile(r'("""|```)(?:\w*\n)?(.*)\1', re.DOTALL)
_MAX_REWRITTEN = 4096  # tokens
_REWRITE = (
    "Turn the wish below into at most 20 English keywords for an image generator, separated by "
    'commas. Answer with the keywords alone, between triple double quotes (""").\n\n'
)
_SIGNATURES = ((b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"), (b"GIF8", "image/gif"))


@dataclass(frozen=True)
class AdapterImages:
    """How chatgpt-adapter's picture paths choose a model, prepare the prompt and answer.

    Arguments:

    - `model`: the model of requests that name none.
    - `models`: models by the secrets that clients send instead of an API key to choose them, and by
      the names of models that clients send.
    - `rewriter`: a chat model that turns the prompt into keywords first; empty: none does.
    - `styles`, `samples`: the names that answers list for clients to choose from; a request's
      `style` and `quality` are passed on as they are.
    - `store`: an async function that stores a picture and returns its URL, called with the bytes
      and the media type; without it pictures stay in the answer. Not called for requests with
      `response_format: "b64_json"`.
    """

    model: str = "dall-e-3"
    models: Mapping[str, str] = field(default_factory=dict)
    rewriter: str = ""
    styles: Sequence[str] = ()
    samples: Sequence[str] = ()
    store: StorePicture | None = None

    async def serve(
        self, call: CompatCall, app: ASGIApp, caller: Caller, headers: RawHeaders, secret: str
    ) -> None:
        """Answer a request for pictures.

        Arguments:

        - `call`: the request.
        - `app`: answers OpenAI's API, with the caller's `headers`.
        - `caller`: the caller.
        - `secret`: what the client sent as its API key.
        """
        fields = await call.fields()
        named = fields.get("model") or self.model
        if secret in self.models:
            fields["model"] = self.models[secret]
        else:
            fields["model"] = self.models.get(named, named) if isinstance(named, str) else named

        async def forward(path: str, body: Mapping[str, Any], send: Send) -> None:
            await call.forward(
                app,
                headers=headers,
                path=path,
                body=_json.dumps(body),
                extra=caller.extra,
                send=send,
            )

        if isinstance(fields.get("prompt"), str):
            prepared = Prompt.parse(fields["prompt"])
            rewrites = self.rewriter and not caller.secret
            if rewrites and prepared.rest and prepared.rewritten:
                rewritten = Collected()
                await forward(
                    "/v1/chat/completions", self._rewrite_request(prepared.rest), rewritten
                )
                if rewritten.status != 200:
                    await rewritten.pass_on(call)
                    return
                prepared = prepared.with_rest(_keywords(rewritten.body))
            fields["prompt"] = prepared.text
        if fields.get("stream"):
            await forward("/v1/images/generations", fields, call.send)
            return
        answer = Collected()
        await forward("/v1/images/generations", fields, answer)
        if answer.is_object:
            await self._extend(answer, fields)
        await answer.pass_on(call)

    def _rewrite_request(self, wish: str) -> dict[str, Any]:
        message = {"role": "user", "content": _REWRITE + wish}
        return {
            "model": self.rewriter,
            "messages": [message],
            "max_tokens": _MAX_REWRITTEN,
            "stream": False,
        }

    async def _extend(self, answer: Collected, fields: Mapping[str, Any]) -> None:
        """Store the pictures of an answer, and add what clients of chatgpt-adapter read."""
        body = _json.loads(answer.body)
        if self.store is not None and fields.get("response_format") != "b64_json":
            for item in body.get("data") or ():
                if isinstance(item, dict) and isinstance(item.get("b64_json"), str):
                    item["url"] = await self._stored(self.store, item.pop("b64_json"))
        extension = {
            "styles": list(self.styles),
            "samples": list(self.samples) or None,
            "prompt": fields.get("prompt"),
            "currStyle": fields.get("style") or "",
            "currSamples": fields.get("quality") or "",
        }
        answer.body = _json.dumps({**extension, **body})

    async def _stored(self, store: StorePicture, encoded: str) -> str:
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise APIError(ErrorKind.UPSTREAM, "The picture is not valid base64.") from error
        known = (type for mark, type in _SIGNATURES if data.startswith(mark))
        return await store(data, next(known, "image/png"))


@dataclass(frozen=True)
class Prompt:
    """A prompt without its tags: the keywords of the tags, and the text beside them.

    `rewritten`: the text may be rewritten.
    """

    keywords: tuple[str, ...]
    rest: str
    rewritten: bool = True

    @classmethod
    def parse(cls, text: str) -> Prompt:
        """Read a prompt."""
        tags = _TAG.findall(text)
        keywords = tuple(word for tag in tags for word in _CONTENT.findall(tag) if word.strip())
        rewritten = not any(_NOT_REWRITTEN.search(tag) for tag in tags)
        return cls(keywords, _TAG.sub("", text).strip(), rewritten)

    def with_rest(self, rest: str) -> Prompt:
        """Return the prompt with another text beside the keywords."""
        return Prompt(self.keywords, rest, self.rewritten)

    @property
    def text(self) -> str:
        """What is sent to the model that makes the picture."""
        return ", ".join(part for part in (self.rest, *self.keywords) if part)


def _keywords(body: bytes) -> str:
    """Return the keywords in the answer of the chat model. Raises APIError if it has none."""
    try:
        content = _json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str) or not content.strip():
        raise APIError(ErrorKind.UPSTREAM, "The model that rewrites prompts answered nothing.")
    quoted = _QUOTED.search(content)
    return (quoted[2] if quoted else content).strip()


class Collected:
    """A `send` that keeps a whole answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self._headers: RawHeaders = []

    async def __call__(self, message: Message) -> None:
        """Keep one message."""
        if message["type"] == "http.response.start":
            self.status, self._headers = message["status"], list(message.get("headers", ()))
        else:
            self.body += message.get("body", b"")

    @property
    def is_object(self) -> bool:
        """Whether this is a JSON object that is not an error."""
        return self.status == 200 and self.body.lstrip().startswith(b"{")

    async def pass_on(self, call: CompatCall) -> None:
        """Send the answer to the client."""
        headers = [pair for pair in self._headers if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(self.body)))
        await call.send({"type": "http.response.start", "status": self.status, "headers": headers})
        await call.send({"type": "http.response.body", "body": self.body})
