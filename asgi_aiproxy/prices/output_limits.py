"""How many tokens a request lets a model write, by what its upstream reads of it.

Which members limit an answer depends on the path that the request is sent to. A limit that the
upstream does not know limits nothing; of several the largest counts, for it is the upstream that
chooses; null, 0 and less say nothing. Sources: the API references of OpenAI (chat completions,
completions, responses), Anthropic (messages, message batches), Google (generateContent), Ollama
(chat, generate) and Amazon Bedrock (Converse).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json

Fields = Mapping[str, Any]  # the members of a body, encoded or not

_CHAT, _COMPLETIONS, _RESPONSES = "/chat/completions", "/completions", "/responses"
_NEW, _OLD = "max_completion_tokens", "max_tokens"
# These vendors document the new name; others may only know the old one.
_KNOWS_NEW = frozenset({"openai", "azure", "groq", "xai", "cerebras"})
# Paths by their ends, with the objects that hold limits ("" is the body itself) and their names.
_LIMITS: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (_COMPLETIONS, (("", (_OLD,)),)),
    (_RESPONSES, (("", ("max_output_tokens",)),)),
    ("/messages", (("", (_OLD,)), ("thinking", ("budget_tokens",)))),
    ("awPredict", (("", (_OLD,)), ("thinking", ("budget_tokens",)))),  # Claude on Vertex AI
    ("/api/chat", (("options", ("num_predict",)),)),
    ("/api/generate", (("options", ("num_predict",)),)),
    ("/converse", (("inferenceConfig", ("maxTokens",)),)),
    ("/converse-stream", (("inferenceConfig", ("maxTokens",)),)),
)
_GEMINI = tuple(
    (room, ("maxOutputTokens", "max_output_tokens"))
    for room in ("generationConfig", "generation_config")
)
# Thinking that some vendors do not count as part of the answer.
_BESIDE = (("", ("thinking_budget",)), ("reasoning", ("max_tokens",)))
_ANY = (("", (_NEW, _OLD, "max_output_tokens")), *_GEMINI, ("options", ("num_predict",)))
_TIMES = (
    ("", ("n", "best_of")),
    *((room, ("candidateCount", "candidate_count")) for room, _ in _GEMINI),
)


def output_tokens(provider: str, path: str, fields: Fields, default: int) -> int:
    """The most tokens that a request lets the model write.

    `path` is where `provider` is asked, below its base URL, `fields` are the members of the body
    that leaves. Where they do not limit the answer it is `default`, or what else is named there, if
    that is more. A batch that holds its calls lets each of them write.
    """
    single = path.removesuffix("/batches").replace(":batchGenerateContent", ":generateContent")
    if single != path and (calls := list(_calls(fields))):
        return sum(output_tokens(provider, single, call, default) for call in calls)
    limit = _limit(provider, path, fields)
    if limit is None:
        limit = max(default, _largest(fields, _ANY) or 0)
    return limit * answer_count(path, fields)


def answer_count(path: str, fields: Fields) -> int:
    """How many answers a request asks for, at least 1."""
    times = _largest(fields, _TIMES) or 1
    prompts = read_value(fields.get("prompt")) if path.endswith(_COMPLETIONS) else None
    if isinstance(prompts, list) and not all(isinstance(token, int) for token in prompts):
        times *= len(prompts)
    return times


def limited(provider: str, path: str, fields: Fields) -> bool:
    """Whether a request limits its answer in a way that its upstream reads."""
    return _limit(provider, path, fields) is not None


def read_value(raw: Any) -> Any:
    """A member's value, encoded or not; None if it is no JSON."""
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
        return _sure(fields, _GEMINI)
    for end, places in _LIMITS:
        if path.endswith(end):
            return _sure(fields, places)
    return None


def _chat_limit(provider: str, fields: Fields) -> int | None:
    names = (_OLD, _NEW)
    if provider not in _KNOWS_NEW and read_number(fields.get(_OLD)) is None:
        return None  # the new name alone may be unknown there
    limit = _sure(fields, (("", names),))
    beside = _largest(fields, _BESIDE)
    return limit if limit is None or beside is None else limit + beside


def _sure(fields: Fields, places: tuple[tuple[str, tuple[str, ...]], ...]) -> int | None:
    """The same; None as well if one of them is a number that some servers take for none."""
    for raw in _named(fields, places):
        if read_number(raw) is not None and not isinstance(read_value(raw), int):
            return None
    return _largest(fields, places)


def _largest(fields: Fields, places: tuple[tuple[str, tuple[str, ...]], ...]) -> int | None:
    """The largest of the numbers in these places; None if there is none above 0."""
    return max(
        (found for raw in _named(fields, places) if (found := read_number(raw)) is not None),
        default=None,
    )


def _named(fields: Fields, places: tuple[tuple[str, tuple[str, ...]], ...]) -> Iterator[Any]:
    """The members in these places."""
    for room, names in places:
        where: Any = fields
        if room:
            where = read_value(fields[room]) if room in fields else None
        if not isinstance(where, Mapping):
            continue
        for name in names:
            if name in where:
                yield where[name]


def read_number(raw: Any) -> int | None:
    """A number above 0; some servers also take 5.0 and "5" for one."""
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
    """The calls that a batch holds: Anthropic's `requests`, and Google's within `batch`."""
    for raw in ("requests", "batch"):
        if raw not in fields:
            continue
        found = read_value(fields[raw])
        for step in ("inputConfig", "input_config", "requests", "requests"):
            if isinstance(found, Mapping) and step in found:
                found = found[step]
        for each in found if isinstance(found, list) else ():
            if isinstance(each, Mapping):
                call = each.get("params", each.get("request", each))
                yield call if isinstance(call, Mapping) else {}
