"""What is known of a model: its limits, modalities and prices, and what vendors' lists say of it.

Vendors name the same facts in many ways, so their lists are read by the names of members:
OpenRouter, Together, Groq, Mistral, Google, Anthropic, vLLM and others, by their API references.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from asgi_aiproxy.dialects import _parsing


class ModelPrice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prices in US dollars per million tokens.

    `source` is where they come from, `as_of` the date of the list (empty: not known).
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    source: str = ""
    as_of: str = ""


class ModelFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Facts about a model; None and empty: not known.

    - `context`, `max_output`: tokens of input and output together, and of output.
    - `input`, `output`: modalities, such as `text` and `image`.
    - `price`: its prices.
    """

    context: int | None = None
    max_output: int | None = None
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    price: ModelPrice | None = None


NOTHING = ModelFacts()
_CONTEXT = (
    *("context_length", "context_window", "max_context_length", "inputTokenLimit"),
    *("max_input_tokens", "max_model_len", "context_size", "contextLength"),
)
_OUTPUT = ("outputTokenLimit", "max_output_tokens", "max_completion_tokens", "max_output_length")
_LISTS = ("data", "models", "body")
_NAMES = ("id", "name", "model")


def read_facts(body: bytes) -> dict[str, ModelFacts]:
    """The facts in a vendor's list of models, by the name of the model; empty if there are none."""
    found: dict[str, ModelFacts] = {}
    for row in _rows(body):
        facts = _facts(row)
        if facts != NOTHING:
            found |= dict.fromkeys(_names(row), facts)
    return found


def _rows(body: bytes) -> Iterator[dict[str, Any]]:
    if body.lstrip().startswith(b"["):
        body = b'{"data":' + body + b"}"
    answer = _parsing.parse_object(body) or {}
    for name in _LISTS:
        yield from _parsing.objects(answer.get(name))


def _names(row: Mapping[str, Any]) -> Iterator[str]:
    for member in _NAMES:
        if name := _parsing.get_text(row, member):
            yield name.removeprefix("models/")


def _facts(row: Mapping[str, Any]) -> ModelFacts:
    top = row.get("top_provider")
    best = top if isinstance(top, dict) else {}
    output = _count(row, _OUTPUT) or _count(best, _OUTPUT)
    if output is None and "max_input_tokens" in row:  # Anthropic
        output = _count(row, ("max_tokens",))
    kinds = row.get("architecture")
    kinds = kinds if isinstance(kinds, dict) else row
    return ModelFacts(
        context=_count(row, _CONTEXT) or _count(best, _CONTEXT),
        max_output=output,
        input=_texts(kinds.get("input_modalities")) or _seen(row),
        output=_texts(kinds.get("output_modalities")),
    )


def _seen(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The input of a model whose list says only whether it sees images (Mistral)."""
    able = row.get("capabilities")
    vision = able.get("vision") if isinstance(able, dict) else None
    return () if not isinstance(vision, bool) else ("text", "image") if vision else ("text",)


def _count(row: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = row.get(name)
        if type(value) is int and value > 0:
            return value
    return None


def _texts(value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else ()
    return tuple(text.lower() for text in texts if isinstance(text, str))


def merged(first: ModelFacts, second: ModelFacts) -> ModelFacts:
    """The facts of `first`, and those of `second` that it lacks."""
    return ModelFacts(
        context=first.context or second.context,
        max_output=first.max_output or second.max_output,
        input=first.input or second.input,
        output=first.output or second.output,
        price=first.price or second.price,
    )
