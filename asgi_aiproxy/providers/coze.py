"""Coze."""

from __future__ import annotations

from asgi_aiproxy.dialects import COZE_CHAT
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.coze_credentials import CozeCredentials
from asgi_aiproxy.providers.temporary_credentials import CredentialCache

# https://www.coze.com/open/docs: models are the ids of bots. China: base_url https://api.coze.cn.
# A key is a personal access token, or an OAuth app (`CozeCredentials`).
COZE = Provider(
    name="coze",
    refusals=refusal_codes.COZE,
    dialect=COZE_CHAT,
    base_url="https://api.coze.com",
    credentials=CredentialCache(CozeCredentials()),
)
