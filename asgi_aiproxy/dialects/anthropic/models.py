"""What differs between Claude models, read off their names.

https://platform.claude.com/docs/en/about-claude/models/migration-guide
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2}))?(?!\d)")


def version(model: str) -> tuple[int, int]:
    """The generation of a Claude model; (0, 0) for a name that tells none."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def default_max_tokens(model: str) -> int:
    """Anthropic wants a limit; the one given where the caller has none is what the model can."""
    generation = version(model)
    if generation >= (3, 7):
        return 32_000
    if (3, 0) <= generation < (3, 5):
        return 4_096
    return 8_192


def takes_sampling(model: str) -> bool:
    """From Opus 4.7 on, temperature, top_p and top_k are refused."""
    return version(model) < (4, 7)


def takes_both_samplings(model: str) -> bool:
    """From Opus 4.1 on, temperature and top_p exclude each other."""
    return version(model) < (4, 1)


def thinks_adaptively(model: str) -> bool:
    """From 4.6 on, thinking has an effort; before, a budget in tokens."""
    return version(model) >= (4, 6)


def takes_strict_tools(model: str) -> bool:
    """Strict tool use came with the 4.5 generation."""
    return version(model) >= (4, 5)
