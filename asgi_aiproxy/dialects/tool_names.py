"""Tool names that a vendor refuses: a valid name for its requests, the original for the client.

Theory of operation. Vendors limit the names of tools in different ways: OpenAI to 64 characters of
`[a-zA-Z0-9_-]`, Anthropic to 128, Gemini lets a name contain dots. Clients name tools for the API
that they speak, such as `mcp__server__tool` with up to 128 characters in Claude Code. So a
translated request gets valid names in every place that names a tool (`valid_names`): declarations,
the choice, earlier calls and their results. A name that is valid stays as it is. One that is not
is cut, and ends with a hash of the original, so that the same tool has the same name in each
request of a conversation, which prompt caches need. `OriginalNames` puts the original name into
the calls of the response. Both cost nothing if all names are valid, which is the usual case.

https://platform.openai.com/docs/api-reference/chat/create (`tools.function.name`),
https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use (`name`),
https://ai.google.dev/api/caching#FunctionDeclaration (`name`),
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolSpecification.html (`name`)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from asgi_aiproxy.dialects.base import Decoder, OutboundDialect, ToolNameRule
from asgi_aiproxy.messages import (
    BlockStart,
    Event,
    Part,
    Request,
    Response,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)

_HASH = 8  # hexadecimal digits

_Named = TypeVar("_Named", bound=Tool | Part)


def valid_names(request: Request, rule: ToolNameRule | None) -> tuple[Request, Mapping[str, str]]:
    """Return the request with names that `rule` accepts, and the original of each new name."""
    if rule is None:
        return request, {}
    known = {tool.name for tool in request.tools}
    for message in request.messages:
        if message.role == "assistant":
            known.update([part.name for part in message.parts if isinstance(part, ToolCall)])
    matches = rule.pattern.fullmatch
    changed = {name: _valid_name(name, rule) for name in known if not matches(name)}
    if not changed:
        return request, {}
    choice = request.tool_choice
    if choice is not None:
        names = tuple(changed.get(name, name) for name in choice.names)
        choice = msgspec.structs.replace(choice, names=names)
    renamed = msgspec.structs.replace(
        request,
        tools=tuple(_renamed(tool, changed) for tool in request.tools),
        tool_choice=choice,
        messages=tuple(
            msgspec.structs.replace(
                message, parts=tuple(_renamed(part, changed) for part in message.parts)
            )
            for message in request.messages
        ),
    )
    return renamed, {new: name for name, new in changed.items()}


def _renamed(named: _Named, changed: Mapping[str, str]) -> _Named:
    """The tool, call or result with its new name; every other part as it is."""
    if isinstance(named, Tool | ToolCall | ToolResult) and named.name in changed:
        return msgspec.structs.replace(named, name=changed[named.name])
    return named


def _valid_name(name: str, rule: ToolNameRule) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    clean = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    if not clean[:1].isalpha():
        clean = f"_{clean}"
    return f"{clean[: rule.length - _HASH - 1]}_{digest}"


class OriginalNames:
    """Reads responses of a dialect, and gives calls the names that the client knows.

    Arguments:

    - `dialect`: the dialect of the provider.
    - `originals`: the names that the client knows, by those that were sent to the provider.
    """

    def __init__(self, dialect: OutboundDialect, originals: Mapping[str, str]) -> None:
        self._dialect = dialect
        self._originals = originals

    def decode_response(self, body: bytes) -> Response:
        """Read a whole response; raises APIError for an error or an invalid body."""
        response = self._dialect.decode_response(body)
        blocks = tuple(
            _original(block, self._originals) if isinstance(block, ToolCall) else block
            for block in response.blocks
        )
        return msgspec.structs.replace(response, blocks=blocks)

    def decoder(self) -> Decoder:
        """A new decoder for one streamed response."""
        return _Decoder(self._dialect.decoder(), self._originals)


class _Decoder:
    """Passes the events of a decoder on, with the original names in the calls."""

    def __init__(self, inner: Decoder, originals: Mapping[str, str]) -> None:
        self._inner = inner
        self._originals = originals
        self.run = inner.run  # no call starts within a run

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return self._inner.usage

    @property
    def model(self) -> str:
        """The model named in the response."""
        return self._inner.model

    @property
    def ended(self) -> bool:
        """Whether the final frame was received."""
        return self._inner.ended

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one piece."""
        return [self._event(event) for event in self._inner.feed(data)]

    def close(self) -> Sequence[Event]:
        """The remaining events at the end; raises APIError if the response is incomplete."""
        return [self._event(event) for event in self._inner.close()]

    def _event(self, event: Event) -> Event:
        if isinstance(event, BlockStart) and isinstance(event.block, ToolCall):
            return BlockStart(event.index, _original(event.block, self._originals))
        return event


def _original(call: ToolCall, originals: Mapping[str, str]) -> ToolCall:
    return msgspec.structs.replace(call, name=originals.get(call.name, call.name))
