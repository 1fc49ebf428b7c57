"""The paths of each API that are served by default, and those whose resources belong to one key.

A vendor's key gives access to more than models: the same host accepts it for the administration of
the account. Listed here are inference and the resources for it; paths that return credentials of
the account (OpenAI's realtime client secrets, Google's auth tokens) are left out. By the vendors'
API references: https://platform.openai.com/docs/api-reference,
https://docs.anthropic.com/en/api, https://ai.google.dev/api,
https://github.com/ollama/ollama/blob/main/docs/api.md,
https://docs.cohere.com/reference,
https://docs.aws.amazon.com/bedrock/latest/APIReference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PathProfile:
    """An API's paths below the base URL, as patterns (see `PathPatterns`).

    `open` are the paths that are served. `stateful` are those whose resources are only found with
    the key that created them, and `calls` those of them where each call of a model creates one.
    `free` are the paths that call no model, whatever the method, `batches` those where one request
    makes many calls, and `sessions` the WebSocket paths whose URL names the model for the whole
    session.
    """

    open: tuple[str, ...]
    stateful: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ("/**",)


def _under(prefixes: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same patterns below several prefixes."""
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
    # stored chat completions; which calls store theirs, their bodies say
    "GET /chat/completions/**",
    "DELETE /chat/completions/**",
    "POST /chat/completions/*",
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

# (Ids are written out if a path next to them calls a model.)
_OPENAI_FREE = (
    "/files/**",
    "/uploads/**",
    "/batches/*/cancel",
    "/conversations/**",
    "/assistants/**",
    "/threads",
    "/threads/thread_*",
    "/threads/thread_*/messages/**",
    "/threads/thread_*/runs/*/cancel",
    "/vector_stores/**",
    "/containers/**",
    "/responses/*/cancel",
    "/chat/completions/chatcmpl*",
    "/fine_tuning/jobs/*/cancel",
    "/fine_tuning/jobs/*/pause",
    "/evals",
    "/evals/eval_*",
)
_OPENAI_BATCHES = ("/batches",)
_OPENAI_SESSIONS = ("/realtime",)

OPENAI = PathProfile(
    open=_under(_OPENAI_PREFIXES, _OPENAI_OPEN),
    stateful=_under(_OPENAI_PREFIXES, _OPENAI_STATEFUL),
    calls=_under(_OPENAI_PREFIXES, _OPENAI_CALLS),
    free=_under(_OPENAI_PREFIXES, _OPENAI_FREE),
    batches=_under(_OPENAI_PREFIXES, _OPENAI_BATCHES),
    sessions=_under(_OPENAI_PREFIXES, _OPENAI_SESSIONS),
)

AZURE = PathProfile(
    open=(*_under(_AZURE_PREFIXES, _OPENAI_OPEN), "/openai/deployments/*/*/**"),
    stateful=_under(_AZURE_PREFIXES, _OPENAI_STATEFUL),
    calls=_under(_AZURE_PREFIXES, _OPENAI_CALLS),
    free=_under(_AZURE_PREFIXES, _OPENAI_FREE),
    batches=(*_under(_AZURE_PREFIXES, _OPENAI_BATCHES), "/openai/deployments/*/batches"),
    sessions=_under(_AZURE_PREFIXES, _OPENAI_SESSIONS),
)

ANTHROPIC = PathProfile(
    open=(
        "/v1/messages/**",
        "/v1/complete",
        "GET /v1/models/**",
        "/v1/files/**",
        "/v1/skills/**",
    ),
    stateful=("/v1/messages/batches/**", "/v1/files/**", "/v1/skills/**"),
    free=(
        "/v1/messages/count_tokens",
        "/v1/messages/batches/*/cancel",
        "/v1/files/**",
        "/v1/skills/**",
    ),
    batches=("/v1/messages/batches",),
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

# The permissions of tuned models and corpora are not served: they belong to the account.
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

# Its second API, which is OpenAI's.
_GEMINI_OPENAI = tuple(f"{version}/openai" for version in _GEMINI_VERSIONS)

GEMINI = PathProfile(
    open=(
        *_under(_GEMINI_PREFIXES, _GEMINI_OPEN),
        *_under(_GEMINI_VERSIONS, ("/openai/**",)),
        "/ws/google.ai.generativelanguage.*",
    ),
    stateful=_under(_GEMINI_PREFIXES, _GEMINI_STATEFUL),
    calls=_under(_GEMINI_PREFIXES, ("/interactions",)),
    free=(
        *_under(
            _GEMINI_PREFIXES,
            ("/files/**", "/batches/*:cancel", "/models/*:countTokens", "/operations/**"),
        ),
        *_under(_GEMINI_OPENAI, _OPENAI_FREE),
    ),
    batches=(
        *_under(
            _GEMINI_PREFIXES,
            (
                "/models/*:batchGenerateContent",
                "/models/*:asyncBatchEmbedContent",
                "/tunedModels/*:batchGenerateContent",
                "/tunedModels/*:asyncBatchEmbedContent",
            ),
        ),
        *_under(_GEMINI_OPENAI, _OPENAI_BATCHES),
    ),
    sessions=(),
)

OLLAMA = PathProfile(
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
    ),
    free=("/api/show",),
)

COHERE = PathProfile(
    open=(
        "/v2/chat",
        "/v2/embed",
        "/v2/rerank",
        "/v1/chat",
        "/v1/embed",
        "/v1/rerank",
        "/v1/tokenize",
        "/v1/detokenize",
        "GET /v1/models/**",
    ),
    free=("/v1/tokenize", "/v1/detokenize"),
)

BEDROCK = PathProfile(
    open=(
        "/model/*/converse",
        "/model/*/converse-stream",
        "/model/*/invoke",
        "/model/*/invoke-with-response-stream",
        "/model/*/count-tokens",
    ),
    free=("/model/*/count-tokens",),
)

COZE = PathProfile(
    open=(
        "/v3/chat",
        "/v3/chat/submit_tool_outputs",
        "/v3/chat/cancel",
        "GET /v3/chat/retrieve",
        "GET /v3/chat/message/list",
    ),
    free=("/v3/chat/cancel",),
)

# https://elevenlabs.io/docs/api-reference
ELEVENLABS = PathProfile(
    open=(
        "/v1/text-to-speech/*",
        "/v1/text-to-speech/*/stream",
        "/v1/speech-to-text",
        "GET /v1/models",
    ),
)

# https://developers.deepgram.com/reference
DEEPGRAM = PathProfile(open=("/v1/speak", "/v1/listen", "GET /v1/models"))

# https://docs.bfl.ai/api-reference
BFL = PathProfile(
    open=(
        *("/v1/flux-2-pro", "/v1/flux-2-flex", "/v1/flux-2-max", "/v1/flux-kontext-pro"),
        *("/v1/flux-kontext-max", "/v1/flux-pro-1.1", "/v1/flux-pro-1.1-ultra", "/v1/flux-dev"),
        "GET /v1/get_result",
    ),
)

# By the name of the dialect, or by `Provider.path_profile`.
PATH_PROFILES = {
    "openai_chat": OPENAI,
    "openai_responses": OPENAI,
    "azure": AZURE,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "ollama": OLLAMA,
    "cohere": COHERE,
    "coze": COZE,
    "bedrock": BEDROCK,
    "elevenlabs": ELEVENLABS,
    "deepgram": DEEPGRAM,
    "bfl": BFL,
}

# Paths that call a model: every valid key of the vendor works there.
MODEL_CALL = re.compile(
    r"(?:/v\d\w*)?(?:/openai)?(?:/deployments/[^/]+)?(?:/v1)?/(?:chat/completions|completions"
    r"|embeddings|responses|messages|complete|realtime|api/(?:chat|generate|embed|embeddings)"
    r"|models/[^/:]+:(?:generateContent|streamGenerateContent|embedContent|batchEmbedContents)"
    r"|model/[^/]+/(?:invoke|invoke-with-response-stream|converse|converse-stream)"
    r"|ws/google\.ai\.generativelanguage\.[^/]+)"
)
