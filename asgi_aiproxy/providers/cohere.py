"""Cohere."""

from __future__ import annotations

from asgi_aiproxy.dialects import COHERE_CHAT
from asgi_aiproxy.operations import COHERE_EMBEDDINGS, COHERE_RERANK
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.operations import RERANK

# https://docs.cohere.com/reference/chat
COHERE = Provider(
    name="cohere",
    refusals=refusal_codes.COHERE,
    dialect=COHERE_CHAT,
    base_url="https://api.cohere.com",
    native_operations=RERANK,
    operations=(COHERE_EMBEDDINGS, COHERE_RERANK),
)
