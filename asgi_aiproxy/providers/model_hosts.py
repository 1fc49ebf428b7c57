"""Vendors that serve open models, or those of other vendors, by an OpenAI-compatible API: one
`Provider` each, with what is peculiar to it.
"""

from __future__ import annotations

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.message_format import vendor_format
from asgi_aiproxy.providers.operations import AUDIO, CHAT, COMPLETIONS, EMBEDDINGS

_IMAGE_GENERATIONS = frozenset({"images.generations"})

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
# https://docs.api.nvidia.com/nim/reference/llm-apis
NVIDIA = Provider(
    name="nvidia",
    refusals=refusal_codes.NVIDIA,
    dialect=OPENAI_CHAT,
    base_url="https://integrate.api.nvidia.com/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://docs.sambanova.ai/docs/en/api-reference/overview. 410: the model was removed.
SAMBANOVA = Provider(
    name="sambanova",
    refusals=refusal_codes.SAMBANOVA,
    dialect=OPENAI_CHAT,
    base_url="https://api.sambanova.ai/v1",
    native_operations=CHAT | EMBEDDINGS | frozenset({"audio.transcriptions"}),
    strict_format=False,
    transform_request=vendor_format,
)
# https://deepinfra.com/docs/advanced/openai_api
DEEPINFRA = Provider(
    name="deepinfra",
    refusals=refusal_codes.DEEPINFRA,
    dialect=OPENAI_CHAT,
    base_url="https://api.deepinfra.com/v1/openai",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://novita.ai/docs/api-reference/model-apis-llm-create-chat-completion
NOVITA = Provider(
    name="novita",
    refusals=refusal_codes.NOVITA,
    dialect=OPENAI_CHAT,
    base_url="https://api.novita.ai/openai/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://docs.tokenfactory.nebius.com/api-reference/introduction (formerly AI Studio).
NEBIUS = Provider(
    name="nebius",
    dialect=OPENAI_CHAT,
    base_url="https://api.tokenfactory.nebius.com/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://featherless.ai/docs/api-overview-and-common-options: models of Hugging Face by their
# names. Plans limit concurrent requests; 403: the model's licence was not accepted; 400: it is not
# loaded yet.
FEATHERLESS = Provider(
    name="featherless",
    refusals=refusal_codes.FEATHERLESS,
    dialect=OPENAI_CHAT,
    base_url="https://api.featherless.ai/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://docs.baseten.co/inference/model-apis/overview: the models that it offers to all; those of
# an account have addresses of their own. An invalid key is a 403.
BASETEN = Provider(
    name="baseten",
    refusals=refusal_codes.BASETEN,
    dialect=OPENAI_CHAT,
    base_url="https://inference.baseten.co/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
# https://docs.hyperbolic.ai/inference/text-apis. Limits are an account's, some models have their
# own: https://docs.hyperbolic.ai/inference/performance-limits
HYPERBOLIC = Provider(
    name="hyperbolic",
    dialect=OPENAI_CHAT,
    base_url="https://api.hyperbolic.xyz/v1",
    native_operations=CHAT | COMPLETIONS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://vercel.com/docs/ai-gateway/sdks-and-apis/openai-chat-completions: a gateway in front of
# other vendors; models are `creator/name`. Free credits have limits for each model:
# https://vercel.com/docs/ai-gateway/rate-limits
VERCEL = Provider(
    name="vercel",
    refusals=refusal_codes.VERCEL,
    dialect=OPENAI_CHAT,
    base_url="https://ai-gateway.vercel.sh/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
ROWS: tuple[Provider, ...] = (
    HUGGINGFACE,
    NVIDIA,
    SAMBANOVA,
    DEEPINFRA,
    NOVITA,
    NEBIUS,
    FEATHERLESS,
    BASETEN,
    HYPERBOLIC,
    VERCEL,
)
