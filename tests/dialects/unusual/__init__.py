"""Odd but legal answers of vendors, each with its meaning. `tests/dialects/test_unusual.py` reads
them through every client API.

They are written by hand from vendors' references and from public reports of gateways that failed
on them; one module a dialect.
"""

from __future__ import annotations

from tests.dialects.unusual import (
    anthropic,
    bedrock,
    cohere,
    coze,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
)
from tests.dialects.unusual.case import Case

CASES: list[Case] = [
    case
    for module in (
        *(openai_chat, openai_responses, anthropic, gemini, ollama),
        *(cohere, bedrock, coze),
    )
    for case in module.CASES
]

__all__ = ["CASES", "Case"]
