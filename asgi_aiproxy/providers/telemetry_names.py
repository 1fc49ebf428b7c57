"""The names of vendors in the semantic conventions of OpenTelemetry, `gen_ai.provider.name`.

Source: https://github.com/open-telemetry/semantic-conventions-genai (v0.1.0). A provider that is
not in the table is named as it is configured.
"""

from __future__ import annotations

from collections.abc import Mapping

PROVIDER_NAMES: Mapping[str, str] = {
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "vertex-gemini": "gcp.vertex_ai",
    "vertex-anthropic": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "moonshot": "moonshot_ai",
}
# `gen_ai.operation.name` by the operation that a client requests; others keep their name.
OPERATION_NAMES: Mapping[str, str] = {
    "chat.completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "generateContent": "generate_content",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "embedContent": "embeddings",
    "batchEmbedContents": "embeddings",
    "in_process.chat": "chat",
    "in_process.embeddings": "embeddings",
}
