# ruff: noqa: E501 (a row a line)
"""What happens to each member of a chat request at each target: the table in docs/errors.md.

The real translations are used: a request with one additional member is encoded for every target,
and the result is compared with the same request without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import OPENAI_CHAT, Operation
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.providers import (
    ANTHROPIC,
    COHERE,
    COZE,
    DEEPSEEK,
    GEMINI,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENAI_RESPONSES,
    Provider,
    bedrock,
    openai_compatible,
)

CHAT = Operation("chat.completions", "/chat/completions", chat=True)
PNG, GIF, PDF = "iVBORw0KGgo=", "R0lGODlhAQABAIAAAAAA", "JVBERi0xLjQK"
HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
BOUND = {**SCHEMA, "properties": {"n": {"type": "string", "pattern": "^a"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = [HI, {"role": "assistant", "tool_calls": [CALL]}]

# Columns: a target, and a model there. The newest, and one of an older generation.
TARGETS: list[tuple[str, Provider, str]] = [
    ("Anthropic", ANTHROPIC, "claude-opus-latest"),
    ("Anthropic, Sonnet 4", ANTHROPIC, "claude-sonnet-4-0"),
    ("Gemini", GEMINI, "gemini-flash-latest"),
    ("Gemini 2.5 Flash", GEMINI, "gemini-2.5-flash"),
    ("Ollama", OLLAMA, "llama3.2"),
    ("Bedrock, Claude", bedrock("us-east-1"), "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("Bedrock, Nova", bedrock("us-east-1"), "us.amazon.nova-2-lite-v1:0"),
    ("Cohere", COHERE, "command-a-03-2025"),
    ("Coze", COZE, "7379462189365198898"),
    ("OpenAI, Responses", OPENAI_RESPONSES, "gpt-5"),
    ("OpenAI", OPENAI, "gpt-5"),
    ("Mistral", MISTRAL, "mistral-large-latest"),
    ("DeepSeek", DEEPSEEK, "deepseek-chat"),
    ("openai-compatible", openai_compatible("http://127.0.0.1:8000/v1"), "llama3.2"),
]


def shown(kind: str, value: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: value}]}]}


def data(media_type: str, content: str) -> dict[str, str]:
    return {"url": f"data:{media_type};base64,{content}"}


def formed(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, **more}}


def bounded(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": BOUND, **more}}


# Rows: what stands in the table, the members that are added, and those that are there anyway.
Members = dict[str, Any]
ROWS: list[tuple[str, Members, Members]] = [
    ("`messages`: `system`, at the beginning", {"messages": [{"role": "system", "content": "A"}, HI]}, {}),
    ("`messages`: `developer`, at the beginning", {"messages": [{"role": "developer", "content": "A"}, HI]}, {}),
    ("`messages`: `system` in mid-conversation", {"messages": [HI, {"role": "system", "content": "A"}, HI]}, {}),
    ("`messages`: `name`", {"messages": [{**HI, "name": "ann"}]}, {}),
    ("`messages`: the assistant's `images`", {"messages": [HI, {"role": "assistant", "content": "So.", "images": [{"image_url": data("image/png", PNG)}]}, HI]}, {"messages": [HI, {"role": "assistant", "content": "So."}, HI]}),
    ("`messages`: `tool_calls`", {"messages": CALLED}, {}),
    ("`messages`: `tool` results", {"messages": [*CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "1"}]}, {"messages": CALLED}),
    ("`image_url`: PNG", shown("image_url", data("image/png", PNG)), {}),
    ("`image_url`: GIF", shown("image_url", data("image/gif", GIF)), {}),
    ("`image_url`: a link", shown("image_url", {"url": "https://a.example/a.png"}), {}),
    ("`image_url`: `detail`", shown("image_url", {**data("image/png", PNG), "detail": "low"}), shown("image_url", data("image/png", PNG))),
    ("`input_audio`", shown("input_audio", {"data": "AAAA", "format": "wav"}), {}),
    ("`video_url`", shown("video_url", {"url": "https://a.example/a.mp4"}), {}),
    ("`file`: PDF", shown("file", {"file_data": data("application/pdf", PDF)["url"], "filename": "a.pdf"}), {}),
    ("`cache_control` on a part", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]}, {}),
    ("`max_completion_tokens`", {"max_completion_tokens": 4000}, {}),
    ("`max_tokens`", {"max_tokens": 4000}, {}),
    ("`temperature`: 0.5", {"temperature": 0.5}, {}),
    ("`temperature`: 1.5", {"temperature": 1.5}, {}),
    ("`top_p`", {"top_p": 0.5}, {}),
    ("`top_k`", {"top_k": 5}, {}),
    ("`stop`", {"stop": ["END"]}, {}),
    ("`seed`", {"seed": 7}, {}),
    ("`presence_penalty`", {"presence_penalty": 0.5}, {}),
    ("`frequency_penalty`", {"frequency_penalty": 0.5}, {}),
    ("`logit_bias`", {"logit_bias": {"1": 1}}, {}),
    ("`logprobs`", {"logprobs": True}, {}),
    ("`top_logprobs`", {"top_logprobs": 2}, {}),
    ("`n`: 2", {"n": 2}, {}),
    ("`user`", {"user": "u1"}, {}),
    ("`metadata`", {"metadata": {"a": "b"}}, {}),
    ("`store`", {"store": True}, {}),
    ("`service_tier`", {"service_tier": "flex"}, {}),
    ("`verbosity`", {"verbosity": "low"}, {}),
    ("`modalities`: audio", {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, {}),
    ("`prediction`", {"prediction": {"type": "content", "content": "Hi"}}, {}),
    ("`reasoning_effort`: high", {"reasoning_effort": "high"}, {}),
    ("`reasoning_effort`: minimal", {"reasoning_effort": "minimal"}, {}),
    ("`reasoning_effort`: none", {"reasoning_effort": "none"}, {}),
    ("`response_format`: `json_object`", {"response_format": {"type": "json_object"}}, {}),
    ("`response_format`: `json_schema`", {"response_format": formed(SCHEMA)}, {}),
    ("… with a `pattern`", {"response_format": formed(BOUND)}, {}),
    ("`response_format` beside `tools`", {"response_format": formed(SCHEMA)}, {"tools": [TOOL]}),
    ("`tools`", {"tools": [TOOL]}, {}),
    ("… with a `pattern`", {"tools": [bounded()]}, {"tools": [TOOL]}),
    ("… with `strict`", {"tools": [{"type": "function", "function": {**TOOL["function"], "strict": True}}]}, {"tools": [TOOL]}),  # type: ignore[dict-item]
    ("… of type `custom`", {"tools": [{"type": "custom", "custom": {"name": "sh"}}]}, {}),
    ("`tool_choice`: none", {"tool_choice": "none"}, {"tools": [TOOL]}),
    ("`tool_choice`: required", {"tool_choice": "required"}, {"tools": [TOOL]}),
    ("`tool_choice`: a function", {"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"tools": [TOOL]}),
    ("`parallel_tool_calls`: false", {"parallel_tool_calls": False}, {"tools": [TOOL]}),
    ("any other member", {"x_unknown": 1}, {}),
]  # fmt: skip


def write(provider: Provider, model: str, members: Members) -> ProviderRequest:
    """Encode a chat request for a provider. Raises APIError."""
    body = json.dumps({"model": model, "messages": [HI], **members}).encode()
    language: OutboundDialect = provider.dialect
    if CHAT.name in provider.native_operations:
        fields = OPENAI_CHAT.summarize(CHAT, body).fields
        draft = OPENAI_CHAT.native_request(CHAT, model, fields, stream=False)
    else:
        draft = language.encode_request(OPENAI_CHAT.decode_request(CHAT, body))
    return provider.transform_request(draft)


def sent(draft: ProviderRequest) -> Any:
    """The body as the vendor reads it."""
    return json.loads(_json.dumps(draft.body))


def fate(provider: Provider, model: str, members: Members, anyway: Members) -> str:
    """What happens to some members: carried, reported under a name, refused, or left out."""
    try:
        before = sent(write(provider, model, anyway))
        draft = write(provider, model, anyway | members)
    except APIError as error:
        return f"refused: `{error.param}`" if error.param else "refused"
    if draft.ignored:
        # A pipe would end the cell.
        return "reported: " + ", ".join(f"`{name}`" for name in draft.ignored)
    after = sent(draft)
    if before == after:
        return "left out"
    if all(after.get(name) == value for name, value in (anyway | members).items()):
        return "as it is" if CHAT.name in provider.native_operations else "carried"
    return "carried"


def table() -> str:
    """The table in Markdown."""

    def lines() -> Iterator[str]:
        yield "| member | " + " | ".join(name for name, _, _ in TARGETS) + " |"
        yield "| --- |" + " --- |" * len(TARGETS)
        for label, members, anyway in ROWS:
            cells = [fate(provider, model, members, anyway) for _, provider, model in TARGETS]
            yield f"| {label} | " + " | ".join(cells) + " |"

    return "\n".join(lines())
