"""Hooks see, change, answer or refuse calls; guards are hooks that check texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use
from asgi_aiproxy.hooks.base import BeforeHook, Call, Hook
from asgi_aiproxy.hooks.chain import HookChain

if TYPE_CHECKING:
    from asgi_aiproxy.hooks.attachments import AttachmentGuard
    from asgi_aiproxy.hooks.findings import (
        TextFinder,
        TextMatch,
        find_exact,
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
    "AttachmentGuard",
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
    "find_exact",
    "find_personal_data",
    "find_secrets",
    "find_words",
    "regex_finder",
]

_HOME = {
    "AttachmentGuard": "attachments",
    "Judge": "judge",
    "JudgeGuard": "judge",
    "PromptMarkers": "prompt_markers",
    "TextFinder": "findings",
    "TextGuard": "text_guard",
    "TextMatch": "findings",
    "TextReplacements": "replacements",
    "TextRule": "replacements",
    "find_exact": "findings",
    "find_personal_data": "findings",
    "find_secrets": "findings",
    "find_words": "findings",
    "regex_finder": "findings",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
