"""Hand-written provider streams, and their meaning.

`tests/streams/<dialect>/<scenario>.<sse|ndjson|json>` are the bytes a provider sends, `.frames` the
events of a binary stream, one per line (`tests/support/event_stream.py`); next to each,
`<scenario>.events.json` contains the neutral events, one per line, as written by `events_as_json`.
To accept new behaviour, run the tests with AIPROXY_UPDATE_GOLDEN=1 and read the diff.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from contextlib import nullcontext as noop
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import (
    Anthropic,
    Bedrock,
    Cohere,
    Coze,
    Dialect,
    Gemini,
    Ollama,
    OpenAIChat,
    OpenAIResponses,
    OutboundDialect,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    Media,
    MessageEnd,
    MessageStart,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    check,
    fold,
)
from asgi_aiproxy.translate import Translator, malformed_response_error
from tests.support.event_stream import encode_lines

HERE = Path(__file__).parents[1]
UPDATE = bool(os.environ.get("AIPROXY_UPDATE_GOLDEN"))

_MEDIA = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".frames": "application/vnd.amazon.eventstream",
}


def languages() -> dict[str, OutboundDialect]:
    """All dialects, with a fixed clock and ids that count."""
    ids = itertools.count(1)
    return {
        "openai_chat": OpenAIChat(now=lambda: 1_700_000_000.5, new_id=lambda: "chatcmpl-new"),
        "openai_responses": OpenAIResponses(now=lambda: 1_700_000_000.5, new_id=lambda: "new"),
        "anthropic": Anthropic(new_id=lambda: "msg_new"),
        "gemini": Gemini(new_id=lambda: f"call_{next(ids)}"),
        "ollama": Ollama(new_id=lambda: f"call_{next(ids)}"),
        "bedrock": Bedrock(),
        "coze": Coze(),
        "cohere": Cohere(new_id=lambda: f"call_{next(ids)}"),
    }


def faces() -> dict[str, Dialect]:
    """The dialects that are also served to clients."""
    return {name: it for name, it in languages().items() if isinstance(it, Dialect)}


@dataclass(frozen=True)
class Stream:
    """One scenario."""

    dialect: str
    path: Path

    def __str__(self) -> str:
        return f"{self.dialect}-{self.path.stem}"

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def data(self) -> bytes:
        data = self.path.read_bytes()
        return encode_lines(data.decode()) if self.path.suffix == ".frames" else data

    @property
    def language(self) -> OutboundDialect:
        return languages()[self.dialect]

    @property
    def framer(self) -> Framer:
        return self.language.framer(_MEDIA[self.path.suffix])


def _streams() -> list[Stream]:
    found = sorted((HERE / "streams").glob("*/*"))
    return [Stream(p.parent.name, p) for p in found if not p.name.endswith(".events.json")]


STREAMS = _streams()


def cut(framer: Framer, parts: Iterable[bytes]) -> list[bytes]:
    """The pieces that a framer finds in a stream that arrives in parts."""
    found = [piece for part in parts for piece in framer.feed(part)]
    rest = framer.close()
    return found if rest is None else [*found, rest]


def decode(
    language: OutboundDialect, pieces: Iterable[bytes]
) -> tuple[list[Event], APIError | None]:
    """The events of a stream, and the error at its end. Their order is checked."""
    decoder = language.decoder()
    events: list[Event] = []
    error = None
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.close()
    except APIError as failure:
        error = failure
    except (LookupError, TypeError, ValueError, AttributeError):  # as the translators have it
        error = malformed_response_error()
    order = check(events)
    if error is None:
        list(order)
    else:  # a stream that broke lacks its end; up to there its order is legal
        with pytest.raises(ValueError, match="ends without MessageEnd") if events else noop():
            list(order)
    return events, error


def events_as_json(events: Iterable[Event], error: APIError | None = None) -> list[list[Any]]:
    """Events as JSON."""
    out: list[list[Any]] = []
    for event in events:
        match event:
            case MessageStart():
                out.append(["MessageStart", plain(event)])
            case BlockStart(index, block):
                out.append(["BlockStart", index, type(block).__name__, plain(block)])
            case BlockDelta(index, text):
                out.append(["BlockDelta", index, text])
            case BlockEnd(index):
                rest = plain(event)
                del rest["index"]
                out.append(["BlockEnd", index, *([rest] if rest else [])])
            case MessageEnd():
                out.append(["MessageEnd", plain(event)])
    if error is not None:
        said = {"retry_after": error.retry_after} if error.retry_after is not None else {}
        out.append(["APIError", error.kind.value, error.message, *([said] if said else [])])
    return out


def plain(value: Any) -> Any:
    """A record as a JSON value, without the name of its class."""
    found = json.loads(json.dumps(msgspec.to_builtins(value)))
    if isinstance(value, msgspec.Struct):
        found.pop(value.__struct_config__.tag_field, None)
    return found


def expected(path: Path, found: list[list[Any]]) -> list[list[Any]]:
    """The content of an events file; written first if requested."""
    if UPDATE:
        lines = ",\n".join(json.dumps(line) for line in found)
        path.write_text(f"[\n{lines}\n]\n")
    events: list[list[Any]] = json.loads(path.read_text())
    return events


@dataclass(frozen=True)
class Meaning:
    """The meaning of an answer for any reader, in any API."""

    said: str
    thought: str
    calls: tuple[tuple[str, str, Any], ...]
    stop: str
    usage: tuple[int, int, int, int] | None


def meaning(response: Response) -> Meaning:
    """The meaning of an answer. Refusals count as text, wherever they are."""
    blocks, usage = response.blocks, response.usage
    said = [b.text for b in blocks if isinstance(b, Text | Refusal)]
    return Meaning(
        said="".join([*said, response.refusal]),
        thought="".join(b.text for b in blocks if isinstance(b, Reasoning)),
        calls=tuple(
            (b.id, b.name, arguments(b.arguments)) for b in blocks if isinstance(b, ToolCall)
        ),
        stop=response.stop.value,
        usage=None
        if usage is None
        else (usage.input, usage.output, usage.cache_read, usage.reasoning),
    )


def as_in(face: str, response: Response) -> Response:
    """The answer as a client API has it: in the Responses API, an image by address is text."""
    if face != "openai_responses":
        return response
    blocks = [
        Text(f"![image]({block.url})\n") if isinstance(block, Media) and block.url else block
        for block in response.blocks
    ]
    return msgspec.structs.replace(response, blocks=tuple(blocks))


def arguments(text: str) -> Any:
    """Parsed arguments; text that is not a JSON object as the client APIs encode it."""
    if text.strip() in ("", "null"):
        return {}
    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError:
        return {"arguments": text}
    return value if isinstance(value, dict) else {"arguments": text}


def read(language: OutboundDialect, framer: Framer, data: bytes) -> Response:
    """A whole stream, folded. Raises APIError."""
    events, error = decode(language, cut(framer, [data]))
    if error is not None:
        raise error
    return fold(events)


def translated(translator: Translator, parts: Iterable[bytes]) -> tuple[bytes, APIError | None]:
    """What the client gets, and the error that ended it."""
    out = b""
    try:
        for part in parts:
            out += translator.feed(part)
        return out + translator.close(), None
    except APIError as error:
        return out + translator.fail(error), error
