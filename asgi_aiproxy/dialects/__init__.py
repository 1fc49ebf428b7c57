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

from asgi_aiproxy.dialects.anthropic import Anthropic
from asgi_aiproxy.dialects.anthropic.hosted import HostedAnthropic
from asgi_aiproxy.dialects.base import (
    Dialect,
    InboundDialect,
    Operation,
    OutboundDialect,
    ProviderRequest,
)
from asgi_aiproxy.dialects.bedrock import Bedrock
from asgi_aiproxy.dialects.cohere import Cohere
from asgi_aiproxy.dialects.coze import Coze
from asgi_aiproxy.dialects.gemini import Gemini
from asgi_aiproxy.dialects.neutral import Neutral
from asgi_aiproxy.dialects.ollama import Ollama
from asgi_aiproxy.dialects.openai_chat import OpenAIChat
from asgi_aiproxy.dialects.openai_completions import OpenAICompletions
from asgi_aiproxy.dialects.openai_responses import OpenAIResponses
from asgi_aiproxy.dialects.openai_responses.compaction import OpenAICompaction

OPENAI_CHAT = OpenAIChat()
OPENAI_COMPLETIONS = OpenAICompletions()
OPENAI_RESPONSES = OpenAIResponses()
OPENAI_COMPACTION = OpenAICompaction()
ANTHROPIC_MESSAGES = Anthropic()
HOSTED_ANTHROPIC = HostedAnthropic()
GEMINI_CONTENT = Gemini()
OLLAMA_CHAT = Ollama()
NEUTRAL = Neutral()
COHERE_CHAT = Cohere()
BEDROCK_CONVERSE = Bedrock()
COZE_CHAT = Coze()

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
