"""The supported vendors: one `Provider` each. `OPENAI.using("key")` is a copy with an API key."""

from __future__ import annotations

from asgi_aiproxy.providers.azure import azure
from asgi_aiproxy.providers.base import ModelOffer, Provider, Router, Target, bearer, header, query
from asgi_aiproxy.providers.bedrock import BedrockAuth, bedrock, bedrock_anthropic
from asgi_aiproxy.providers.catalog import (
    ANTHROPIC,
    CEREBRAS,
    COHERE,
    COZE,
    DEEPSEEK,
    FIREWORKS,
    GEMINI,
    GROQ,
    LMSTUDIO,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENAI_RESPONSES,
    OPENROUTER,
    PERPLEXITY,
    TOGETHER,
    VLLM,
    XAI,
    openai_compatible,
)
from asgi_aiproxy.providers.discovery import discover
from asgi_aiproxy.providers.sigv4 import SigV4
from asgi_aiproxy.providers.temporary_credentials import (
    Credential,
    CredentialCache,
    CredentialSource,
)
from asgi_aiproxy.providers.vertex import vertex, vertex_anthropic

__all__ = [
    "ANTHROPIC",
    "CEREBRAS",
    "COHERE",
    "COZE",
    "DEEPSEEK",
    "FIREWORKS",
    "GEMINI",
    "GROQ",
    "LMSTUDIO",
    "MISTRAL",
    "OLLAMA",
    "OPENAI",
    "OPENAI_RESPONSES",
    "OPENROUTER",
    "PERPLEXITY",
    "TOGETHER",
    "VLLM",
    "XAI",
    "BedrockAuth",
    "Credential",
    "CredentialCache",
    "CredentialSource",
    "ModelOffer",
    "Provider",
    "Router",
    "SigV4",
    "Target",
    "azure",
    "bearer",
    "bedrock",
    "bedrock_anthropic",
    "discover",
    "header",
    "openai_compatible",
    "query",
    "vertex",
    "vertex_anthropic",
]
