"""Hooks see, change, answer or refuse calls; guards are hooks that check texts."""

from __future__ import annotations

from asgi_aiproxy.hooks.base import BeforeHook, Call, Hook, HookChain
from asgi_aiproxy.hooks.findings import (
    TextFinder,
    TextMatch,
    find_personal_data,
    find_secrets,
    find_words,
    regex_finder,
)
from asgi_aiproxy.hooks.judge import Judge, JudgeGuard
from asgi_aiproxy.hooks.prompt_markers import PromptMarkers
from asgi_aiproxy.hooks.replacements import TextReplacements, TextRule
from asgi_aiproxy.hooks.text_guard import TextGuard

__all__ = [
    "BeforeHook",
    "Call",
    "Hook",
    "HookChain",
    "Judge",
    "JudgeGuard",
    "PromptMarkers",
    "TextFinder",
    "TextGuard",
    "TextMatch",
    "TextReplacements",
    "TextRule",
    "find_personal_data",
    "find_secrets",
    "find_words",
    "regex_finder",
]
