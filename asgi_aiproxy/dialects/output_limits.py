"""The maximum number of output tokens of a request, as the provider will apply it.

Which members limit the output depends on the path. A limit that the provider does not know has no
effect. Of several limits the largest is used, because the provider decides which applies. Null and
numbers below 1 are no limit. Sources: the API references of OpenAI (chat completions,
completions, responses), Anthropic (messages, message batches), Google (generateContent), Ollama
(chat, generate), Cohere (chat) and Amazon Bedrock (Converse, InvokeModel with Claude).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json

Fields = Mapping[str, Any]  # the members of a body; values may be encoded

_CHAT, _COMPLETIONS, _RESPONSES = "/chat/completions", "/completions", "/responses"
_NEW_NAME, _OLD_NAME = "max_completion_tokens", "max_tokens"
# Vendors that document the new name; others may only know the old one.
_KNOW_NEW_NAME = frozenset({"openai", "azure", "groq", "xai", "cerebras"})
# Ends of paths, with the objects that contain limits ("" is the body itself) and the limits' names.
_LIMITS: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (_COMPLETIONS, (("", (_OLD_NAME,)),)),
    (_RESPONSES, (("", ("max_output_tokens",)),)),
    ("/messages", (("", (_OLD_NAME,)), ("thinking", ("budget_tokens",)))),
    ("awPredict", (("", (_OLD_NAME,)), ("thinking", ("budget_tokens",)))),  # Claude on Vertex AI
    # Claude on Amazon Bedrock
    ("/invoke", (("", (_OLD_NAME,)), ("thinking", ("budget_tokens",)))),
    ("/invoke-with-response-stream", (("", (_OLD_NAME,)), ("thinking", ("budget_tokens",)))),
    ("/v2/chat", (("", (_OLD_NAME,)), ("thinking", ("token_budget",)))),  # Cohere
    ("/api/chat", (("options", ("num_predict",)),)),
    ("/api/generate", (("options", ("num_predict",)),)),
    ("/converse", (("inferenceConfig", ("maxTokens",)),)),
    ("/converse-stream", (("inferenceConfig", ("maxTokens",)),)),
)
_GEMINI = tuple(
    (room, ("maxOutputTokens", "max_output_tokens"))
    for room in ("generationConfig", "generation_config")
)
# Thinking budgets that some vendors do not count as part of the output.
_SEPARATE_THINKING = (("", ("thinking_budget",)), ("reasoning", ("max_tokens",)))
_ALL_LIMITS = (
    ("", (_NEW_NAME, _OLD_NAME, "max_output_tokens")),
    *_GEMINI,
    ("options", ("num_predict",)),
)
_ANSWER_COUNTS = (
    ("", ("n", "best_of")),
    *((room, ("candidateCount", "candidate_count")) for room, _ in _GEMINI),
)


def output_tokens(provider: str, path: str, fields: Fields, default: int) -> int:
    """The maximum number of output tokens of a request.

    `path` is the request path below the base URL of `provider`, `fields` are the members of the
    body that is sent. Without a limit the result is `default`, or a larger number in any limit
    member. The limits of all calls in a batch are added.
    """
    single = path.removesuffix("/batches").replace(":batchGenerateContent", ":generateContent")
    if single != path and (calls := list(_calls(fields))):
        return sum(output_tokens(provider, single, call, default) for call in calls)
    limit = _limit(provider, path, fields)
    if limit is None:
        limit = max(default, _largest(fields, _ALL_LIMITS) or 0)
    return limit * answer_count(path, fields)


def answer_count(path: str, fields: Fields) -> int:
    """The number of answers that a request will get, at least 1."""
    times = _largest(fields, _ANSWER_COUNTS) or 1
    prompts = read_value(fields.get("prompt")) if path.endswith(_COMPLETIONS) else None
    if isinstance(prompts, list) and not all(isinstance(token, int) for token in prompts):
        times *= len(prompts)
    return times


def limited(provider: str, path: str, fields: Fields) -> bool:
    """Whether a request limits its output in a way that the provider applies."""
    return _limit(provider, path, fields) is not None


def read_value(raw: Any) -> Any:
    """The value of a member that may be encoded; None if it is not valid JSON."""
    if not isinstance(raw, msgspec.Raw):
        return raw
    try:
        return _json.loads(bytes(raw))
    except ValueError:
        return None


def _limit(provider: str, path: str, fields: Fields) -> int | None:
    if path.endswith(_CHAT):
        return _chat_limit(provider, fields)
    if ":generateContent" in path or ":streamGenerateContent" in path:
        return _certain_limit(fields, _GEMINI)
    for end, places in _LIMITS:
        if path.endswith(end):
            return _certain_limit(fields, places)
    return None


def _chat_limit(provider: str, fields: Fields) -> int | None:
    names = (_OLD_NAME, _NEW_NAME)
    if provider not in _KNOW_NEW_NAME and read_number(fields.get(_OLD_NAME)) is None:
        return None  # the provider may not know the new name
    limit = _certain_limit(fields, (("", names),))
    thinking = _largest(fields, _SEPARATE_THINKING)
    return limit if limit is None or thinking is None else limit + thinking


def _certain_limit(fields: Fields, places: tuple[tuple[str, tuple[str, ...]], ...]) -> int | None:
    """The largest of the limits in these places; None if some servers might not apply it."""
    for raw in _members(fields, places):
        if read_number(raw) is not None and not isinstance(read_value(raw), int):
            return None
    return _largest(fields, places)


def _largest(fields: Fields, places: tuple[tuple[str, tuple[str, ...]], ...]) -> int | None:
    """The largest of the numbers in these places; None if no number is above 0."""
    return max(
        (found for raw in _members(fields, places) if (found := read_number(raw)) is not None),
        default=None,
    )


def _members(fields: Fields, places: tuple[tuple[str, tuple[str, ...]], ...]) -> Iterator[Any]:
    """The members that exist in these places."""
    for parent, names in places:
        where: Any = fields
        if parent:
            where = read_value(fields[parent]) if parent in fields else None
        if not isinstance(where, Mapping):
            continue
        for name in names:
            if name in where:
                yield where[name]


def read_number(raw: Any) -> int | None:
    """A number above 0, rounded up; some servers also accept 5.0 and "5"."""
    found = read_value(raw)
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    if not math.isfinite(found) or found <= 0:
        return None
    return math.ceil(found)


def _calls(fields: Fields) -> Iterator[Fields]:
    """The calls in a batch: Anthropic's `requests`, and Google's in `batch`."""
    for raw in ("requests", "batch"):
        if raw not in fields:
            continue
        found = read_value(fields[raw])
        for step in ("inputConfig", "input_config", "requests", "requests"):
            if isinstance(found, Mapping) and step in found:
                found = found[step]
        for item in found if isinstance(found, list) else ():
            if isinstance(item, Mapping):
                call = item.get("params", item.get("request", item))
                yield call if isinstance(call, Mapping) else {}
