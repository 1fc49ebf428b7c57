"""Amazon Bedrock in one region: Converse for all models, and Anthropic's own API for Claude models.

https://docs.aws.amazon.com/bedrock/latest/userguide/endpoints.html (hosts) and
https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html (API keys).

A key is an API key of Bedrock, sent as a bearer token, or credentials of AWS
(`<access key id>:<secret access key>`, optionally `:<session token>`), which sign each request, or
`credential-chain` or `profile:<name>` for where these come from (`AWSCredentials`).

Anthropic's API is that of InvokeModel (https://docs.claude.com/en/api/claude-on-amazon-bedrock):
model and streaming are in the path, its version and betas in the body.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from asgi_aiproxy import _json, dialects, operations
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.providers.aws_credentials import AWSCredentials
from asgi_aiproxy.providers.base import Provider, TransformRequest, bearer
from asgi_aiproxy.providers.refusal_codes import ANTHROPIC, BEDROCK
from asgi_aiproxy.providers.sigv4 import SigV4
from asgi_aiproxy.providers.temporary_credentials import CredentialCache
from asgi_aiproxy.upstream.base import UpstreamRequest

ANTHROPIC_VERSION = "bedrock-2023-05-31"

# bedrock-runtime.us-east-1.amazonaws.com, bedrock-runtime-fips.us-east-1..., and endpoints of a
# VPC: vpce-0a-b.bedrock-runtime.us-east-1.vpce.amazonaws.com
_REGION = re.compile(r"(?:^|\.)bedrock(?:-[a-z]+)*\.([a-z]{2,4}(?:-[a-z]+)+-\d+)\.")
_NAME = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d+")
_MAX_REGIONS = 64


class BedrockAuth:
    """An `auth` for Bedrock: sends an API key as a bearer token, or signs with AWS credentials.

    `region` is used for hosts that do not name theirs (a key may have a base URL of its own).
    `clock` returns Unix seconds. Requests raise APIError like those of `SigV4`.
    """

    reads_body: ClassVar[bool] = True  # a signature includes the body

    def __init__(self, region: str, *, clock: Callable[[], float] = time.time) -> None:
        self._region = region
        self._clock = clock
        self._signers: dict[str, SigV4] = {}

    def __repr__(self) -> str:
        return f"BedrockAuth({self._region!r})"

    def __call__(self, request: UpstreamRequest, secret: str) -> UpstreamRequest:
        """The request with the API key or the signature."""
        if ":" not in secret:
            return bearer(request, secret)
        region = region_in(request.url) or self._region
        signer = self._signers.get(region)
        if signer is None:
            signer = SigV4(region, "bedrock", clock=self._clock)
            if len(self._signers) < _MAX_REGIONS:
                self._signers[region] = signer
        return signer(request, secret)


def bedrock(region: str = "", *, base_url: str = "", name: str = "bedrock") -> Provider:
    """Amazon Bedrock in a region (`eu-west-1`, for example).

    Models are the ids or ARNs of models and of inference profiles. `base_url` is another address
    than the region's own (of a VPC endpoint, a proxy); `region` may be left out if the address
    names it; `name` is the name of the provider. Raises ConfigurationError if the region is missing
    or invalid.
    """
    region, base_url = place(region, base_url, name)
    return Provider(
        name=name,
        dialect=dialects.BEDROCK_CONVERSE,
        base_url=base_url,
        auth=BedrockAuth(region),
        transform_request=_lists_at_control_plane(base_url),
        refusals=BEDROCK,
        operations=(
            operations.BEDROCK_EMBEDDINGS,
            operations.BEDROCK_RERANK,
            operations.BEDROCK_IMAGES,
        ),
        credentials=CredentialCache(AWSCredentials()),
    )


def bedrock_anthropic(
    region: str = "", *, base_url: str = "", name: str = "bedrock-anthropic"
) -> Provider:
    """Claude models on Amazon Bedrock, by Anthropic's own API instead of Converse.

    Calls of Anthropic's API pass through, with all that Converse has no words for. `region`,
    `base_url`, `name` and errors are those of `bedrock`.
    """
    region, base_url = place(region, base_url, name)
    lists = _lists_at_control_plane(base_url)
    return Provider(
        name=name,
        dialect=dialects.HOSTED_ANTHROPIC,
        base_url=base_url,
        auth=BedrockAuth(region),
        native_operations=frozenset({"messages"}),
        transform_request=lambda draft: lists(_invoke(draft)),
        refusals={**ANTHROPIC, **BEDROCK},
        credentials=CredentialCache(AWSCredentials()),
    )


def _invoke(draft: ProviderRequest) -> ProviderRequest:
    """Move a request of Anthropic's API to InvokeModel."""
    if draft.path == "/v1/models":
        path, query = "/foundation-models", "byProvider=anthropic"
        return msgspec.structs.replace(draft, path=path, query=query)
    if draft.path != "/v1/messages":
        return draft
    body: dict[str, Any] = {"anthropic_version": ANTHROPIC_VERSION, **draft.body}
    model, stream = check_model(_plain(body.pop("model"))), _plain(body.pop("stream", False))
    headers = {name: value for name, value in draft.headers.items() if name not in _IN_BODY}
    if betas := draft.headers.get("anthropic-beta"):
        body.setdefault("anthropic_beta", [beta.strip() for beta in betas.split(",")])
    method = "invoke-with-response-stream" if stream else "invoke"
    path = f"/model/{quote(model, safe='')}/{method}"
    return msgspec.structs.replace(draft, path=path, body=body, headers=headers)


_IN_BODY = frozenset({"anthropic-beta", "anthropic-version"})


def _plain(value: Any) -> Any:
    """A member's value, which may be encoded."""
    return _json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value


def place(region: str, base_url: str, name: str) -> tuple[str, str]:
    """The region and the base URL, each found by the other. Raises ConfigurationError."""
    region = region or region_in(base_url)
    if not _NAME.fullmatch(region):
        raise ConfigurationError(
            f"{name}: region is required, such as 'us-east-1'"
            + (f", and {region!r} is not one." if region else ".")
        )
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return region, base_url or f"https://bedrock-runtime.{region}.{domain}"


def region_in(url: str) -> str:
    """The region in the host of a Bedrock URL; empty if there is none."""
    found = _REGION.search(urlsplit(url).hostname or "") if url else None
    return found[1] if found else ""


def _lists_at_control_plane(base_url: str) -> TransformRequest:
    """Send the request for the list of models to the control plane, which has another host."""
    control_plane = base_url.replace("://bedrock-runtime", "://bedrock", 1)

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if draft.path != "/foundation-models":
            return draft
        return msgspec.structs.replace(draft, base_url=control_plane)

    return transform
