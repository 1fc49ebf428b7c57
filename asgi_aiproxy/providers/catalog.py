"""The vendors, one `Provider` each, and the request transformations for their quirks.

URLs and quirks are from the vendors' API references. Responses that deviate from the format are
normalized with `strict_format=False`, see `asgi_aiproxy.dialects.openai_chat.normalize`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    COHERE_CHAT,
    COZE_CHAT,
    GEMINI_CONTENT,
    OLLAMA_CHAT,
    OPENAI_CHAT,
    OPENAI_RESPONSES as RESPONSES_API,
)
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider, TransformRequest, header
from asgi_aiproxy.providers.operations import (
    AUDIO,
    CHAT,
    COMPLETIONS,
    EMBED_CONTENT,
    EMBEDDINGS,
    GENERATE_CONTENT,
    MESSAGES,
    OPENAI_OPERATIONS,
    RESPONSES,
)
from asgi_aiproxy.providers.signatures import drop_signatures


def rename_fields(**names: str) -> TransformRequest:
    """Rename members of the body (old=new), unless the new name already has a value."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if names.keys().isdisjoint(draft.body):
            return draft
        body = dict(draft.body)
        for old, new in names.items():
            if old in body:
                value = body.pop(old)
                if _is_null(body.get(new)):
                    body[new] = value
        return msgspec.structs.replace(draft, body=body)

    return transform


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def drop_fields(*names: str, reported: bool = True) -> TransformRequest:
    """Remove members that the vendor rejects. They are reported, unless they are null or false."""
    unwanted = frozenset(names)

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if unwanted.isdisjoint(draft.body):
            return draft
        body = {name: value for name, value in draft.body.items() if name not in unwanted}
        ignored = draft.ignored
        if reported:
            lost = [n for n in names if draft.body.get(n) not in (None, *_NO_EFFECT)]
            ignored = tuple(dict.fromkeys((*ignored, *lost)))
        return msgspec.structs.replace(draft, body=body, ignored=ignored)

    return transform


_NO_EFFECT = (False, msgspec.Raw(b"false"), msgspec.Raw(b"null"))


def roles(**others: str) -> TransformRequest:
    """Rename roles of messages that the vendor rejects (old=new)."""
    written = {f'"{old}"'.encode(): msgspec.Raw(f'"{new}"'.encode()) for old, new in others.items()}

    def transform(draft: ProviderRequest) -> ProviderRequest:
        sent = draft.body.get("messages")
        if not isinstance(sent, msgspec.Raw):
            return draft  # translated requests only have common roles
        encoded = bytes(sent)
        if not any(role in encoded for role in written):
            return draft
        try:
            messages = _messages(encoded)
        except msgspec.DecodeError:
            return draft  # the vendor reports the error
        for message in messages:
            role = bytes(message.get("role", b""))
            if role in written:
                message["role"] = written[role]
        return msgspec.structs.replace(draft, body={**draft.body, "messages": messages})

    return transform


_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def chain(*transforms: TransformRequest) -> TransformRequest:
    """Apply several transformations in order."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        for step in transforms:
            draft = step(draft)
        return draft

    return transform


def only_chat(transform: TransformRequest) -> TransformRequest:
    """Apply a transformation to chat completions only."""

    def transformed(draft: ProviderRequest) -> ProviderRequest:
        return transform(draft) if draft.path == "/chat/completions" else draft

    return transformed


# Since its o-series models OpenAI rejects `max_tokens` in chat requests (legacy completions have no
# other name); most other vendors only know `max_tokens`.
new_limit = only_chat(rename_fields(max_tokens="max_completion_tokens"))
old_limit = rename_fields(max_completion_tokens="max_tokens")
# OpenAI's name for `system` since its o-series models. Other vendors reject it, or have chat
# templates that drop such messages; `system` is accepted everywhere.
old_role = only_chat(roles(developer="system"))
older_format = chain(old_limit, old_role)
vendor_format = chain(older_format, drop_signatures)


def openai_api_under_v1(draft: ProviderRequest) -> ProviderRequest:
    """Ollama serves OpenAI's operations below /v1, next to its own API."""
    if draft.path.startswith("/api/"):
        return draft
    return msgspec.structs.replace(draft, path="/v1" + draft.path)


OPENAI = Provider(
    name="openai",
    dialect=OPENAI_CHAT,
    base_url="https://api.openai.com/v1",
    native_operations=OPENAI_OPERATIONS | RESPONSES,
    transform_request=chain(new_limit, drop_signatures),
)
# Chat requests are converted to the Responses API: for models that are only available there, and
# for other vendors with that API.
OPENAI_RESPONSES = Provider(
    name="openai-responses",
    dialect=RESPONSES_API,
    base_url="https://api.openai.com/v1",
    native_operations=(OPENAI_OPERATIONS - CHAT - COMPLETIONS) | RESPONSES,
    strict_format=False,
)
ANTHROPIC = Provider(
    name="anthropic",
    dialect=ANTHROPIC_MESSAGES,
    base_url="https://api.anthropic.com",
    auth=header("x-api-key"),
    headers={"anthropic-version": "2023-06-01"},
    native_operations=MESSAGES,
)
GEMINI = Provider(
    name="gemini",
    dialect=GEMINI_CONTENT,
    base_url="https://generativelanguage.googleapis.com",
    auth=header("x-goog-api-key"),
    native_operations=GENERATE_CONTENT | EMBED_CONTENT,
)
# https://docs.cohere.com/reference/chat
COHERE = Provider(
    name="cohere",
    refusals=refusal_codes.COHERE,
    dialect=COHERE_CHAT,
    base_url="https://api.cohere.com",
)
# https://www.coze.com/open/docs: models are the ids of bots. China: base_url https://api.coze.cn.
COZE = Provider(
    name="coze",
    refusals=refusal_codes.COZE,
    dialect=COZE_CHAT,
    base_url="https://api.coze.com",
)
MISTRAL = Provider(
    name="mistral",
    refusals=refusal_codes.MISTRAL,
    dialect=OPENAI_CHAT,
    base_url="https://api.mistral.ai/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=chain(
        vendor_format,
        rename_fields(seed="random_seed"),
        # Mistral rejects unknown members; its last chunk always has usage.
        drop_fields("stream_options", reported=False),
        drop_fields("user", "store"),
    ),
)
GROQ = Provider(
    name="groq",
    refusals=refusal_codes.GROQ,
    dialect=OPENAI_CHAT,
    base_url="https://api.groq.com/openai/v1",
    native_operations=CHAT | AUDIO,
    strict_format=False,
    transform_request=chain(old_role, drop_signatures),
)
DEEPSEEK = Provider(
    name="deepseek",
    refusals=refusal_codes.DEEPSEEK,
    dialect=OPENAI_CHAT,
    base_url="https://api.deepseek.com",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
XAI = Provider(
    name="xai",
    refusals=refusal_codes.XAI,
    dialect=OPENAI_CHAT,
    base_url="https://api.x.ai/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | frozenset({"images.generations"}),
    strict_format=False,
    transform_request=drop_signatures,
)
OPENROUTER = Provider(
    name="openrouter",
    refusals=refusal_codes.OPENROUTER,
    dialect=OPENAI_CHAT,
    base_url="https://openrouter.ai/api/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
)
TOGETHER = Provider(
    name="together",
    refusals=refusal_codes.TOGETHER,
    dialect=OPENAI_CHAT,
    base_url="https://api.together.xyz/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | frozenset({"images.generations"}),
    strict_format=False,
    transform_request=vendor_format,
)
FIREWORKS = Provider(
    name="fireworks",
    refusals=refusal_codes.FIREWORKS,
    dialect=OPENAI_CHAT,
    base_url="https://api.fireworks.ai/inference/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
PERPLEXITY = Provider(
    name="perplexity",
    refusals=refusal_codes.PERPLEXITY,
    dialect=OPENAI_CHAT,
    base_url="https://api.perplexity.ai",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
CEREBRAS = Provider(
    name="cerebras",
    refusals=refusal_codes.CEREBRAS,
    dialect=OPENAI_CHAT,
    base_url="https://api.cerebras.ai/v1",
    native_operations=CHAT | COMPLETIONS,
    strict_format=False,
    transform_request=chain(old_role, drop_signatures),
)
OLLAMA = Provider(
    name="ollama",
    dialect=OLLAMA_CHAT,
    base_url="http://127.0.0.1:11434",
    native_operations=COMPLETIONS | EMBEDDINGS,
    transform_request=openai_api_under_v1,
)
VLLM = Provider(
    name="vllm",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8000/v1",
    native_operations=OPENAI_OPERATIONS,
    strict_format=False,
    transform_request=older_format,
)
LMSTUDIO = Provider(
    name="lmstudio",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:1234/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=older_format,
)


def openai_compatible(base_url: str, *, name: str = "openai-compatible") -> Provider:
    """A server with an OpenAI-compatible API; `base_url` usually ends with `/v1`.

    Its responses are normalized. Raises ConfigurationError if `base_url` is invalid.
    """
    return Provider(
        name=name,
        dialect=OPENAI_CHAT,
        base_url=base_url,
        native_operations=OPENAI_OPERATIONS,
        strict_format=False,
        transform_request=older_format,
    )


ROWS: tuple[Provider, ...] = (
    OPENAI,
    OPENAI_RESPONSES,
    ANTHROPIC,
    GEMINI,
    COHERE,
    COZE,
    MISTRAL,
    GROQ,
    DEEPSEEK,
    XAI,
    OPENROUTER,
    TOGETHER,
    FIREWORKS,
    PERPLEXITY,
    CEREBRAS,
    OLLAMA,
    VLLM,
    LMSTUDIO,
)
