"""The supported vendors: one `Provider` each. `OPENAI.using("key")` is a copy with an API key."""

from __future__ import annotations

from asgi_aiproxy.providers.azure import azure
from asgi_aiproxy.providers.base import ModelOffer, Provider, Router, Target, bearer, header, query
from asgi_aiproxy.providers.bedrock import BedrockAuth, bedrock
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
    "ModelOffer",
    "Provider",
    "Router",
    "SigV4",
    "Target",
    "azure",
    "bearer",
    "bedrock",
    "discover",
    "header",
    "openai_compatible",
    "query",
]
