"""Sets of OpenAI's operations, for `Provider.native_operations`."""

from __future__ import annotations

CHAT = frozenset({"chat.completions"})
COMPLETIONS = frozenset({"completions"})
EMBEDDINGS = frozenset({"embeddings"})
IMAGES = frozenset({"images.generations", "images.edits", "images.variations"})
AUDIO = frozenset({"audio.speech", "audio.transcriptions", "audio.translations"})
OPENAI_OPERATIONS = CHAT | COMPLETIONS | EMBEDDINGS | IMAGES | AUDIO | frozenset({"moderations"})
RERANK = frozenset({"rerank", "rerank.v1"})  # of Cohere
RESPONSES = frozenset(
    {"responses", "responses.input_tokens", "responses.retrieve", "responses.delete"}
    | {"responses.cancel", "responses.input_items", "responses.compact"}
)
MESSAGES = frozenset({"messages", "messages.count_tokens"})  # of Anthropic
# Of Google.
GENERATE_CONTENT = frozenset({"generateContent", "countTokens"})
EMBED_CONTENT = frozenset({"embedContent", "batchEmbedContents"})
