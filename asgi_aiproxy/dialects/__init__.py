"""The API formats of AI vendors. Pure: no I/O, no framework, usable alone.

A dialect reads and writes one vendor API. Requests and responses of every dialect are converted
to and from the neutral types of `asgi_aiproxy.messages`, so n dialects need 2n converters.

Each dialect is a package with the same modules:

- `schemas`: the typed request bodies and the frequent stream events;
- `requests`: client request -> neutral `Request` (we are the server);
- `request_encoder`: neutral `Request` -> provider request (we are the client);
- `responses`: whole responses and usage, both directions;
- `streams`: `Decoder`, provider stream -> neutral events;
- `stream_encoder`: `Encoder`, neutral events -> client stream;
- `native_stream`: responses that pass through without conversion;
- `errors`: error bodies, both directions;
- `token_count`: this operation, both directions, where the API has it.

Operations besides chat are in `asgi_aiproxy.operations`.

`_parsing`, `_blocks`, `_json_schema`, `_media` and `_unsupported` are shared by all, `_claude` by
platforms that serve Claude models, `_event_stream` by Amazon's APIs. `neutral` is the API of calls
within the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use
from asgi_aiproxy.dialects.base import (
    Dialect,
    InboundDialect,
    Operation,
    OutboundDialect,
    ProviderRequest,
)

if TYPE_CHECKING:
    from asgi_aiproxy.dialects.anthropic import ANTHROPIC_MESSAGES, Anthropic
    from asgi_aiproxy.dialects.anthropic.hosted import HOSTED_ANTHROPIC, HostedAnthropic
    from asgi_aiproxy.dialects.bedrock import BEDROCK_CONVERSE, Bedrock
    from asgi_aiproxy.dialects.cohere import COHERE_CHAT, Cohere
    from asgi_aiproxy.dialects.coze import COZE_CHAT, Coze
    from asgi_aiproxy.dialects.gemini import GEMINI_CONTENT, Gemini
    from asgi_aiproxy.dialects.neutral import NEUTRAL, Neutral
    from asgi_aiproxy.dialects.ollama import OLLAMA_CHAT, Ollama
    from asgi_aiproxy.dialects.openai_chat import OPENAI_CHAT, OpenAIChat
    from asgi_aiproxy.dialects.openai_completions import OPENAI_COMPLETIONS, OpenAICompletions
    from asgi_aiproxy.dialects.openai_responses import OPENAI_RESPONSES, OpenAIResponses
    from asgi_aiproxy.dialects.openai_responses.compaction import (
        OPENAI_COMPACTION,
        OpenAICompaction,
    )

__all__ = [
    "ANTHROPIC_MESSAGES",
    "BEDROCK_CONVERSE",
    "COHERE_CHAT",
    "COZE_CHAT",
    "GEMINI_CONTENT",
    "HOSTED_ANTHROPIC",
    "NEUTRAL",
    "OLLAMA_CHAT",
    "OPENAI_CHAT",
    "OPENAI_COMPACTION",
    "OPENAI_COMPLETIONS",
    "OPENAI_RESPONSES",
    "Anthropic",
    "Bedrock",
    "Cohere",
    "Coze",
    "Dialect",
    "Gemini",
    "HostedAnthropic",
    "InboundDialect",
    "Neutral",
    "Ollama",
    "OpenAIChat",
    "OpenAICompaction",
    "OpenAICompletions",
    "OpenAIResponses",
    "Operation",
    "OutboundDialect",
    "ProviderRequest",
]

_HOME = {
    "ANTHROPIC_MESSAGES": "anthropic",
    "Anthropic": "anthropic",
    "BEDROCK_CONVERSE": "bedrock",
    "Bedrock": "bedrock",
    "COHERE_CHAT": "cohere",
    "COZE_CHAT": "coze",
    "Cohere": "cohere",
    "Coze": "coze",
    "GEMINI_CONTENT": "gemini",
    "Gemini": "gemini",
    "HOSTED_ANTHROPIC": "anthropic.hosted",
    "HostedAnthropic": "anthropic.hosted",
    "NEUTRAL": "neutral",
    "Neutral": "neutral",
    "OLLAMA_CHAT": "ollama",
    "OPENAI_CHAT": "openai_chat",
    "OPENAI_COMPACTION": "openai_responses.compaction",
    "OPENAI_COMPLETIONS": "openai_completions",
    "OPENAI_RESPONSES": "openai_responses",
    "Ollama": "ollama",
    "OpenAIChat": "openai_chat",
    "OpenAICompaction": "openai_responses.compaction",
    "OpenAICompletions": "openai_completions",
    "OpenAIResponses": "openai_responses",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
