"""Vendors with OpenAI's format. More are in `compatible` and `self_hosted`.

URLs and quirks are from the vendors' API references. Responses that deviate from the format are
normalized with `strict_format=False`, see `asgi_aiproxy.dialects.openai_chat.normalize`.
"""

from __future__ import annotations

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.operations import MISTRAL_EMBEDDINGS, MISTRAL_MODERATION
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.message_format import (
    CEREBRAS_MESSAGES,
    GROQ_MESSAGES,
    MISTRAL_MESSAGES,
    drop_signatures,
    message_format,
    reasoning_required,
    text_only,
    tool_format,
    vendor_format,
)
from asgi_aiproxy.providers.operations import AUDIO, CHAT, COMPLETIONS, EMBEDDINGS
from asgi_aiproxy.providers.transforms import (
    aspect_ratio,
    chain,
    drop_fields,
    effort_within,
    image_size_as,
    old_role,
    older_format,
    only_chat,
    only_images,
    rename_fields,
    replace_value,
)

# Members of OpenAI's chat requests for its own models and services.
_OF_OPENAI: tuple[str, ...] = (
    *("moderation", "prompt_cache_options", "prompt_cache_retention"),
    *("safety_identifier", "verbosity", "web_search_options"),
)
# https://docs.mistral.ai/api/endpoint/chat. Rejects unknown members. Its last chunk always has
# usage.
MISTRAL = Provider(
    name="mistral",
    refusals=refusal_codes.MISTRAL,
    dialect=OPENAI_CHAT,
    base_url="https://api.mistral.ai/v1",
    native_operations=CHAT | frozenset({"audio.transcriptions"}),
    operations=(MISTRAL_EMBEDDINGS, MISTRAL_MODERATION),
    strict_format=False,
    transform_request=chain(
        older_format,
        rename_fields(seed="random_seed"),
        drop_fields("stream_options", reported=False),
        text_only,
        only_chat(drop_fields(*_OF_OPENAI, "logit_bias", "store", "user")),
        tool_format(parameters=True),
        message_format(MISTRAL_MESSAGES),
    ),
)
# https://console.groq.com/docs/api-reference#chat-create. Rejects unknown members. Its last chunk
# always has usage.
GROQ = Provider(
    name="groq",
    refusals=refusal_codes.GROQ,
    dialect=OPENAI_CHAT,
    base_url="https://api.groq.com/openai/v1",
    native_operations=CHAT | AUDIO,
    strict_format=False,
    transform_request=chain(
        old_role,
        drop_fields("stream_options", reported=False),
        text_only,
        only_chat(drop_fields(*_OF_OPENAI, "prediction", "prompt_cache_key")),
        effort_within("none", "low", "medium", "high"),
        tool_format(),
        message_format(GROQ_MESSAGES),
    ),
)
DEEPSEEK = Provider(
    name="deepseek",
    refusals=refusal_codes.DEEPSEEK,
    dialect=OPENAI_CHAT,
    base_url="https://api.deepseek.com",
    native_operations=CHAT,
    strict_format=False,
    transform_request=chain(vendor_format, only_chat(reasoning_required)),
)
XAI = Provider(
    name="xai",
    refusals=refusal_codes.XAI,
    dialect=OPENAI_CHAT,
    base_url="https://api.x.ai/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | frozenset({"images.generations"}),
    strict_format=False,
    # https://docs.x.ai/developers/model-capabilities/images/generation: ratios instead of sizes
    transform_request=chain(
        drop_signatures,
        image_size_as(aspect_ratio),
        only_images(drop_fields("style", "background", "output_format", "output_compression")),
    ),
)
OPENROUTER = Provider(
    name="openrouter",
    refusals=refusal_codes.OPENROUTER,
    dialect=OPENAI_CHAT,
    base_url="https://openrouter.ai/api/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
)
TOGETHER = Provider(
    name="together",
    refusals=refusal_codes.TOGETHER,
    dialect=OPENAI_CHAT,
    base_url="https://api.together.xyz/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | frozenset({"images.generations"}),
    strict_format=False,
    # https://docs.together.ai/reference/post-images-generations: width and height, "base64"
    transform_request=chain(
        vendor_format,
        image_size_as(lambda width, height: {"width": width, "height": height}),
        only_images(replace_value("response_format", "b64_json", "base64")),
        only_images(drop_fields("quality", "style", "background", "moderation", "user")),
    ),
)
FIREWORKS = Provider(
    name="fireworks",
    refusals=refusal_codes.FIREWORKS,
    dialect=OPENAI_CHAT,
    base_url="https://api.fireworks.ai/inference/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
PERPLEXITY = Provider(
    name="perplexity",
    refusals=refusal_codes.PERPLEXITY,
    dialect=OPENAI_CHAT,
    base_url="https://api.perplexity.ai",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
# https://inference-docs.cerebras.ai/api-reference/chat-completions. Rejects unknown members.
CEREBRAS = Provider(
    name="cerebras",
    refusals=refusal_codes.CEREBRAS,
    dialect=OPENAI_CHAT,
    base_url="https://api.cerebras.ai/v1",
    native_operations=CHAT | COMPLETIONS,
    strict_format=False,
    transform_request=chain(
        old_role,
        text_only,
        only_chat(drop_fields(*_OF_OPENAI, "metadata", "store")),
        effort_within("none", "low", "medium", "high"),
        tool_format(),
        message_format(CEREBRAS_MESSAGES),
    ),
)
