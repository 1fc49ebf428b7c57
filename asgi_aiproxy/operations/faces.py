"""The client APIs of one operation that belong to no dialect."""

from __future__ import annotations

from asgi_aiproxy.operations.face import OperationFace
from asgi_aiproxy.operations.rerank import CohereRerankClient

RERANK = OperationFace(CohereRerankClient())
