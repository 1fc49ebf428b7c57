"""Google's Vertex AI: Gemini, and Anthropic's Claude, in a project of Google Cloud.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference (Gemini),
https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations (hosts),
https://docs.claude.com/en/api/claude-on-vertex-ai (Claude): the model is in the path, and the
version of Anthropic's API is in the body.

Requests carry access tokens, see `GoogleCredentials`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from asgi_aiproxy import _json, dialects, operations
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.operations import (
    AnyOperationAPI,
)
from asgi_aiproxy.providers.base import Provider, TransformRequest, bearer
from asgi_aiproxy.providers.google_credentials import GoogleCredentials
from asgi_aiproxy.providers.operations import GENERATE_CONTENT, MESSAGES
from asgi_aiproxy.providers.refusal_codes import ANTHROPIC, GEMINI, Refusals
from asgi_aiproxy.providers.temporary_credentials import CredentialCache

ANTHROPIC_VERSION = "vertex-2023-10-16"

_GEMINI_PATH = re.compile(r"/v1(?:beta\d?|alpha)?/models/(?P<model>[^/:]+):(?P<method>\w+)")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]*")
_REGION = re.compile(r"[a-z]+(?:-[a-z]+\d+)?")
_MULTI_REGIONS = ("us", "eu")


def vertex(
    project: str = "", region: str = "global", *, base_url: str = "", name: str = "vertex"
) -> Provider:
    """Gemini models of a project (its id) in a region, or in `global`.

    Keys are those of `GoogleCredentials`: `application-default`, a service account, a workload
    identity, or an access token. `base_url` is another address than the region's own; `name` is the
    name of the provider. Raises ConfigurationError if the project or the region is missing or
    invalid, or google-auth is not installed.
    """
    place = _place(project, region, name)
    return _provider(
        name,
        dialects.GEMINI_CONTENT,
        base_url or _host(region),
        _gemini(place),
        GEMINI,
        GENERATE_CONTENT,
        (
            operations.VERTEX_EMBEDDINGS,
            operations.GEMINI_IMAGES,
            operations.GEMINI_SPEECH,
            operations.GEMINI_TRANSCRIPTION,
        ),
    )


def vertex_anthropic(
    project: str = "", region: str = "global", *, base_url: str = "", name: str = "vertex-anthropic"
) -> Provider:
    """Claude models of a project (its id) in a region, or in `global`.

    Calls of Anthropic's own API pass through. Keys, `project`, `region`, `base_url`, `name` and
    errors are those of `vertex`.
    """
    place = _place(project, region, name)
    return _provider(
        name,
        dialects.HOSTED_ANTHROPIC,
        base_url or _host(region),
        _claude(place),
        ANTHROPIC,
        MESSAGES,
    )


def _provider(
    name: str,
    dialect: OutboundDialect,
    base_url: str,
    transform: TransformRequest,
    refusals: Refusals,
    native: frozenset[str],
    offered: tuple[AnyOperationAPI, ...] = (),
) -> Provider:
    return Provider(
        name=name,
        dialect=dialect,
        base_url=base_url,
        auth=bearer,
        native_operations=native,
        operations=offered,
        transform_request=transform,
        refusals={**GEMINI, **refusals},  # Google refuses before Anthropic's API is reached
        credentials=CredentialCache(GoogleCredentials()),
    )


def _place(project: str, region: str, name: str) -> str:
    """The path of a project and region."""
    if not _PROJECT.fullmatch(project):
        raise ConfigurationError(f"{name}: project is required: the id of a Google Cloud project.")
    if not _REGION.fullmatch(region):
        raise ConfigurationError(
            f"{name}: region must be one of Google Cloud, such as 'europe-west1', or 'global', "
            f"not {region!r}."
        )
    return f"/v1/projects/{project}/locations/{region}/publishers"


def _host(region: str) -> str:
    if region == "global":
        return "https://aiplatform.googleapis.com"
    if region in _MULTI_REGIONS:
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{region}-aiplatform.googleapis.com"


def _gemini(place: str) -> TransformRequest:
    """Move requests to the paths of a project."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        found = _GEMINI_PATH.fullmatch(draft.path)
        if found is not None:
            path = f"{place}/google/models/{found['model']}:{found['method']}"
            return msgspec.structs.replace(draft, path=path)
        if draft.path == "/v1beta/models":  # a list has no project
            return msgspec.structs.replace(draft, path="/v1beta1/publishers/google/models")
        return draft

    return transform


def _claude(place: str) -> TransformRequest:
    """Move requests to the paths of a project; the model leaves the body, the version enters it."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if draft.path == "/v1/models":
            path = "/v1beta1/publishers/anthropic/models"
            return msgspec.structs.replace(draft, path=path, query="")
        body: dict[str, Any] = {"anthropic_version": ANTHROPIC_VERSION, **draft.body}
        if draft.path == "/v1/messages/count_tokens":
            path = f"{place}/anthropic/models/count-tokens:rawPredict"
            return msgspec.structs.replace(draft, path=path, body=body)
        if draft.path != "/v1/messages":
            return draft
        model = quote(check_model(_plain(body.pop("model"))), safe="@")
        method = "streamRawPredict" if _plain(body.get("stream")) else "rawPredict"
        path = f"{place}/anthropic/models/{model}:{method}"
        return msgspec.structs.replace(draft, path=path, body=body)

    return transform


def _plain(value: Any) -> Any:
    """A member's value, which may be encoded."""
    return _json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value
