"""Writes the caller's reasoning options as parameters of a Claude model.

There are three generations. Models before 4.6 take a budget in tokens, which must be below
`max_tokens`, and cannot think if a tool is forced or a tool call lacks its thinking blocks. Later
models think adaptively, with an effort (`output_config.effort`) that also applies without thinking.
The newest think by default, and some always. Unsupported options are reported; an effort is sent
whenever the model supports one.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects._claude.capabilities import Model
from asgi_aiproxy.messages import Thinking

_LEVELS = ("low", "medium", "high", "xhigh", "max")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
_MIN_BUDGET = 1024
_ANSWER_TOKENS = 4096  # reserved for the answer, but at most a quarter of `max_tokens`
BINDING_BETA = "thinking-binding-controls-2026-08-01"


def write(
    body: dict[str, Any], options: Thinking, model: Model, *, limited: bool, bare_call: bool
) -> list[str]:
    """Add thinking and effort to a request's body; returns the options that were not applied.

    `limited`: `max_tokens` was set by the caller. `bare_call`: the last turn has tool calls whose
    thinking blocks are missing.
    """
    if options.effort == "none":
        return _off(body, model)
    if model.thinking == "none":
        return [_name(options)]
    level = _level(options, model)
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    if model.thinking == "budget":
        allowed = not forced and not bare_call
        budget = _budget(options, body, model, limited=limited) if allowed else 0
        if budget >= _MIN_BUDGET:
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
            cut = options.budget is not None and budget < options.budget
            return [_name(options)] if cut else []
        if not level:
            return [_name(options)]
    elif not forced:
        body["thinking"] = {"type": "adaptive"}
        if model.hides_thoughts and options.summary is not False:
            body["thinking"]["display"] = "summarized"
    body.setdefault("output_config", {})["effort"] = level
    exact = level == options.effort or not (options.effort or options.budget is not None)
    return [] if exact else [_name(options)]


def _off(body: dict[str, Any], model: Model) -> list[str]:
    if not model.unasked:
        return []
    if model.off:
        body["thinking"] = {"type": model.off}
        return []
    body.setdefault("output_config", {})["effort"] = model.efforts[0]  # the lowest
    return ["reasoning_effort"]


def _name(options: Thinking) -> str:
    return (
        "reasoning_effort" if options.effort or options.budget is None else "thinking.budget_tokens"
    )


def _level(options: Thinking, model: Model) -> str:
    """The model's highest level up to the requested one; empty if it has none."""
    word = options.effort
    if not word and options.budget is not None:
        word = "low" if options.budget <= 2048 else "medium" if options.budget <= 8192 else "high"
    word = {"minimal": "low", "": "high"}.get(word, word)
    wanted = _LEVELS.index(word) if word in _LEVELS else _LEVELS.index("high")
    below = [level for level in model.efforts if _LEVELS.index(level) <= wanted]
    return below[-1] if below else ""


def _budget(options: Thinking, body: dict[str, Any], model: Model, *, limited: bool) -> int:
    """The thinking budget in tokens; raises `max_tokens` for it unless set by the caller."""
    budget = options.budget if options.budget is not None else _BUDGETS.get(options.effort, 24576)
    if not limited:
        body["max_tokens"] = min(model.limit, max(body["max_tokens"], budget + _ANSWER_TOKENS))
    limit: int = body["max_tokens"]
    return min(budget, limit - min(_ANSWER_TOKENS, limit // 4))


def bind(body: dict[str, Any]) -> bool:
    """Let invalid thinking blocks be dropped instead of rejected; False if not supported.

    https://platform.claude.com/docs/en/build-with-claude/preserved-thinking (needs BINDING_BETA)
    """
    thinking = body.setdefault("thinking", {"type": "adaptive"})
    if thinking["type"] != "adaptive":
        return False
    thinking["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
    return True
