"""The client APIs below the paths of each provider."""

from __future__ import annotations

import re
from collections.abc import Mapping

from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    GEMINI_CONTENT,
    OPENAI_CHAT,
    OPENAI_COMPACTION,
    OPENAI_COMPLETIONS,
    OPENAI_RESPONSES,
)
from asgi_aiproxy.dialects.base import InboundDialect, Operation
from asgi_aiproxy.providers.base import Provider

_OPENAI = (OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_RESPONSES, OPENAI_COMPACTION)
# By the name of the provider's dialect.
_APIS: Mapping[str, tuple[InboundDialect, ...]] = {
    "openai_chat": _OPENAI,
    "openai_responses": _OPENAI,
    "anthropic": (ANTHROPIC_MESSAGES,),
    "gemini": (GEMINI_CONTENT,),
}
_PREFIXES = ("", "/v1", "/v1beta")  # which the base URL of a provider may hold
_HOSTED = re.compile(r"/openai(?:/v1|/deployments/[^/]+)?(?=/)")  # on Azure


def find_operation(
    provider: Provider, method: str, path: str
) -> tuple[InboundDialect, Operation] | None:
    """Return the API and the operation of a request with a JSON body to `path`, which is below the
    provider's base URL; None if they are not known.
    """
    path = _HOSTED.sub("/v1", path, count=1)
    for api in _APIS.get(provider.dialect.name, ()):
        for prefix in _PREFIXES:
            operation = api.match(method, prefix + path)
            if operation is not None and operation.body == "json" and not operation.resource:
                return api, operation
    return None
