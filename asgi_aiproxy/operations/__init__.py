"""Operations besides chat: their neutral form, the APIs of clients, and those of vendors. Pure.

- `base`: the interfaces, and how they work together;
- `embeddings`, `rerank`: one operation each, with all its vendors;
- `face`: serves an operation whose paths belong to no dialect;
- `forms`: forms with files;
- `bedrock`: what the operations on Amazon Bedrock share.

An operation is one module. Its class for clients is in `CLIENTS`, or given to a shim as
`operations=`, or registered by an installed package (entry point group `asgi_aiproxy.operations`).
Its classes for vendors are among the `operations` of a `Provider`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use
from asgi_aiproxy.operations.base import (
    AnyClientOperation,
    AnyOperationAPI,
    ClientOperation,
    FollowUp,
    OperationAPI,
)

if TYPE_CHECKING:
    from asgi_aiproxy.operations.clients import CLIENTS, NATIVE_APIS, RERANK
    from asgi_aiproxy.operations.embeddings.base import (
        ClientEmbeddingsAPI,
        EmbeddingsAPI,
        EmbeddingsRequest,
        EmbeddingsResponse,
    )
    from asgi_aiproxy.operations.embeddings.bedrock import BEDROCK_EMBEDDINGS, BedrockEmbeddings
    from asgi_aiproxy.operations.embeddings.cohere import COHERE_EMBEDDINGS, CohereEmbeddings
    from asgi_aiproxy.operations.embeddings.compatible import (
        JINA_EMBEDDINGS,
        MISTRAL_EMBEDDINGS,
        VOYAGE_EMBEDDINGS,
        CompatibleEmbeddings,
    )
    from asgi_aiproxy.operations.embeddings.gemini import GEMINI_EMBEDDINGS, GeminiEmbeddings
    from asgi_aiproxy.operations.embeddings.neutral import NeutralEmbeddings
    from asgi_aiproxy.operations.embeddings.openai import OPENAI_EMBEDDINGS, OpenAIEmbeddings
    from asgi_aiproxy.operations.face import OperationFace
    from asgi_aiproxy.operations.rerank import (
        BEDROCK_RERANK,
        COHERE_RERANK,
        INFINITY_RERANK,
        JINA_RERANK,
        TEI_RERANK,
        VLLM_RERANK,
        VOYAGE_RERANK,
        CohereRerankClient,
        RerankAPI,
        RerankRequest,
        RerankResponse,
    )

__all__ = [
    "BEDROCK_EMBEDDINGS",
    "BEDROCK_RERANK",
    "CLIENTS",
    "COHERE_EMBEDDINGS",
    "COHERE_RERANK",
    "GEMINI_EMBEDDINGS",
    "INFINITY_RERANK",
    "JINA_EMBEDDINGS",
    "JINA_RERANK",
    "MISTRAL_EMBEDDINGS",
    "NATIVE_APIS",
    "OPENAI_EMBEDDINGS",
    "RERANK",
    "TEI_RERANK",
    "VLLM_RERANK",
    "VOYAGE_EMBEDDINGS",
    "VOYAGE_RERANK",
    "AnyClientOperation",
    "AnyOperationAPI",
    "BedrockEmbeddings",
    "ClientEmbeddingsAPI",
    "ClientOperation",
    "CohereEmbeddings",
    "CohereRerankClient",
    "CompatibleEmbeddings",
    "EmbeddingsAPI",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "FollowUp",
    "GeminiEmbeddings",
    "NeutralEmbeddings",
    "OpenAIEmbeddings",
    "OperationAPI",
    "OperationFace",
    "RerankAPI",
    "RerankRequest",
    "RerankResponse",
]

_HOME = {
    "BEDROCK_EMBEDDINGS": "embeddings.bedrock",
    "BEDROCK_RERANK": "rerank",
    "BedrockEmbeddings": "embeddings.bedrock",
    "CLIENTS": "clients",
    "COHERE_EMBEDDINGS": "embeddings.cohere",
    "COHERE_RERANK": "rerank",
    "ClientEmbeddingsAPI": "embeddings.base",
    "CohereEmbeddings": "embeddings.cohere",
    "CohereRerankClient": "rerank",
    "CompatibleEmbeddings": "embeddings.compatible",
    "EmbeddingsAPI": "embeddings.base",
    "EmbeddingsRequest": "embeddings.base",
    "EmbeddingsResponse": "embeddings.base",
    "GEMINI_EMBEDDINGS": "embeddings.gemini",
    "GeminiEmbeddings": "embeddings.gemini",
    "INFINITY_RERANK": "rerank",
    "JINA_EMBEDDINGS": "embeddings.compatible",
    "JINA_RERANK": "rerank",
    "MISTRAL_EMBEDDINGS": "embeddings.compatible",
    "NATIVE_APIS": "clients",
    "NeutralEmbeddings": "embeddings.neutral",
    "OPENAI_EMBEDDINGS": "embeddings.openai",
    "OpenAIEmbeddings": "embeddings.openai",
    "OperationFace": "face",
    "RERANK": "clients",
    "RerankAPI": "rerank",
    "RerankRequest": "rerank",
    "RerankResponse": "rerank",
    "TEI_RERANK": "rerank",
    "VLLM_RERANK": "rerank",
    "VOYAGE_EMBEDDINGS": "embeddings.compatible",
    "VOYAGE_RERANK": "rerank",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
