"""Azure OpenAI: OpenAI's API under Azure's URLs.

https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle: since 2025 the `v1`
API needs no API version and names the deployment in the body; older versions have it in the path.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.providers.base import Provider, TransformRequest, header
from asgi_aiproxy.providers.message_format import OPENAI_MESSAGES, message_format
from asgi_aiproxy.providers.operations import OPENAI_OPERATIONS, RESPONSES
from asgi_aiproxy.providers.refusal_codes import AZURE


def azure(base_url: str, *, name: str = "azure", api_version: str | None = None) -> Provider:
    """An Azure OpenAI resource, e.g. `https://my-resource.openai.azure.com`.

    Models are the names of deployments. With `api_version` (`2024-10-21`, for example) the older
    API with the deployment in the path is used. `base_url` may end with `/openai/v1`, as shown in
    Azure's documentation. Raises ConfigurationError if `base_url` is invalid.
    """
    if isinstance(base_url, str):
        base_url = base_url.rstrip("/").removesuffix("/openai/v1").removesuffix("/openai")
    # Of the Responses API only the `v1` version is complete.
    responses = RESPONSES if api_version is None else frozenset[str]()
    return Provider(
        name=name,
        dialect=OPENAI_CHAT,
        base_url=base_url,
        auth=header("api-key"),
        native_operations=OPENAI_OPERATIONS | responses,
        transform_request=under_v1 if api_version is None else in_deployment(api_version),
        path_profile="azure",
        refusals=AZURE,
    )


_own_messages = message_format(OPENAI_MESSAGES)


def under_v1(draft: ProviderRequest) -> ProviderRequest:
    """Move a request below `/openai/v1`."""
    draft = _own_messages(draft)
    return msgspec.structs.replace(draft, path="/openai/v1" + draft.path)


def in_deployment(api_version: str) -> TransformRequest:
    """Move requests to `/openai/deployments/{model}/...?api-version=...`."""
    query = urlencode({"api-version": api_version})

    def transform(draft: ProviderRequest) -> ProviderRequest:
        draft = _own_messages(draft)
        if draft.path == "/models":
            return msgspec.structs.replace(draft, path="/openai/models", query=query)
        model = draft.body.get("model", "")
        name = model if isinstance(model, str) else _json.loads(bytes(model))
        path = f"/openai/deployments/{quote(check_model(name), safe='')}{draft.path}"
        return msgspec.structs.replace(draft, path=path, query=query)

    return transform
