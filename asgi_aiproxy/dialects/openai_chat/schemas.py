"""Schemas of chat requests (POST /v1/chat/completions) and frequent chunks, with common extensions.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class ImageURL(Struct):
    url: str
    detail: str | None = None


class InputAudio(Struct):
    data: str
    format: str = ""


class File(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Part(Struct):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: ImageURL | str | None = None
    video_url: ImageURL | str | None = None
    input_audio: InputAudio | None = None
    file: File | None = None
    # Mistral and others replay reasoning inside the content.
    thinking: Any = None
    # A cache point for Anthropic, as LiteLLM's and OpenRouter's clients send it.
    cache_control: dict[str, Any] | None = None


class Function(Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class Custom(Struct):
    name: str = ""
    input: str = ""


class ToolCall(Struct):
    id: str | None = None
    type: str = "function"
    function: Function | None = None
    custom: Custom | None = None
    extra_content: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None


class Detail(Struct):
    """A member of `reasoning_details`, as OpenRouter defined it."""

    type: str
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    format: str | None = None
    id: str | None = None


class Image(Struct):
    """An image that the model generated, as OpenRouter defined it."""

    image_url: ImageURL | str | None = None
    extra_content: dict[str, Any] | None = None


class Message(Struct):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Function | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    images: list[Image] | None = None
    cache_control: dict[str, Any] | None = None


class FunctionDefinition(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class Tool(Struct):
    type: str = "function"
    function: FunctionDefinition | None = None
    cache_control: dict[str, Any] | None = None


class JSONSchema(Struct):
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Struct):
    type: str
    json_schema: JSONSchema | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class Reasoning(Struct):
    """OpenRouter's unified reasoning parameter."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Thinking(Struct):
    """Anthropic's parameter, which many clients send in OpenAI's format."""

    type: str
    budget_tokens: int | None = None


class ChatRequest(Struct):
    model: str
    messages: list[Message]
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    thinking: Thinking | None = None
    n: int | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    # Anthropic's parameter: a cache point at the end of the request.
    cache_control: dict[str, Any] | None = None


class PlainDelta(Struct, gc=False):
    """A delta with text or reasoning only: members of type None must be null."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    annotations: None = None
    images: None = None


class PlainChoice(Struct, gc=False):
    index: int
    delta: PlainDelta
    finish_reason: msgspec.UnsetType | None = msgspec.UNSET
    message: None = None
    error: None = None


class PlainChunk(Struct, gc=False):
    """The most frequent kind of chunk. All others are parsed without a schema."""

    id: str
    object: str
    created: int
    model: str
    choices: tuple[PlainChoice]
    usage: None = None
    error: None = None
    x_groq: None = None


class PlainChoices(Struct, gc=False):
    """The same without the members that all chunks of a response share."""

    choices: tuple[PlainChoice]
    usage: None = None
    error: None = None
    x_groq: None = None


plain_chunk = msgspec.json.Decoder(PlainChunk)
plain_choices = msgspec.json.Decoder(PlainChoices)
plain_choices_each = msgspec.json.Decoder(list[PlainChoices])
chat_request = msgspec.json.Decoder(ChatRequest)
stream_options = msgspec.json.Decoder(StreamOptions)
