"""Writes questions to ChatGPT's web site."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._unsupported import (
    chosen_by_service,
    unsupported_fields,
    vendor_fields,
)
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.messages import Message, Refusal, Request, Text, new_messages

NAME = "chatgpt_web"
_PATH = "/backend-api/conversation"


def encode_request(request: Request) -> ProviderRequest:
    """Write a request. Raises APIError without any text."""
    own = vendor_fields(request, {NAME}).get(NAME)
    ids = own if isinstance(own, dict) else {}
    conversation = _parsing.get_text(ids, "conversation_id")
    messages = new_messages(request.messages) if conversation else request.messages
    ignored = chosen_by_service(request)
    if request.tool_choice is not None:
        ignored.append("tool_choice")
    ignored += unsupported_fields(request, NAME, known={NAME})
    rows = list(_rows(messages, ignored))
    if not rows:
        raise _parsing.empty_messages_error()
    parent = _parsing.get_text(ids, "last_message_id") or _parsing.get_text(
        ids, "parent_message_id"
    )
    body: dict[str, Any] = {
        "action": "next",
        "messages": rows,
        "parent_message_id": parent or str(uuid.uuid4()),
        "model": request.model,
        "timezone_offset_min": 0,
        "suggestions": [],
        "history_and_training_disabled": False,
        "conversation_mode": {"kind": "primary_assistant"},
        "force_paragen": False,
        "force_paragen_model_slug": "",
        "force_nulligen": False,
        "force_rate_limit": False,
        "websocket_request_id": str(uuid.uuid4()),
    }
    if conversation:
        body["conversation_id"] = conversation
    headers = {"accept": "text/event-stream"}
    return ProviderRequest(_PATH, body, headers=headers, ignored=tuple(dict.fromkeys(ignored)))


def _rows(messages: Sequence[Message], ignored: list[str]) -> Iterator[dict[str, Any]]:
    for message in messages:
        texts = [part.text for part in message.parts if isinstance(part, Text | Refusal)]
        if len(texts) < len(message.parts):
            ignored.append("messages[].content")
        text = "\n".join(text for text in texts if text)
        if text:
            yield {
                "id": str(uuid.uuid4()),
                "author": {"role": message.role},
                "content": {"content_type": "text", "parts": [text]},
                "metadata": {},
            }
