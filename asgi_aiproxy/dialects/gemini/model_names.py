"""The model that members of a request name beside its path.

Google's API takes the model in the path, and requires it again in each request of a batch of
embeddings and in `generateContentRequest` of a count. It must be the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.inspection import strip_models_prefix

Fields = Mapping[str, msgspec.Raw]

_WHOLE = ("generateContentRequest", "generate_content_request")


def check_model(named: Any, model: str, where: str) -> None:
    """Raise APIError if the member `where` names another model than the path."""
    if named is None:
        return
    if not isinstance(named, str) or strip_models_prefix(named) != strip_models_prefix(model):
        raise invalid(f"'{where}' must name the model of the path, '{model}'.", where)


def rename_model(fields: Fields, requested: str, model: str) -> Fields:
    """The members of a request for the model `requested`, with the provider's name for it.

    Raises APIError if a member names another model.
    """
    own = {"model": msgspec.Raw(_json.dumps(f"models/{strip_models_prefix(model)}"))}
    out = dict(fields)
    if "model" in fields:
        check_model(_parsing.member(fields, "model", _parsing.text), requested, "model")
        out |= own
    for name in _WHOLE:
        whole = _parsing.member(fields, name, _parsing.raw_object)
        if whole is not None and "model" in whole:
            check_model(_parsing.member(whole, "model", _parsing.text), requested, f"{name}.model")
            out[name] = msgspec.Raw(_json.dumps({**whole, **own}))
    requests = _parsing.member(fields, "requests", _parsing.raw_list)
    if requests is not None:
        renamed = []
        for at, raw in enumerate(requests):
            where = f"requests[{at}]"
            each = _parsing.member({where: raw}, where, _parsing.raw_object) or {}
            given = _parsing.member(each, "model", _parsing.text)
            check_model(given, requested, f"{where}.model")
            renamed.append({**each, **own})
        out["requests"] = msgspec.Raw(_json.dumps(renamed))
    return out
