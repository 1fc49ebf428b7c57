"""Schemas of requests (POST /v1/responses), and of frequent stream events.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

NAME = "openai_responses"


class Part(Struct):
    """A part of a message, of a tool's output, or of a reasoning item."""

    type: str = "input_text"
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    detail: str | None = None


class Item(Struct):
    """An item of `input`; its type determines which members are used."""

    type: str = "message"
    role: str = ""
    content: str | list[Part] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


class Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None  # its name until 2025


class Format(Struct):
    type: str = "text"
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(Struct):
    format: Format | None = None
    verbosity: str | None = None


class ResponsesRequest(Struct):
    model: str
    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    prompt: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None


class Delta(Struct, gc=False):
    """The most frequent kinds of event. All others are parsed without a schema."""

    type: str
    output_index: int
    delta: str
    content_index: int = 0
    summary_index: int = 0


responses_request = msgspec.json.Decoder(ResponsesRequest)
item = msgspec.json.Decoder(Item)
delta = msgspec.json.Decoder(Delta)
deltas = msgspec.json.Decoder(list[Delta])
