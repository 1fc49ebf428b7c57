"""Writes the caller's reasoning options as parameters of one of Google's models.

https://ai.google.dev/gemini-api/docs/thinking; efforts as in .../docs/openai#thinking.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects.gemini.capabilities import Model
from asgi_aiproxy.messages import Thinking

_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}


def thinking_config(
    options: Thinking, model: Model, limit: int | None
) -> tuple[dict[str, Any] | None, bool]:
    """Return the `thinkingConfig`, and whether it expresses the options exactly.

    `limit` is the caller's limit of output tokens, which includes reasoning: a quarter of it is
    reserved for the answer when an effort is converted to a budget.
    """
    if not model.thinks:
        return None, options.effort == "none"
    shown = options.summary is not False and options.effort != "none"
    config: dict[str, Any] = {"includeThoughts": True} if shown else {}
    by_level = bool(model.levels) and (bool(options.effort) or model.budget is None)
    if by_level and (options.effort or options.budget is not None):
        config["thinkingLevel"], exact = _level(options, model)
        return config, exact
    if model.budget is None or not (options.effort or options.budget is not None):
        return config or None, True
    config["thinkingBudget"], exact = _budget(options, model, model.budget, limit)
    return config, exact


def _level(options: Thinking, model: Model) -> tuple[str, bool]:
    """Return the nearest level: of two the higher one, and the lowest for no reasoning."""
    levels: tuple[str, ...] = model.levels
    effort = options.effort
    if not effort:
        budget = options.budget or 0
        effort = "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"
        return (effort if effort in levels else levels[-1]), False
    if effort in levels:
        return effort, True
    if effort in ("none", "minimal"):
        return levels[0], False
    return levels[-1], effort in ("xhigh", "max")  # the highest level


def _budget(
    options: Thinking, model: Model, bounds: tuple[int, int], limit: int | None
) -> tuple[int, bool]:
    minimum, maximum = bounds
    if options.effort == "none":
        return (0, True) if model.off else (minimum, False)
    if options.budget is not None:  # a budget of 0 disables thinking, -1 leaves it to the model
        budget = (
            options.budget if options.budget < 0 else max(minimum, min(options.budget, maximum))
        )
        budget = 0 if options.budget == 0 and model.off else budget
        return budget, budget == options.budget
    available = maximum if limit is None else min(maximum, limit - (limit + 3) // 4)
    if available < minimum:
        return (0 if model.off else minimum), False
    return max(minimum, min(_BUDGETS.get(options.effort, maximum), available)), True
