"""All vendors. Importing this loads the dialects of all of them."""

from __future__ import annotations

from asgi_aiproxy.providers.anthropic import ANTHROPIC
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.chinese_vendors import ROWS as CHINESE_VENDORS
from asgi_aiproxy.providers.cohere import COHERE
from asgi_aiproxy.providers.compatible import ROWS as COMPATIBLE
from asgi_aiproxy.providers.coze import COZE
from asgi_aiproxy.providers.gemini import GEMINI
from asgi_aiproxy.providers.media import ROWS as MEDIA
from asgi_aiproxy.providers.model_hosts import ROWS as MODEL_HOSTS
from asgi_aiproxy.providers.openai import OPENAI, OPENAI_RESPONSES
from asgi_aiproxy.providers.openai_format import (
    CEREBRAS,
    DEEPSEEK,
    FIREWORKS,
    GROQ,
    MISTRAL,
    OPENROUTER,
    PERPLEXITY,
    TOGETHER,
    XAI,
)
from asgi_aiproxy.providers.self_hosted import (
    INFINITY,
    JAN,
    LLAMACPP,
    LMSTUDIO,
    LOCALAI,
    OLLAMA,
    SGLANG,
    TEI,
    TGI,
    VLLM,
    XINFERENCE,
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
    *CHINESE_VENDORS,
    *MODEL_HOSTS,
    *COMPATIBLE,
    *MEDIA,
    OLLAMA,
    VLLM,
    LMSTUDIO,
    LLAMACPP,
    TGI,
    SGLANG,
    JAN,
    LOCALAI,
    XINFERENCE,
    TEI,
    INFINITY,
)
