"""The operations besides chat that clients can request, and the APIs that vendors have, too."""

from __future__ import annotations

from collections.abc import Mapping

from asgi_aiproxy.dialects import neutral
from asgi_aiproxy.operations.base import AnyClientOperation, AnyOperationAPI
from asgi_aiproxy.operations.embeddings.gemini import GEMINI_EMBEDDINGS
from asgi_aiproxy.operations.embeddings.neutral import NeutralEmbeddings
from asgi_aiproxy.operations.embeddings.openai import OPENAI_EMBEDDINGS
from asgi_aiproxy.operations.face import OperationFace
from asgi_aiproxy.operations.rerank import CohereRerankClient

RERANK = OperationFace(CohereRerankClient())

# The APIs of clients whose paths belong to a dialect, by the name of the operation there.
CLIENTS: Mapping[str, AnyClientOperation] = {
    "embeddings": OPENAI_EMBEDDINGS,
    "embedContent": GEMINI_EMBEDDINGS,
    "batchEmbedContents": GEMINI_EMBEDDINGS,
    neutral.EMBEDDINGS.name: NeutralEmbeddings(),
}
# The APIs of vendors that are those of clients, too: found by `Provider.native_operations`.
NATIVE_APIS: tuple[AnyOperationAPI, ...] = (OPENAI_EMBEDDINGS, GEMINI_EMBEDDINGS)
