"""How much to think: a caller's wish in the words of one of Google's models.

https://ai.google.dev/gemini-api/docs/thinking; efforts as in .../docs/openai#thinking.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects.gemini.capabilities import Model
from asgi_aiproxy.messages import Thinking

_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}


def thinking_config(
    wish: Thinking, model: Model, limit: int | None
) -> tuple[dict[str, Any] | None, bool]:
    """The `thinkingConfig`, and whether it says what was wished.

    `limit` is the caller's limit of output tokens, which thoughts are part of: of what an effort
    word may take, the answer keeps a quarter.
    """
    if not model.thinks:
        return None, wish.effort == "none"
    shown = wish.summary is not False and wish.effort != "none"
    config: dict[str, Any] = {"includeThoughts": True} if shown else {}
    by_level = bool(model.levels) and (bool(wish.effort) or model.budget is None)
    if by_level and (wish.effort or wish.budget is not None):
        config["thinkingLevel"], exact = _level(wish, model)
        return config, exact
    if model.budget is None or not (wish.effort or wish.budget is not None):
        return config or None, True
    config["thinkingBudget"], exact = _budget(wish, model, model.budget, limit)
    return config, exact


def _level(wish: Thinking, model: Model) -> tuple[str, bool]:
    """The level that comes nearest: of two the higher one, but the least for none."""
    levels: tuple[str, ...] = model.levels
    word = wish.effort
    if not word:
        budget = wish.budget or 0
        word = "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"
        return (word if word in levels else levels[-1]), False
    if word in levels:
        return word, True
    if word in ("none", "minimal"):
        return levels[0], False
    return levels[-1], word in ("xhigh", "max")  # as much as there is


def _budget(
    wish: Thinking, model: Model, bounds: tuple[int, int], limit: int | None
) -> tuple[int, bool]:
    least, most = bounds
    if wish.effort == "none":
        return (0, True) if model.off else (least, False)
    if wish.budget is not None:  # 0 and -1 mean none, and as the model likes
        budget = wish.budget if wish.budget < 0 else max(least, min(wish.budget, most))
        budget = 0 if wish.budget == 0 and model.off else budget
        return budget, budget == wish.budget
    room = most if limit is None else min(most, limit - (limit + 3) // 4)
    if room < least:
        return (0 if model.off else least), False
    return max(least, min(_BUDGETS.get(wish.effort, most), room)), True
