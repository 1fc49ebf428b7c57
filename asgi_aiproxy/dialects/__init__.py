"""The languages of AI APIs. Pure: no I/O, no framework, usable alone."""

from __future__ import annotations

from asgi_aiproxy.dialects.anthropic import Anthropic
from asgi_aiproxy.dialects.base import (
    Dialect,
    InboundDialect,
    Operation,
    OutboundDialect,
    ProviderRequest,
)
from asgi_aiproxy.dialects.gemini import Gemini
from asgi_aiproxy.dialects.ollama import Ollama
from asgi_aiproxy.dialects.openai_chat import OpenAIChat
from asgi_aiproxy.dialects.openai_completions import OpenAICompletions
from asgi_aiproxy.dialects.openai_responses import OpenAIResponses

OPENAI_CHAT = OpenAIChat()
OPENAI_COMPLETIONS = OpenAICompletions()
OPENAI_RESPONSES = OpenAIResponses()
ANTHROPIC_MESSAGES = Anthropic()
GEMINI_CONTENT = Gemini()
OLLAMA_CHAT = Ollama()

__all__ = [
    "ANTHROPIC_MESSAGES",
    "GEMINI_CONTENT",
    "OLLAMA_CHAT",
    "OPENAI_CHAT",
    "OPENAI_COMPLETIONS",
    "OPENAI_RESPONSES",
    "Anthropic",
    "Dialect",
    "Gemini",
    "InboundDialect",
    "Ollama",
    "OpenAIChat",
    "OpenAICompletions",
    "OpenAIResponses",
    "Operation",
    "OutboundDialect",
    "ProviderRequest",
]
