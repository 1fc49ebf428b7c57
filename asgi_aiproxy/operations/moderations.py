"""Moderation: whether texts are harmful. Clients use OpenAI's API: POST /v1/moderations.

- OpenAI: https://platform.openai.com/docs/api-reference/moderations
- Mistral: https://docs.mistral.ai/api/endpoint/classifiers

Vendors have different categories. Those that mean the same get OpenAI's names; the others keep
theirs. A category that the vendor does not have is false, with a score of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import ClientOperation, OperationAPI, read_json, read_object
from asgi_aiproxy.operations.forms import Form

CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
    *("illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual"),
    *("sexual/minors", "violence", "violence/graphic"),
)
_MISTRAL: Mapping[str, str] = {
    "sexual": "sexual",
    "hate_and_discrimination": "hate",
    "violence_and_threats": "violence",
    "dangerous": "illicit/violent",
    "criminal": "illicit",
    "dangerous_and_criminal_content": "illicit",
    "selfharm": "self-harm",
}


class ModerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a `model` to judge texts. `rest` are members without a neutral meaning."""

    model: str
    texts: tuple[str, ...]
    rest: Mapping[str, Any] = {}


class Judgement(msgspec.Struct, frozen=True):
    """One text: by category, whether it is harmful, and the score between 0 and 1."""

    flags: Mapping[str, bool]
    scores: Mapping[str, float]


class ModerationResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The `results` of a `model`, in the order of the texts. `id` is that of the response."""

    model: str
    results: tuple[Judgement, ...]
    usage: Usage | None = None
    id: str = ""


class MistralModeration(OperationAPI[ModerationRequest, ModerationResponse]):
    """Mistral's API for moderation."""

    kind: ClassVar[str] = "moderation"

    def encode_request(self, request: ModerationRequest) -> ProviderRequest:
        """Write a request."""
        body = {"model": request.model, "input": list(request.texts)}
        return ProviderRequest("/moderations", body, ignored=tuple(request.rest))

    def decode_response(
        self, bodies: Sequence[bytes], request: ModerationRequest
    ) -> ModerationResponse:
        """Read a response."""
        found = read_object(bodies[-1])
        results = [_judgement(each) for each in _parsing.objects(found.get("results"))]
        if len(results) != len(request.texts):
            raise _parsing.unparsable_response_error(200, bodies[-1])
        usage = found.get("usage")
        return ModerationResponse(
            model=_parsing.get_text(found, "model") or request.model,
            results=tuple(results),
            usage=Usage(input=_parsing.read_count(usage, "prompt_tokens")) if usage else None,
            id=_parsing.get_text(found, "id"),
        )


class OpenAIModerationClient(ClientOperation[ModerationRequest, ModerationResponse]):
    """OpenAI's API for moderation, as clients use it."""

    kind: ClassVar[str] = "moderation"

    def decode_request(self, operation: Operation, body: bytes | Form) -> ModerationRequest:
        """Read a request. Images cannot be converted."""
        fields = read_json(body)
        given = fields.get("input")
        if given is None:
            raise _parsing.missing_field_error("input")
        items = given if isinstance(given, list) else [given]
        if not items:
            raise invalid("'input' must not be empty.", "input", "invalid_value")
        texts = []
        for at, item in enumerate(items):
            where = f"input[{at}]" if isinstance(given, list) else "input"
            texts.append(_text(item, where))
        known = {"model", "input", "provider"}
        return ModerationRequest(
            model=_parsing.get_text(fields, "model"),
            texts=tuple(texts),
            rest={k: v for k, v in fields.items() if k not in known and v is not None},
        )

    def encode_response(self, response: ModerationResponse, request: ModerationRequest) -> bytes:
        """Write a response."""
        results = []
        for each in response.results:
            flags = {**dict.fromkeys(CATEGORIES, False), **each.flags}
            results.append(
                {
                    "flagged": any(flags.values()),
                    "categories": flags,
                    "category_scores": {**dict.fromkeys(CATEGORIES, 0.0), **each.scores},
                    "category_applied_input_types": {name: ["text"] for name in flags},
                }
            )
        id = response.id or f"{getrandbits(128):032x}"
        return _json.dumps({"id": f"modr-{id}", "model": response.model, "results": results})

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read the model of a response that passes through; OpenAI charges nothing."""
        return _parsing.get_text(_parsing.parse_object(body) or {}, "model"), None


MISTRAL_MODERATION = MistralModeration()


def _text(item: Any, where: str) -> str:
    if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
        return str(item["text"])
    if isinstance(item, str):
        return item
    raise invalid(
        f"'{where}': the provider of this model judges text only.", where, "unsupported_content"
    )


def _judgement(found: Mapping[str, Any]) -> Judgement:
    """One result of Mistral's. A category that has several names there is harmful by any."""
    flags: dict[str, bool] = {}
    scores: dict[str, float] = {}
    given = found.get("categories")
    for name, flag in (given if isinstance(given, dict) else {}).items():
        category = _MISTRAL.get(name, name)
        flags[category] = flags.get(category, False) or flag is True
    given = found.get("category_scores")
    for name, score in (given if isinstance(given, dict) else {}).items():
        category = _MISTRAL.get(name, name)
        if isinstance(score, int | float):
            scores[category] = max(scores.get(category, 0.0), score)
    return Judgement(flags, scores)
