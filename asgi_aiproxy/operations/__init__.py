"""Operations besides chat: their neutral form, the APIs of clients, and those of vendors. Pure.

- `base`: the interfaces, and how they work together;
- `embeddings`, `images`, `moderations`, `rerank`, `speech`, `transcription`: one operation each,
  with all its vendors;
- `clients`: what clients can request;
- `face`: serves an operation whose paths belong to no dialect;
- `forms`: forms with files;
- `bedrock`: what the operations on Amazon Bedrock share.

An operation is one module. Its class for clients is in `clients`, or given to a shim in `apis`, or
registered by an installed package (entry point group `asgi_aiproxy.apis`). Its classes for vendors
are among the `operations` of a `Provider`.
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
    from asgi_aiproxy.operations.clients import CLIENTS, NATIVE_APIS
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
    from asgi_aiproxy.operations.embeddings.vertex import VERTEX_EMBEDDINGS
    from asgi_aiproxy.operations.face import OperationFace
    from asgi_aiproxy.operations.faces import RERANK
    from asgi_aiproxy.operations.images.base import ImagesAPI, OpenAIImagesClient
    from asgi_aiproxy.operations.images.bedrock import BEDROCK_IMAGES
    from asgi_aiproxy.operations.images.flux import FLUX_IMAGES, FluxImages
    from asgi_aiproxy.operations.images.gemini import GEMINI_IMAGES
    from asgi_aiproxy.operations.images.self_hosted import ComfyUIImages, GradioImages
    from asgi_aiproxy.operations.moderations import MISTRAL_MODERATION, OpenAIModerationClient
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
    from asgi_aiproxy.operations.speech import (
        DEEPGRAM_SPEECH,
        ELEVENLABS_SPEECH,
        GEMINI_SPEECH,
        OpenAISpeechClient,
    )
    from asgi_aiproxy.operations.transcription import (
        DEEPGRAM_TRANSCRIPTION,
        ELEVENLABS_TRANSCRIPTION,
        GEMINI_TRANSCRIPTION,
        OpenAITranscriptionClient,
    )

__all__ = [
    "BEDROCK_EMBEDDINGS",
    "BEDROCK_IMAGES",
    "BEDROCK_RERANK",
    "CLIENTS",
    "COHERE_EMBEDDINGS",
    "COHERE_RERANK",
    "DEEPGRAM_SPEECH",
    "DEEPGRAM_TRANSCRIPTION",
    "ELEVENLABS_SPEECH",
    "ELEVENLABS_TRANSCRIPTION",
    "FLUX_IMAGES",
    "GEMINI_EMBEDDINGS",
    "GEMINI_IMAGES",
    "GEMINI_SPEECH",
    "GEMINI_TRANSCRIPTION",
    "INFINITY_RERANK",
    "JINA_EMBEDDINGS",
    "JINA_RERANK",
    "MISTRAL_EMBEDDINGS",
    "MISTRAL_MODERATION",
    "NATIVE_APIS",
    "OPENAI_EMBEDDINGS",
    "RERANK",
    "TEI_RERANK",
    "VERTEX_EMBEDDINGS",
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
    "ComfyUIImages",
    "CompatibleEmbeddings",
    "EmbeddingsAPI",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "FluxImages",
    "FollowUp",
    "GeminiEmbeddings",
    "GradioImages",
    "ImagesAPI",
    "NeutralEmbeddings",
    "OpenAIEmbeddings",
    "OpenAIImagesClient",
    "OpenAIModerationClient",
    "OpenAISpeechClient",
    "OpenAITranscriptionClient",
    "OperationAPI",
    "OperationFace",
    "RerankAPI",
    "RerankRequest",
    "RerankResponse",
]

_HOME = {
    "BEDROCK_EMBEDDINGS": "embeddings.bedrock",
    "BEDROCK_IMAGES": "images.bedrock",
    "BEDROCK_RERANK": "rerank",
    "BedrockEmbeddings": "embeddings.bedrock",
    "CLIENTS": "clients",
    "COHERE_EMBEDDINGS": "embeddings.cohere",
    "COHERE_RERANK": "rerank",
    "ClientEmbeddingsAPI": "embeddings.base",
    "CohereEmbeddings": "embeddings.cohere",
    "CohereRerankClient": "rerank",
    "ComfyUIImages": "images.self_hosted",
    "CompatibleEmbeddings": "embeddings.compatible",
    "DEEPGRAM_SPEECH": "speech",
    "DEEPGRAM_TRANSCRIPTION": "transcription",
    "ELEVENLABS_SPEECH": "speech",
    "ELEVENLABS_TRANSCRIPTION": "transcription",
    "EmbeddingsAPI": "embeddings.base",
    "EmbeddingsRequest": "embeddings.base",
    "EmbeddingsResponse": "embeddings.base",
    "FLUX_IMAGES": "images.flux",
    "FluxImages": "images.flux",
    "GEMINI_EMBEDDINGS": "embeddings.gemini",
    "GEMINI_IMAGES": "images.gemini",
    "GEMINI_SPEECH": "speech",
    "GEMINI_TRANSCRIPTION": "transcription",
    "GeminiEmbeddings": "embeddings.gemini",
    "GradioImages": "images.self_hosted",
    "INFINITY_RERANK": "rerank",
    "ImagesAPI": "images.base",
    "JINA_EMBEDDINGS": "embeddings.compatible",
    "JINA_RERANK": "rerank",
    "MISTRAL_EMBEDDINGS": "embeddings.compatible",
    "MISTRAL_MODERATION": "moderations",
    "NATIVE_APIS": "clients",
    "NeutralEmbeddings": "embeddings.neutral",
    "OPENAI_EMBEDDINGS": "embeddings.openai",
    "OpenAIEmbeddings": "embeddings.openai",
    "OpenAIImagesClient": "images.base",
    "OpenAIModerationClient": "moderations",
    "OpenAISpeechClient": "speech",
    "OpenAITranscriptionClient": "transcription",
    "OperationFace": "face",
    "RERANK": "faces",
    "RerankAPI": "rerank",
    "RerankRequest": "rerank",
    "RerankResponse": "rerank",
    "TEI_RERANK": "rerank",
    "VERTEX_EMBEDDINGS": "embeddings.vertex",
    "VLLM_RERANK": "rerank",
    "VOYAGE_EMBEDDINGS": "embeddings.compatible",
    "VOYAGE_RERANK": "rerank",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
