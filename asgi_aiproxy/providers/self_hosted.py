"""Servers that run on the own machine, and any server with an OpenAI-compatible API.

They need no API key unless they were started with one. A server elsewhere is another `base_url`.
"""

from __future__ import annotations

import msgspec

from asgi_aiproxy.dialects import OLLAMA_CHAT, OPENAI_CHAT
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.operations import INFINITY_RERANK, TEI_RERANK, VLLM_RERANK
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.operations import (
    AUDIO,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    OPENAI_OPERATIONS,
)
from asgi_aiproxy.providers.transforms import older_format


def openai_api_under_v1(draft: ProviderRequest) -> ProviderRequest:
    """Ollama serves OpenAI's operations below /v1, next to its own API."""
    if draft.path.startswith("/api/"):
        return draft
    return msgspec.structs.replace(draft, path="/v1" + draft.path)


def openai_embeddings_under_v1(draft: ProviderRequest) -> ProviderRequest:
    """Text Embeddings Inference serves OpenAI's embeddings below /v1, and rerank outside."""
    if draft.path != "/embeddings":
        return draft
    return msgspec.structs.replace(draft, path="/v1" + draft.path)


# https://docs.ollama.com/api/introduction. Its cloud has the same API: base_url https://ollama.com
# and an API key.
OLLAMA = Provider(
    name="ollama",
    dialect=OLLAMA_CHAT,
    base_url="http://127.0.0.1:11434",
    native_operations=COMPLETIONS | EMBEDDINGS,
    transform_request=openai_api_under_v1,
)
VLLM = Provider(
    name="vllm",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8000/v1",
    native_operations=OPENAI_OPERATIONS,
    operations=(VLLM_RERANK,),
    strict_format=False,
    transform_request=older_format,
)
LMSTUDIO = Provider(
    name="lmstudio",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:1234/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=older_format,
)
# https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md: serves one model,
# whatever the request names. It also takes members of its own (`min_p`, `grammar`).
LLAMACPP = Provider(
    name="llamacpp",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8080/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=older_format,
)
# https://huggingface.co/docs/text-generation-inference/messages_api: serves one model, named `tgi`
# or anything else. 429 means that its queue is full.
TGI = Provider(
    name="tgi",
    refusals=refusal_codes.TGI,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8080/v1",
    native_operations=CHAT | COMPLETIONS,
    strict_format=False,
    transform_request=older_format,
)
# https://docs.sglang.ai/basic_usage/openai_api.html
SGLANG = Provider(
    name="sglang",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:30000/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS,
    strict_format=False,
    transform_request=older_format,
)
# https://jan.ai/docs/desktop/api-preference: a desktop application's server, which requires the key
# that is set in it.
JAN = Provider(
    name="jan",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:1337/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=older_format,
)
# https://localai.io/docs/basics/try/: needs a key if it was started with one.
LOCALAI = Provider(
    name="localai",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8080/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | frozenset({"images.generations"}),
    strict_format=False,
    transform_request=older_format,
)
# https://inference.readthedocs.io/en/latest/index.html: a model is the uid with which it was
# launched.
XINFERENCE = Provider(
    name="xinference",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:9997/v1",
    native_operations=CHAT | COMPLETIONS | EMBEDDINGS | AUDIO | frozenset({"images.generations"}),
    strict_format=False,
    transform_request=older_format,
)


# https://huggingface.github.io/text-embeddings-inference/: embeddings and rerank, of one model.
TEI = Provider(
    name="tei",
    refusals=refusal_codes.TGI,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:8080",
    native_operations=EMBEDDINGS,
    operations=(TEI_RERANK,),
    strict_format=False,
    transform_request=openai_embeddings_under_v1,
)
# https://github.com/michaelfeil/infinity: embeddings and rerank.
INFINITY = Provider(
    name="infinity",
    refusals=refusal_codes.LOCAL,
    dialect=OPENAI_CHAT,
    base_url="http://127.0.0.1:7997",
    native_operations=EMBEDDINGS,
    operations=(INFINITY_RERANK,),
    strict_format=False,
)


def openai_compatible(base_url: str, *, name: str = "openai-compatible") -> Provider:
    """A server with an OpenAI-compatible API; `base_url` usually ends with `/v1`.

    `name` is the name of the provider. Its responses are normalized. Raises ConfigurationError if
    `base_url` is invalid.
    """
    return Provider(
        name=name,
        dialect=OPENAI_CHAT,
        base_url=base_url,
        native_operations=OPENAI_OPERATIONS,
        strict_format=False,
        transform_request=older_format,
    )
