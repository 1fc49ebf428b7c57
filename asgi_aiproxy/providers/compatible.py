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
    AUDIO,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
)
from asgi_aiproxy.providers.transforms import (
    add_fields,
    chain,
    drop_fields,
    effort_as,
    image_size_as,
    limit_field,
    models_at,
    new_limit,
    old_role,
    only_chat,
    only_images,
    rename_fields,
)

_IMAGE_GENERATIONS = frozenset({"images.generations"})

# https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope (Qwen; in
# China: base_url https://dashscope.aliyuncs.com/compatible-mode/v1). Thinking is a switch. Some
# thinking models only stream.
DASHSCOPE = Provider(
    name="dashscope",
    refusals=refusal_codes.DASHSCOPE,
    dialect=OPENAI_CHAT,
    base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=chain(
        vendor_format, effort_as(lambda effort: {"enable_thinking": effort != "none"})
    ),
)
# https://docs.z.ai/api-reference/llm/chat-completion (GLM; in China: base_url
# https://open.bigmodel.cn/api/paas/v4). Thinking is a switch; `tool_choice` is always auto; one
# stop word. Streams end with usage without a request for it.
ZAI = Provider(
    name="zai",
    refusals=refusal_codes.ZAI,
    dialect=OPENAI_CHAT,
    base_url="https://api.z.ai/api/paas/v4",
    native_operations=CHAT | EMBEDDINGS | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=chain(
        vendor_format,
        effort_as(lambda e: {"thinking": {"type": "disabled" if e == "none" else "enabled"}}),
        rename_fields(user="user_id"),
    ),
)
# https://platform.kimi.ai/docs/api/chat (in China: base_url https://api.moonshot.cn/v1).
# Temperatures end at 1.
MOONSHOT = Provider(
    name="moonshot",
    refusals=refusal_codes.MOONSHOT,
    dialect=OPENAI_CHAT,
    base_url="https://api.moonshot.ai/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=chain(vendor_format, limit_field("temperature", 0, 1)),
)
# https://platform.minimax.io/docs/api-reference/text-openai-api (in China: base_url
# https://api.minimaxi.com/v1). Thoughts are in the text, within <think>, unless `reasoning_split`
# is set. Errors may come with status 200, in `base_resp`.
MINIMAX = Provider(
    name="minimax",
    refusals=refusal_codes.MINIMAX,
    dialect=OPENAI_CHAT,
    base_url="https://api.minimax.io/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=chain(
        vendor_format, add_fields(reasoning_split=True), limit_field("temperature", 0, 1)
    ),
)
# https://docs.siliconflow.com/en/api-reference/chat-completions (in China: base_url
# https://api.siliconflow.cn/v1). Thinking is a switch. Error codes are numbers.
SILICONFLOW = Provider(
    name="siliconflow",
    refusals=refusal_codes.SILICONFLOW,
    dialect=OPENAI_CHAT,
    base_url="https://api.siliconflow.com/v1",
    native_operations=CHAT | EMBEDDINGS | AUDIO | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=chain(
        vendor_format,
        effort_as(lambda effort: {"enable_thinking": effort != "none"}),
        image_size_as(lambda width, height: {"image_size": f"{width}x{height}"}),
        only_images(rename_fields(n="batch_size")),
        only_images(drop_fields("quality", "style", "response_format", "user")),
    ),
)
# https://huggingface.co/docs/inference-providers: a router in front of other vendors; a model may
# name one (`openai/gpt-oss-120b:groq`) or a policy (`:cheapest`). 402: no credits are left.
HUGGINGFACE = Provider(
    name="huggingface",
    refusals=refusal_codes.HUGGINGFACE,
    dialect=OPENAI_CHAT,
    base_url="https://router.huggingface.co/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
# https://docs.api.nvidia.com/nim/reference/llm-apis. 402: no credits are left.
NVIDIA = Provider(
    name="nvidia",
    refusals=refusal_codes.NVIDIA,
    dialect=OPENAI_CHAT,
    base_url="https://integrate.api.nvidia.com/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
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
# https://docs.sambanova.ai/docs/en/api-reference/overview
SAMBANOVA = Provider(
    name="sambanova",
    refusals=refusal_codes.SAMBANOVA,
    dialect=OPENAI_CHAT,
    base_url="https://api.sambanova.ai/v1",
    native_operations=CHAT | EMBEDDINGS | frozenset({"audio.transcriptions"}),
    strict_format=False,
    transform_request=vendor_format,
)
# https://deepinfra.com/docs/openai_api
DEEPINFRA = Provider(
    name="deepinfra",
    refusals=refusal_codes.DEEPINFRA,
    dialect=OPENAI_CHAT,
    base_url="https://api.deepinfra.com/v1/openai",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=vendor_format,
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


ROWS: tuple[Provider, ...] = (
    DASHSCOPE,
    ZAI,
    MOONSHOT,
    MINIMAX,
    SILICONFLOW,
    HUGGINGFACE,
    NVIDIA,
    GITHUB,
    SAMBANOVA,
    DEEPINFRA,
    VOYAGE,
    JINA,
)
