"""Anthropic."""

from __future__ import annotations

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES
from asgi_aiproxy.providers.base import Provider, header
from asgi_aiproxy.providers.operations import MESSAGES

ANTHROPIC = Provider(
    name="anthropic",
    dialect=ANTHROPIC_MESSAGES,
    base_url="https://api.anthropic.com",
    auth=header("x-api-key"),
    headers={"anthropic-version": "2023-06-01"},
    native_operations=MESSAGES,
)
