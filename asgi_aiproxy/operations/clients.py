"""The operations besides chat that clients can request, and the APIs that vendors have, too."""

from __future__ import annotations

from collections.abc import Mapping

from asgi_aiproxy.dialects import neutral
from asgi_aiproxy.operations.base import AnyClientOperation, AnyOperationAPI
from asgi_aiproxy.operations.embeddings.gemini import GEMINI_EMBEDDINGS
from asgi_aiproxy.operations.embeddings.neutral import NeutralEmbeddings
from asgi_aiproxy.operations.embeddings.openai import OPENAI_EMBEDDINGS
from asgi_aiproxy.operations.images.base import OpenAIImagesClient
from asgi_aiproxy.operations.moderations import OpenAIModerationClient
from asgi_aiproxy.operations.speech import OpenAISpeechClient
from asgi_aiproxy.operations.transcription import OpenAITranscriptionClient

_IMAGES = OpenAIImagesClient()
_TRANSCRIPTION = OpenAITranscriptionClient()

# The APIs of clients whose paths belong to a dialect, by the name of the operation there.
CLIENTS: Mapping[str, AnyClientOperation] = {
    "embeddings": OPENAI_EMBEDDINGS,
    "embedContent": GEMINI_EMBEDDINGS,
    "batchEmbedContents": GEMINI_EMBEDDINGS,
    neutral.EMBEDDINGS.name: NeutralEmbeddings(),
    "images.generations": _IMAGES,
    "images.edits": _IMAGES,
    "audio.speech": OpenAISpeechClient(),
    "audio.transcriptions": _TRANSCRIPTION,
    "audio.translations": _TRANSCRIPTION,
    "moderations": OpenAIModerationClient(),
}
# The APIs of vendors that are those of clients, too: found by `Provider.native_operations`.
NATIVE_APIS: tuple[AnyOperationAPI, ...] = (OPENAI_EMBEDDINGS, GEMINI_EMBEDDINGS)
