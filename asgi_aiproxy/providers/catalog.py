"""One row a vendor, and beside it the functions that heed its quirks.

Addresses and quirks are from the vendors' API references; what their answers get wrong is put right
by `exact=False`, see `dialects/openai_chat/mend.py`.
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
from asgi_aiproxy.dialects.base import Draft
from asgi_aiproxy.providers import refusals
from asgi_aiproxy.providers.base import Amend, Provider, header
from asgi_aiproxy.providers.operations import (
    AUDIO,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    OPENAI_OPERATIONS,
    RESPONSES,
)


def renamed(**names: str) -> Amend:
    """Members of the body get other names, unless the other is there and says something."""

    def amend(draft: Draft) -> Draft:
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


def without(*names: str, reported: bool = True) -> Amend:
    """Members that the vendor refuses are left out; and reported, unless they ask for nothing."""
    unwanted = frozenset(names)

    def amend(draft: Draft) -> Draft:
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


def roles(**others: str) -> Amend:
    """Messages of roles that the vendor refuses get another one. (All else of them stays as is.)"""
    written = {f'"{old}"'.encode(): msgspec.Raw(f'"{new}"'.encode()) for old, new in others.items()}

    def amend(draft: Draft) -> Draft:
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


def both(*amends: Amend) -> Amend:
    """One after the other."""

    def amend(draft: Draft) -> Draft:
        for step in amends:
            draft = step(draft)
        return draft

    return amend


def of_chat(amend: Amend) -> Amend:
    """For chat completions only."""

    def amended(draft: Draft) -> Draft:
        return amend(draft) if draft.path == "/chat/completions" else draft

    return amended


# OpenAI's name for the limit since the o-series, which refuses the old one (legacy completions know
# only the old one); most others know only the old one.
new_limit = of_chat(renamed(max_tokens="max_completion_tokens"))
old_limit = renamed(max_completion_tokens="max_tokens")
# OpenAI's word for `system` since the o-series. Others refuse it, or have chat templates that drop
# such messages; `system` is taken everywhere.
old_role = of_chat(roles(developer="system"))
of_old = both(old_limit, old_role)


def beside_own_api(draft: Draft) -> Draft:
    """Ollama serves OpenAI's operations under /v1, beside its own API."""
    if draft.path.startswith("/api/"):
        return draft
    return msgspec.structs.replace(draft, path="/v1" + draft.path)


OPENAI = Provider(
    name="openai",
    dialect=OPENAI_CHAT,
    base_url="https://api.openai.com/v1",
    native=OPENAI_OPERATIONS | RESPONSES,
    amend=new_limit,
)
# Chat becomes a call of the Responses API: for models that are served there only, and for other
# vendors that speak it.
OPENAI_RESPONSES = Provider(
    name="openai-responses",
    dialect=RESPONSES_API,
    base_url="https://api.openai.com/v1",
    native=(OPENAI_OPERATIONS - CHAT - COMPLETIONS) | RESPONSES,
    exact=False,
)
ANTHROPIC = Provider(
    name="anthropic",
    dialect=ANTHROPIC_MESSAGES,
    base_url="https://api.anthropic.com",
    auth=header("x-api-key"),
    headers={"anthropic-version": "2023-06-01"},
    native=frozenset({"messages"}),
)
GEMINI = Provider(
    name="gemini",
    dialect=GEMINI_CONTENT,
    base_url="https://generativelanguage.googleapis.com",
    auth=header("x-goog-api-key"),
    native=frozenset({"generateContent"}),
)
MISTRAL = Provider(
    name="mistral",
    refusals=refusals.MISTRAL,
    dialect=OPENAI_CHAT,
    base_url="https://api.mistral.ai/v1",
    native=CHAT | EMBEDDINGS,
    exact=False,
    amend=both(
        of_old,
        renamed(seed="random_seed"),
        # Mistral refuses members it does not know; its last chunk tells usage unasked.
        without("stream_options", reported=False),
        without("user", "store"),
    ),
)
GROQ = Provider(
    name="groq",
    refusals=refusals.GROQ,
    dialect=OPENAI_CHAT,
    base_url="https://api.groq.com/openai/v1",
    native=CHAT | AUDIO,
    exact=False,
    amend=old_role,
)
DEEPSEEK = Provider(
    name="deepseek",
    refusals=refusals.DEEPSEEK,
    dialect=OPENAI_CHAT,
    base_url="https://api.deepseek.com",
    native=CHAT,
    exact=False,
    amend=of_old,
)
XAI = Provider(
    name="xai",
    refusals=refusals.XAI,
    dialect=OPENAI_CHAT,
    base_url="https://api.x.ai/v1",
    native=CHAT | COMPLETIONS | EMBEDDINGS | frozenset({"images.generations"}),
    exact=False,
)
OPENROUTER = Provider(
    name="openrouter",
    refusals=refusals.OPENROUTER,
    dialect=OPENAI_CHAT,
    base_url="https://openrouter.ai/api/v1",
    native=CHAT | COMPLETIONS | EMBEDDINGS,
    exact=False,
)
TOGETHER = Provider(
    name="together",
    refusals=refusals.TOGETHER,
    dialect=OPENAI_CHAT,
    base_url="https://api.together.xyz/v1",
    native=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | frozenset({"images.generations"}),
    exact=False,
    amend=of_old,
)
FIREWORKS = Provider(
    name="fireworks",
    refusals=refusals.FIREWORKS,
    dialect=OPENAI_CHAT,
    base_url="https://api.fireworks.ai/inference/v1",
    native=CHAT | COMPLETIONS | EMBEDDINGS,
    exact=False,
    amend=of_old,
)
PERPLEXITY = Provider(
    name="perplexity",
    refusals=refusals.PERPLEXITY,
    dialect=OPENAI_CHAT,
    base_url="https://api.perplexity.ai",
    native=CHAT,
    exact=False,
    amend=of_old,
)
CEREBRAS = Provider(
    name="cerebras",
    refusals=refusals.CEREBRAS,
    dialect=OPENAI_CHAT,
    base_url="https://api.cerebras.ai/v1",
    native=CHAT | COMPLETIONS,
    exact=False,
    amend=old_role,
)
OLLAMA = Provider(
    name="ollama",
    dialect=OLLAMA_CHAT,
    base_url="http://127.0.0.1:11434",
    native=COMPLETIONS | EMBEDDINGS,
    amend=beside_own_api,
)
VLLM = Provider(
    name="vllm",
    refusals=refusals.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8000/v1",
    native=OPENAI_OPERATIONS,
    exact=False,
    amend=of_old,
)
LMSTUDIO = Provider(
    name="lmstudio",
    refusals=refusals.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:1234/v1",
    native=CHAT | COMPLETIONS | EMBEDDINGS,
    exact=False,
    amend=of_old,
)


def openai_compatible(base_url: str, *, name: str = "openai-compatible") -> Provider:
    """Any server that speaks OpenAI's format, more or less; `base_url` mostly ends in `/v1`."""
    return Provider(
        name=name,
        dialect=OPENAI_CHAT,
        base_url=base_url,
        native=OPENAI_OPERATIONS,
        exact=False,
        amend=of_old,
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
