"""How much a Claude model is to think: the caller's wish in the parameters its model takes.

There are three generations. Models before 4.6 take a budget in tokens, which ends before
`max_tokens`, and not where a tool is forced or a call is answered whose thoughts are lost. Later
ones think adaptively, with an effort (`output_config.effort`) that also holds without thinking.
The newest think where nothing is said, and some always. What a model cannot do is reported; an
effort is sent wherever the model takes one.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects.anthropic.capabilities import Model
from asgi_aiproxy.messages import Thinking

_LEVELS = ("low", "medium", "high", "xhigh", "max")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
_LEAST = 1024
_ANSWER = 4096  # tokens that the answer keeps, or a quarter of what there is
BINDING_BETA = "thinking-binding-controls-2026-08-01"


def write(
    body: dict[str, Any], wish: Thinking, model: Model, *, limited: bool, bare_call: bool
) -> list[str]:
    """Add thinking and effort to a request's body; what could not be honoured is returned.

    `limited`: `max_tokens` is the caller's own. `bare_call`: the last turn calls tools, and its
    thoughts are lost.
    """
    if wish.effort == "none":
        return _off(body, model)
    if model.thinking == "none":
        return [_name(wish)]
    level = _level(wish, model)
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    if model.thinking == "budget":
        allowed = not forced and not bare_call
        budget = _budget(wish, body, model, limited=limited) if allowed else 0
        if budget >= _LEAST:
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
            cut = wish.budget is not None and budget < wish.budget
            return [_name(wish)] if cut else []
        if not level:
            return [_name(wish)]
    elif not forced:
        body["thinking"] = {"type": "adaptive"}
        if model.hides_thoughts and wish.summary is not False:
            body["thinking"]["display"] = "summarized"
    body.setdefault("output_config", {})["effort"] = level
    exact = level == wish.effort or not (wish.effort or wish.budget is not None)
    return [] if exact else [_name(wish)]


def _off(body: dict[str, Any], model: Model) -> list[str]:
    if not model.unasked:
        return []
    if model.off:
        body["thinking"] = {"type": model.off}
        return []
    body.setdefault("output_config", {})["effort"] = model.efforts[0]  # the least there is
    return ["reasoning_effort"]


def _name(wish: Thinking) -> str:
    return "reasoning_effort" if wish.effort or wish.budget is None else "thinking.budget_tokens"


def _level(wish: Thinking, model: Model) -> str:
    """The model's nearest level, rather below than above; empty if it has none."""
    word = wish.effort
    if not word and wish.budget is not None:
        word = "low" if wish.budget <= 2048 else "medium" if wish.budget <= 8192 else "high"
    word = {"minimal": "low", "": "high"}.get(word, word)
    wanted = _LEVELS.index(word) if word in _LEVELS else _LEVELS.index("high")
    below = [level for level in model.efforts if _LEVELS.index(level) <= wanted]
    return below[-1] if below else ""


def _budget(wish: Thinking, body: dict[str, Any], model: Model, *, limited: bool) -> int:
    """The tokens to think with; room for them is made if `max_tokens` is ours."""
    budget = wish.budget if wish.budget is not None else _BUDGETS.get(wish.effort, 24576)
    if not limited:
        body["max_tokens"] = min(model.limit, max(body["max_tokens"], budget + _ANSWER))
    limit: int = body["max_tokens"]
    return min(budget, limit - min(_ANSWER, limit // 4))


def bind(body: dict[str, Any]) -> bool:
    """Let thoughts of before a change be dropped, not refused; tells whether that is possible.

    https://platform.claude.com/docs/en/build-with-claude/preserved-thinking (needs BINDING_BETA)
    """
    thinking = body.setdefault("thinking", {"type": "adaptive"})
    if thinking["type"] != "adaptive":
        return False
    thinking["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
    return True
