"""Google's Gemini API."""

from __future__ import annotations

from asgi_aiproxy.dialects import GEMINI_CONTENT
from asgi_aiproxy.operations.images.gemini import GEMINI_IMAGES
from asgi_aiproxy.operations.speech import GEMINI_SPEECH
from asgi_aiproxy.operations.transcription import GEMINI_TRANSCRIPTION
from asgi_aiproxy.providers.base import Provider, header
from asgi_aiproxy.providers.operations import EMBED_CONTENT, GENERATE_CONTENT

GEMINI = Provider(
    name="gemini",
    dialect=GEMINI_CONTENT,
    base_url="https://generativelanguage.googleapis.com",
    auth=header("x-goog-api-key"),
    native_operations=GENERATE_CONTENT | EMBED_CONTENT,
    operations=(GEMINI_IMAGES, GEMINI_SPEECH, GEMINI_TRANSCRIPTION),
)
