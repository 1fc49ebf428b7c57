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

from collections.abc import Mapping

from asgi_aiproxy.dialects.neutral import EMBEDDINGS as IN_PROCESS_EMBEDDINGS
from asgi_aiproxy.operations.base import (
    AnyClientOperation,
    AnyOperationAPI,
    ClientOperation,
    FollowUp,
    OperationAPI,
)
from asgi_aiproxy.operations.embeddings.base import (
    ClientEmbeddingsAPI,
    EmbeddingsAPI,
    EmbeddingsRequest,
    EmbeddingsResponse,
)
from asgi_aiproxy.operations.embeddings.bedrock import BedrockEmbeddings
from asgi_aiproxy.operations.embeddings.cohere import CohereEmbeddings
from asgi_aiproxy.operations.embeddings.compatible import (
    JINA_EMBEDDINGS,
    MISTRAL_EMBEDDINGS,
    VOYAGE_EMBEDDINGS,
    CompatibleEmbeddings,
)
from asgi_aiproxy.operations.embeddings.gemini import GeminiEmbeddings
from asgi_aiproxy.operations.embeddings.neutral import NeutralEmbeddings
from asgi_aiproxy.operations.embeddings.openai import OpenAIEmbeddings
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

OPENAI_EMBEDDINGS = OpenAIEmbeddings()
GEMINI_EMBEDDINGS = GeminiEmbeddings()
COHERE_EMBEDDINGS = CohereEmbeddings()
BEDROCK_EMBEDDINGS = BedrockEmbeddings()
RERANK = OperationFace(CohereRerankClient())

# The APIs of clients whose paths belong to a dialect, by the name of the operation there.
CLIENTS: Mapping[str, AnyClientOperation] = {
    "embeddings": OPENAI_EMBEDDINGS,
    "embedContent": GEMINI_EMBEDDINGS,
    "batchEmbedContents": GEMINI_EMBEDDINGS,
    IN_PROCESS_EMBEDDINGS.name: NeutralEmbeddings(),
}
# The APIs of vendors that are those of clients, too: found by `Provider.native_operations`.
NATIVE_APIS: tuple[AnyOperationAPI, ...] = (OPENAI_EMBEDDINGS, GEMINI_EMBEDDINGS)

__all__ = [
    "BEDROCK_EMBEDDINGS",
    "BEDROCK_RERANK",
    "CLIENTS",
    "COHERE_EMBEDDINGS",
    "COHERE_RERANK",
    "GEMINI_EMBEDDINGS",
    "INFINITY_RERANK",
    "IN_PROCESS_EMBEDDINGS",
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
