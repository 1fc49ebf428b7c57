"""OpenAI, by its chat API or its Responses API."""

from __future__ import annotations

from asgi_aiproxy.dialects import OPENAI_CHAT, OPENAI_RESPONSES as RESPONSES_API
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.message_format import OPENAI_MESSAGES, message_format
from asgi_aiproxy.providers.operations import CHAT, COMPLETIONS, OPENAI_OPERATIONS, RESPONSES
from asgi_aiproxy.providers.transforms import new_limit, only_chat

OPENAI = Provider(
    name="openai",
    dialect=OPENAI_CHAT,
    base_url="https://api.openai.com/v1",
    native_operations=OPENAI_OPERATIONS | RESPONSES,
    transform_request=only_chat(new_limit, message_format(OPENAI_MESSAGES)),
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
