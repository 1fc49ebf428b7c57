"""What of each API is open by default, and what of it lives with one key.

A key of a vendor's opens more than models: the same host takes it for the administration of the
account. What is listed here is inference and what belongs to it; what hands out credentials of the
account (OpenAI's realtime client secrets, Google's auth tokens) is left out. By the vendors' API
references: https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api,
https://ai.google.dev/api, https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Surface:
    """An API's paths below the base URL, as patterns (see `Opened`).

    `stateful` are those whose resources only the key that made them finds again, `calls` those of
    them where each call of a model makes one, and `references`
    the members of JSON bodies that name such a resource.
    """

    open: tuple[str, ...]
    stateful: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def _under(prefixes: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The same patterns below several prefixes."""
    found = []
    for pattern in patterns:
        method, space, path = pattern.rpartition(" ")
        found += [f"{method}{space}{prefix}{path}" for prefix in prefixes]
    return tuple(found)


_OPENAI_PREFIXES = ("", "/v1")
_AZURE_PREFIXES = ("/openai", "/openai/v1")
_OPENAI_STATEFUL = (
    "/responses/**",
    "/conversations/**",
    "/files/**",
    "/uploads/**",
    "/batches/**",
    "/assistants/**",
    "/threads/**",
    "/vector_stores/**",
    "/containers/**",
    "/fine_tuning/jobs/**",
    "/evals/**",
    "/videos/**",
)
_OPENAI_CALLS = ("/responses",)
_OPENAI_OPEN = (
    "/chat/completions/**",
    "/completions",
    "/embeddings",
    "/moderations",
    "/images/**",
    "/audio/**",
    "GET /models/**",
    "/realtime",
    "/rerank",
    *_OPENAI_STATEFUL,
)

_OPENAI_REFERENCES = (
    "file_id",
    "file_ids",
    "input_file_id",
    "previous_response_id",
    "conversation",
    "vector_store_ids",
    "container",
)

OPENAI = Surface(
    open=_under(_OPENAI_PREFIXES, _OPENAI_OPEN),
    stateful=_under(_OPENAI_PREFIXES, _OPENAI_STATEFUL),
    calls=_under(_OPENAI_PREFIXES, _OPENAI_CALLS),
    references=_OPENAI_REFERENCES,
)

AZURE = Surface(
    open=(*_under(_AZURE_PREFIXES, _OPENAI_OPEN), "/openai/deployments/*/*/**"),
    stateful=_under(_AZURE_PREFIXES, _OPENAI_STATEFUL),
    calls=_under(_AZURE_PREFIXES, _OPENAI_CALLS),
    references=_OPENAI_REFERENCES,
)

ANTHROPIC = Surface(
    open=(
        "/v1/messages/**",
        "/v1/complete",
        "GET /v1/models/**",
        "/v1/files/**",
        "/v1/skills/**",
    ),
    stateful=("/v1/messages/batches/**", "/v1/files/**", "/v1/skills/**"),
    references=("file_id", "skill_id", "container"),
)

_GEMINI_VERSIONS = ("/v1", "/v1alpha*", "/v1beta*")
_GEMINI_PREFIXES = tuple(
    f"{way}{v}" for way in ("", "/upload", "/download") for v in _GEMINI_VERSIONS
)
_GEMINI_STATEFUL = (
    "/files/**",
    "/cachedContents/**",
    "/batches/**",
    "/operations/**",
    "/tunedModels/**",
    "/corpora/**",
    "/fileSearchStores/**",
    "/interactions/**",
)

# Who may use a tuned model or a corpus is the account's business.
_GEMINI_OPEN = (
    "/models/**",
    "/files/**",
    "/cachedContents/**",
    "/batches/**",
    "/operations/**",
    "/tunedModels",
    "GET /tunedModels/*",
    "PATCH /tunedModels/*",
    "DELETE /tunedModels/*",
    "/tunedModels/*:generateContent",
    "/tunedModels/*:streamGenerateContent",
    "/tunedModels/*:batchGenerateContent",
    "/tunedModels/*:asyncBatchEmbedContent",
    "/tunedModels/*/operations/**",
    "/corpora",
    "/corpora/*",
    "/corpora/*/documents/**",
    "/corpora/*/operations/**",
    "/fileSearchStores/**",
    "/interactions/**",
)

GEMINI = Surface(
    open=(
        *_under(_GEMINI_PREFIXES, _GEMINI_OPEN),
        *_under(_GEMINI_VERSIONS, ("/openai/**",)),
        "/ws/google.ai.generativelanguage.*",
    ),
    stateful=_under(_GEMINI_PREFIXES, _GEMINI_STATEFUL),
    calls=_under(_GEMINI_PREFIXES, ("/interactions",)),
    references=("fileUri", "file_uri", "cachedContent", "cached_content"),
)

OLLAMA = Surface(
    open=(
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "GET /api/tags",
        "/api/show",
        "GET /api/ps",
        "GET /api/version",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "GET /v1/models/**",
    )
)

# By the name of the dialect, or by `Provider.surface`.
SURFACES = {
    "openai_chat": OPENAI,
    "azure": AZURE,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "ollama": OLLAMA,
}
