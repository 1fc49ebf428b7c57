"""What families of models take beside Converse's common members.

Converse passes `additionalModelRequestFields` to the model as they are; their names differ from
family to family. A model is known by its id, also within the id or ARN of an inference profile; the
ARN of an application's profile or of a provisioned model does not say which model it is.

Sources, read 2026-11-30, below docs.aws.amazon.com/bedrock/latest/userguide/: inference-reasoning,
structured-output, model-parameters-*; docs.aws.amazon.com/nova/latest/nova2-userguide/
(extended thinking).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

import msgspec

from asgi_aiproxy.dialects._claude import capabilities as claude

# How reasoning is requested: as Claude does, as Nova 2 does, by OpenAI's name, or not at all.
Thinking = Literal["claude", "nova", "effort", "none"]


class Model(msgspec.Struct, frozen=True):
    """One family.

    `claude`: the row of a Claude model. `top_k`: where the model expects it, as a path. `schemas`:
    structured outputs and strict tools.
    """

    thinking: Thinking = "none"
    top_k: tuple[str, ...] = ()
    schemas: bool = False
    claude: claude.Model | None = None


_FAMILIES: tuple[tuple[re.Pattern[str], Model], ...] = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (r"amazon\.nova-2", Model("nova", ("inferenceConfig", "topK"))),
        (r"amazon\.nova", Model("none", ("inferenceConfig", "topK"))),
        (r"openai\.gpt-oss", Model("effort", schemas=True)),
        (r"mistral\.", Model("none", ("top_k",), schemas=True)),
        (r"cohere\.command", Model("none", ("k",))),
        (
            r"qwen\.|deepseek\.v|google\.gemma|minimax\.|moonshot|nvidia\.|zai\.",
            Model(schemas=True),
        ),
    )
)


@lru_cache(maxsize=1024)
def of(model: str) -> Model:
    """The capabilities of the model with this id or ARN."""
    name = model.lower()
    if "claude" in name:
        row = claude.of(name)
        return Model("claude", ("top_k",), row.structured, row)
    return next((found for pattern, found in _FAMILIES if pattern.search(name)), Model())


def nest(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """An object with `value` at a path."""
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two objects as one; members of `other` win, objects are merged member by member."""
    out = dict(one)
    for name, value in other.items():
        mine = out.get(name)
        both = isinstance(mine, dict) and isinstance(value, dict)
        out[name] = merge(mine, value) if both else value  # type: ignore[arg-type]
    return out
