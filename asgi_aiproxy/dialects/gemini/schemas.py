"""Schemas of generateContent requests, and of frequent chunks.

https://ai.google.dev/api/generate-content. Google's API accepts `snake_case` as well as
`camelCase`, and its own SDKs mix them, so all names are converted by `camel` first.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from asgi_aiproxy.errors import invalid

_SNAKE = re.compile(r"_([a-z])")
# Members whose own members have names chosen by the caller, not by Google.
_FREE = frozenset(
    {"args", "response", "parameters", "parametersJsonSchema", "responseJsonSchema", "schema"}
    | {"responseSchema", "labels", "properties"}
)


def camel(value: Any) -> Any:
    """The same JSON with Google's member names in camelCase."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for name, member in value.items():
        key = _SNAKE.sub(lambda found: found[1].upper(), name) if "_" in name else name
        out[key] = member if key in _FREE else camel(member)
    return out


class Base(Struct, rename="camel"):
    pass


class Blob(Base):
    mime_type: str = ""
    data: str = ""
    display_name: str | None = None


class FileData(Base):
    file_uri: str
    mime_type: str = ""


class FunctionCall(Base):
    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class FunctionResponse(Base):
    name: str = ""
    response: Any = None
    id: str | None = None
    parts: list[Part] | None = None


class Part(Base):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: Any = None
    code_execution_result: Any = None


class Content(Base):
    parts: list[Part] | None = None
    role: str | None = None


class FunctionDeclaration(Base):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class Tool(Base):
    function_declarations: list[FunctionDeclaration] | None = None


class FunctionCallingConfig(Base):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfig(Base):
    function_calling_config: FunctionCallingConfig | None = None


class ThinkingConfig(Base):
    thinking_budget: int | None = None
    thinking_level: str | None = None
    include_thoughts: bool | None = None


class GenerationConfig(Base):
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    candidate_count: int | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    thinking_config: ThinkingConfig | None = None


class GenerateContentRequest(Base):
    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None


class PlainPart(Struct, gc=False, rename="camel", forbid_unknown_fields=True):
    """Text or reasoning without a signature."""

    text: str
    thought: bool | None = None


class PlainContent(Struct, gc=False):
    parts: tuple[PlainPart]


class PlainCandidate(Struct, gc=False, rename="camel"):
    content: PlainContent
    index: Literal[0] = 0
    finish_reason: str | None = None
    finish_message: None = None
    grounding_metadata: None = None
    citation_metadata: None = None


class PlainChunk(Struct, gc=False, rename="camel"):
    """The most frequent kind of chunk. All others are parsed without a schema."""

    candidates: tuple[PlainCandidate]
    usage_metadata: msgspec.Raw = msgspec.Raw()
    error: None = None
    prompt_feedback: None = None


class ChunkNames(Struct, gc=False, rename="camel"):
    """What the first chunk says of the response; all others repeat it."""

    response_id: str = ""
    model_version: str = ""


chunk_names = msgspec.json.Decoder(ChunkNames)
plain_chunk = msgspec.json.Decoder(PlainChunk)
plain_chunks = msgspec.json.Decoder(list[PlainChunk])


def normal(value: Any) -> dict[str, Any]:
    """A parsed body with camelCase names.

    `contents` and `systemInstruction` may be strings. As in Google's API and in the examples of its
    documentation, a list of one object may be the object itself: contents, parts, tools.
    """
    if not isinstance(value, dict):
        raise invalid("The request body must be a JSON object.")
    body: dict[str, Any] = camel(value)
    for name, role in (("contents", {"role": "user"}), ("systemInstruction", {})):
        if isinstance(text := body.get(name), str):
            body[name] = {**role, "parts": [{"text": text}]}
    _as_list(body, "contents")
    _as_list(body, "tools")
    for tool in _objects(body.get("tools")):
        _as_list(tool, "functionDeclarations")
    for content in (*_objects(body.get("contents")), *_objects([body.get("systemInstruction")])):
        _as_list(content, "parts")
    return body


def _as_list(where: dict[str, Any], name: str) -> None:
    if isinstance(where.get(name), dict) and where[name]:
        where[name] = [where[name]]


def _objects(values: Any) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []
