"""Model lists, in the format of each API.

OpenAI lists all models at once. Anthropic's and Google's lists have pages, which clients select in
the query: after or before the id of a model, or by a token.

- https://platform.openai.com/docs/api-reference/models
- https://platform.claude.com/docs/en/api/models-list
- https://ai.google.dev/api/models
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.model_facts import NOTHING, ModelFacts
from asgi_aiproxy.errors import APIError, invalid

_MAX_PAGE = 1000


class ListedModel(msgspec.Struct, frozen=True):
    """A model under the name that callers use, and its first provider.

    `display_name` is the name for people; `name` if it is empty. `facts` are its limits, modalities
    and prices, as far as they are known.
    """

    name: str
    owner: str
    display_name: str = ""
    facts: ModelFacts = NOTHING


class ModelListFormat(Protocol):
    """The format of an API's model list."""

    def write_list(self, models: Sequence[ListedModel], query: str) -> bytes:
        """Return one page of models. Raises APIError if the query is invalid."""

    def write_model(self, model: ListedModel) -> bytes:
        """Return a single model."""


def format_for(dialect: str) -> ModelListFormat:
    """Return the format of the API with this dialect's name."""
    return _FORMATS.get(dialect, _OPENAI)


class _OpenAI:
    def write_list(self, models: Sequence[ListedModel], query: str) -> bytes:
        return _json.dumps({"object": "list", "data": list(map(self._model, models))})

    def write_model(self, model: ListedModel) -> bytes:
        return _json.dumps(self._model(model))

    def _model(self, model: ListedModel) -> dict[str, Any]:
        """Return one model, with the members that Mistral's SDK requires."""
        listed = {"id": model.name, "object": "model", "created": 0, "owned_by": model.owner}
        return {**listed, "type": "base", "capabilities": {}, **_openrouter_members(model.facts)}


class _Anthropic:
    def write_list(self, models: Sequence[ListedModel], query: str) -> bytes:
        parameters = _query(query)
        limit = _size(parameters, "limit", 20)
        names = [model.name for model in models]
        after, before = parameters.get("after_id"), parameters.get("before_id")
        if after and before:
            raise invalid("after_id and before_id exclude each other: send one.", "before_id")
        start = _position(names, after, "after_id") + 1 if after else 0
        end = start + limit
        has_more = end < len(names)
        if before:
            end = _position(names, before, "before_id")
            start = max(end - limit, 0)
            has_more = start > 0
        page = [self._model(model) for model in models[start:end]]
        return _json.dumps(
            {
                "data": page,
                "has_more": has_more,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    def write_model(self, model: ListedModel) -> bytes:
        return _json.dumps(self._model(model))

    def _model(self, model: ListedModel) -> dict[str, Any]:
        return {
            "type": "model",
            "id": model.name,
            "display_name": model.display_name or model.name,
            "created_at": "1970-01-01T00:00:00Z",  # Anthropic's value for an unknown date
            "lifecycle": "active",
            **_known(
                max_input_tokens=model.facts.context,
                max_tokens=model.facts.max_output,
                pricing=_pricing(model.facts),
            ),
        }


class _Gemini:
    def write_list(self, models: Sequence[ListedModel], query: str) -> bytes:
        parameters = _query(query)
        size = _size(parameters, "pageSize", 50)
        start = 0
        if token := parameters.get("pageToken"):
            start = _position([m.name for m in models], _decoded(token), "pageToken") + 1
        page = models[start : start + size]
        answer: dict[str, Any] = {"models": list(map(self._model, page))}
        if page and start + size < len(models):
            name = page[-1].name.encode("utf-8", "surrogatepass")
            answer["nextPageToken"] = base64.urlsafe_b64encode(name).decode()
        return _json.dumps(answer)

    def write_model(self, model: ListedModel) -> bytes:
        return _json.dumps(self._model(model))

    def _model(self, model: ListedModel) -> dict[str, Any]:
        return {
            "name": f"models/{model.name}",
            "version": "",
            "displayName": model.display_name or model.name,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            **_known(inputTokenLimit=model.facts.context, outputTokenLimit=model.facts.max_output),
        }


def _known(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}


def _openrouter_members(facts: ModelFacts) -> dict[str, Any]:
    """Facts in the members that OpenRouter's list has, which several clients read."""
    kinds = _known(input_modalities=list(facts.input), output_modalities=list(facts.output))
    return _known(
        context_length=facts.context,
        max_output_tokens=facts.max_output,
        architecture=kinds,
        pricing=_pricing(facts),
    )


def _pricing(facts: ModelFacts) -> dict[str, Any] | None:
    """Prices in US dollars, per million tokens."""
    if facts.price is None:
        return None
    return {"currency": "USD", "per_tokens": 1_000_000, **msgspec.to_builtins(facts.price)}


_OPENAI = _OpenAI()
_FORMATS: dict[str, ModelListFormat] = {"anthropic": _Anthropic(), "gemini": _Gemini()}


def _query(query: str) -> dict[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(query, max_num_fields=50).items()}
    except ValueError as error:
        raise invalid("The query has too many parameters.") from error


def _size(parameters: dict[str, str], name: str, default: int) -> int:
    """Return the number of models per page."""
    text = parameters.get(name)
    if text is None or (name == "pageSize" and text == "0"):  # Google's value for the default
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise invalid(f"{name} must be an integer from 1 to {_MAX_PAGE}.", name)
    if int(text) > _MAX_PAGE and name == "limit":  # Google accepts more, and returns its maximum
        raise invalid(f"{name} must be an integer from 1 to {_MAX_PAGE}.", name)
    return min(int(text), _MAX_PAGE)


def _position(names: list[str], name: str, param: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise _invalid_position_error(param) from None


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode("utf-8", "strict")
    except (binascii.Error, ValueError):
        raise _invalid_position_error("pageToken") from None


def _invalid_position_error(param: str) -> APIError:
    return invalid(f"{param} is not a position in this list: start again without it.", param)
