"""Schemas of message requests (POST /v1/messages), and of frequent stream frames.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class Source(Struct):
    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    content: Any = None


class Part(Struct):
    type: str
    text: str | None = None
    source: Source | str | None = None  # of a search result: its URL
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: str | list[Part] | dict[str, Any] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    cache_control: dict[str, Any] | None = None


class Message(Struct):
    role: str
    content: str | list[Part]


class Tool(Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    input_examples: list[Any] | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class Format(Struct):
    type: str
    schema: dict[str, Any] | None = None


class OutputConfig(Struct):
    effort: str | None = None
    format: Format | None = None


class Metadata(Struct):
    user_id: str | None = None


class MessagesRequest(Struct):
    model: str
    messages: list[Message]
    max_tokens: int | None = None
    system: str | list[Part] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: Metadata | None = None
    stream: bool | None = None


messages_request = msgspec.json.Decoder(MessagesRequest)


class TextDelta(Struct, gc=False, tag_field="type", tag="text_delta"):
    text: str


class ThinkingDelta(Struct, gc=False, tag_field="type", tag="thinking_delta"):
    text: str = msgspec.field(name="thinking")


class InputDelta(Struct, gc=False, tag_field="type", tag="input_json_delta"):
    text: str = msgspec.field(name="partial_json")


class ContentBlockDelta(Struct, gc=False, tag_field="type", tag="content_block_delta"):
    """The most frequent kind of frame. All others are parsed without a schema."""

    index: int
    delta: TextDelta | ThinkingDelta | InputDelta


content_block_delta = msgspec.json.Decoder(ContentBlockDelta)
content_block_deltas = msgspec.json.Decoder(list[ContentBlockDelta])
