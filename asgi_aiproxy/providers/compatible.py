"""More vendors with an OpenAI-compatible API, one `Provider` each, with what is peculiar to it.

Those whose address belongs to an account are functions.
"""

from __future__ import annotations

import re

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.operations import (
    JINA_EMBEDDINGS,
    JINA_RERANK,
    VOYAGE_EMBEDDINGS,
    VOYAGE_RERANK,
)
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.message_format import drop_signatures, vendor_format
from asgi_aiproxy.providers.operations import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
)
from asgi_aiproxy.providers.transforms import (
    chain,
    models_at,
    new_limit,
    old_role,
    only_chat,
)

# https://docs.github.com/rest/models/inference: models are `publisher/name`, and are listed by the
# catalogue, at another address. Its limits are small; a 429 has `retry-after`.
GITHUB = Provider(
    name="github",
    refusals=refusal_codes.GITHUB,
    dialect=OPENAI_CHAT,
    base_url="https://models.github.ai/inference",
    headers={"x-github-api-version": "2026-03-10"},
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=chain(
        old_role, drop_signatures, models_at("https://models.github.ai/catalog", "/models")
    ),
)
# https://docs.voyageai.com/reference/embeddings-api: embeddings and rerank only.
VOYAGE = Provider(
    name="voyage",
    refusals=refusal_codes.VOYAGE,
    dialect=OPENAI_CHAT,
    base_url="https://api.voyageai.com/v1",
    strict_format=False,
    operations=(VOYAGE_EMBEDDINGS, VOYAGE_RERANK),
)
# https://jina.ai/embeddings: embeddings and rerank only.
JINA = Provider(
    name="jina",
    refusals=refusal_codes.JINA,
    dialect=OPENAI_CHAT,
    base_url="https://api.jina.ai/v1",
    strict_format=False,
    operations=(JINA_EMBEDDINGS, JINA_RERANK),
)

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def cloudflare(account: str = "", *, base_url: str = "", name: str = "cloudflare") -> Provider:
    """Cloudflare's Workers AI of an account (its id).

    Models are `@cf/publisher/name`. `base_url` is another address (of an AI gateway); `name` is
    the name of the provider. Raises ConfigurationError if neither an account nor an address is
    given. https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility/
    """
    root = f"https://api.cloudflare.com/client/v4/accounts/{_checked(account, base_url, name)}/ai"
    return Provider(
        name=name,
        refusals=refusal_codes.CLOUDFLARE,
        dialect=OPENAI_CHAT,
        base_url=base_url or f"{root}/v1",
        native_operations=CHAT | EMBEDDINGS | RESPONSES,
        strict_format=False,
        transform_request=vendor_format,
    )


def snowflake(account: str = "", *, base_url: str = "", name: str = "snowflake") -> Provider:
    """Snowflake's Cortex of an account (`organization-account`).

    Keys are programmatic access tokens or OAuth tokens. `base_url` is another address; `name` is
    the name of the provider. Raises ConfigurationError if neither an account nor an address is
    given. https://docs.snowflake.com/en/user-guide/snowflake-cortex/open_ai_sdk
    """
    host = f"{_checked(account, base_url, name)}.snowflakecomputing.com"
    return Provider(
        name=name,
        refusals=refusal_codes.SNOWFLAKE,
        dialect=OPENAI_CHAT,
        base_url=base_url or f"https://{host}/api/v2/cortex/v1",
        native_operations=CHAT,
        strict_format=False,
        transform_request=only_chat(new_limit, old_role, drop_signatures),
    )


def databricks(account: str = "", *, base_url: str = "", name: str = "databricks") -> Provider:
    """The model serving of a Databricks workspace.

    `account` is the host of the workspace (`dbc-1.cloud.databricks.com`, for example). Models are
    the names of serving endpoints. `base_url` is another address; `name` is the name of the
    provider. Raises ConfigurationError if neither a host nor an address is given.
    https://docs.databricks.com/aws/en/machine-learning/model-serving/query-chat-models
    """
    host = f"https://{_checked(account, base_url, name)}"
    root = base_url.rstrip("/").removesuffix("/serving-endpoints") if base_url else host
    return Provider(
        name=name,
        refusals=refusal_codes.DATABRICKS,
        dialect=OPENAI_CHAT,
        base_url=base_url or f"{host}/serving-endpoints",
        native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
        strict_format=False,
        transform_request=chain(vendor_format, models_at(root, "/api/2.0/serving-endpoints")),
    )


def _checked(account: str, base_url: str, name: str) -> str:
    if not base_url and not _ACCOUNT.fullmatch(account):
        raise ConfigurationError(f"{name}: account is required, unless base_url is given.")
    return account


ROWS: tuple[Provider, ...] = (GITHUB, VOYAGE, JINA)
