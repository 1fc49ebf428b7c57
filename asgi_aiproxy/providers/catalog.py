"""One row a vendor, and beside it the functions that heed its quirks.

Addresses and quirks are from the vendors' API references; what their answers get wrong is put right
by `strict_format=False`, see `dialects/openai_chat/normalize.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
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
    EMBEDDINGS,
    OPENAI_OPERATIONS,
    RESPONSES,
)


def rename_fields(**names: str) -> TransformRequest:
    """Members of the body get other names, unless the other is there and says something."""

    def amend(draft: ProviderRequest) -> ProviderRequest:
        if names.keys().isdisjoint(draft.body):
            return draft
        body = dict(draft.body)
        for old, new in names.items():
            if old in body:
                value = body.pop(old)
                if _unsaid(body.get(new)):
                    body[new] = value
        return msgspec.structs.replace(draft, body=body)

    return amend


def _unsaid(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def drop_fields(*names: str, reported: bool = True) -> TransformRequest:
    """Members that the vendor refuses are left out; and reported, unless they ask for nothing."""
    unwanted = frozenset(names)

    def amend(draft: ProviderRequest) -> ProviderRequest:
        if unwanted.isdisjoint(draft.body):
            return draft
        body = {name: value for name, value in draft.body.items() if name not in unwanted}
        ignored = draft.ignored
        if reported:
            lost = [n for n in names if draft.body.get(n) not in (None, *_NOTHING)]
            ignored = tuple(dict.fromkeys((*ignored, *lost)))
        return msgspec.structs.replace(draft, body=body, ignored=ignored)

    return amend


_NOTHING = (False, msgspec.Raw(b"false"), msgspec.Raw(b"null"))


def roles(**others: str) -> TransformRequest:
    """Messages of roles that the vendor refuses get another one. (All else of them stays as is.)"""
    written = {f'"{old}"'.encode(): msgspec.Raw(f'"{new}"'.encode()) for old, new in others.items()}

    def amend(draft: ProviderRequest) -> ProviderRequest:
        sent = draft.body.get("messages")
        if not isinstance(sent, msgspec.Raw):
            return draft  # written by us, in roles that all know
        encoded = bytes(sent)
        if not any(role in encoded for role in written):
            return draft
        try:
            messages = _messages(encoded)
        except msgspec.DecodeError:
            return draft  # the vendor says what is wrong
        for message in messages:
            role = bytes(message.get("role", b""))
            if role in written:
                message["role"] = written[role]
        return msgspec.structs.replace(draft, body={**draft.body, "messages": messages})

    return amend


_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def chain(*amends: TransformRequest) -> TransformRequest:
    """One after the other."""

    def amend(draft: ProviderRequest) -> ProviderRequest:
        for step in amends:
            draft = step(draft)
        return draft

    return amend


def only_chat(amend: TransformRequest) -> TransformRequest:
    """For chat completions only."""

    def amended(draft: ProviderRequest) -> ProviderRequest:
        return amend(draft) if draft.path == "/chat/completions" else draft

    return amended


# OpenAI's name for the limit since the o-series, which refuses the old one (legacy completions know
# only the old one); most others know only the old one.
new_limit = only_chat(rename_fields(max_tokens="max_completion_tokens"))
old_limit = rename_fields(max_completion_tokens="max_tokens")
# OpenAI's word for `system` since the o-series. Others refuse it, or have chat templates that drop
# such messages; `system` is taken everywhere.
old_role = only_chat(roles(developer="system"))
of_old = chain(old_limit, old_role)


def openai_api_under_v1(draft: ProviderRequest) -> ProviderRequest:
    """Ollama serves OpenAI's operations under /v1, beside its own API."""
    if draft.path.startswith("/api/"):
        return draft
    return msgspec.structs.replace(draft, path="/v1" + draft.path)


OPENAI = Provider(
    name="openai",
    dialect=OPENAI_CHAT,
    base_url="https://api.openai.com/v1",
    native_operations=OPENAI_OPERATIONS | RESPONSES,
    transform_request=new_limit,
)
# Chat becomes a call of the Responses API: for models that are served there only, and for other
# vendors that speak it.
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
    native_operations=frozenset({"messages"}),
)
GEMINI = Provider(
    name="gemini",
    dialect=GEMINI_CONTENT,
    base_url="https://generativelanguage.googleapis.com",
    auth=header("x-goog-api-key"),
    native_operations=frozenset({"generateContent"}),
)
MISTRAL = Provider(
    name="mistral",
    refusals=refusal_codes.MISTRAL,
    dialect=OPENAI_CHAT,
    base_url="https://api.mistral.ai/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=chain(
        of_old,
        rename_fields(seed="random_seed"),
        # Mistral refuses members it does not know; its last chunk tells usage unasked.
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
    transform_request=old_role,
)
DEEPSEEK = Provider(
    name="deepseek",
    refusals=refusal_codes.DEEPSEEK,
    dialect=OPENAI_CHAT,
    base_url="https://api.deepseek.com",
    native_operations=CHAT,
    strict_format=False,
    transform_request=of_old,
)
XAI = Provider(
    name="xai",
    refusals=refusal_codes.XAI,
    dialect=OPENAI_CHAT,
    base_url="https://api.x.ai/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | frozenset({"images.generations"}),
    strict_format=False,
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
    transform_request=of_old,
)
FIREWORKS = Provider(
    name="fireworks",
    refusals=refusal_codes.FIREWORKS,
    dialect=OPENAI_CHAT,
    base_url="https://api.fireworks.ai/inference/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=of_old,
)
PERPLEXITY = Provider(
    name="perplexity",
    refusals=refusal_codes.PERPLEXITY,
    dialect=OPENAI_CHAT,
    base_url="https://api.perplexity.ai",
    native_operations=CHAT,
    strict_format=False,
    transform_request=of_old,
)
CEREBRAS = Provider(
    name="cerebras",
    refusals=refusal_codes.CEREBRAS,
    dialect=OPENAI_CHAT,
    base_url="https://api.cerebras.ai/v1",
    native_operations=CHAT | COMPLETIONS,
    strict_format=False,
    transform_request=old_role,
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
    transform_request=of_old,
)
LMSTUDIO = Provider(
    name="lmstudio",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:1234/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=of_old,
)


def openai_compatible(base_url: str, *, name: str = "openai-compatible") -> Provider:
    """Any server that speaks OpenAI's format, more or less; `base_url` mostly ends in `/v1`."""
    return Provider(
        name=name,
        dialect=OPENAI_CHAT,
        base_url=base_url,
        native_operations=OPENAI_OPERATIONS,
        strict_format=False,
        transform_request=of_old,
    )


ROWS: tuple[Provider, ...] = (
    OPENAI,
    OPENAI_RESPONSES,
    ANTHROPIC,
    GEMINI,
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
