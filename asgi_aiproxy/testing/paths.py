"""The dialect and operation of a path: one mock server stands for every provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

from asgi_aiproxy.dialects.openai_responses import paths


class MatchedPath(NamedTuple):
    """The destination of a request. `operation` is empty for an unknown path."""

    dialect: str
    operation: str
    model: str = ""


_CONTENT = re.compile(
    r"/(?:models|endpoints)/([^/:]+):"
    r"(generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents)$"
)
_GEMINI = {"countTokens": "token_count", "embedContent": "embed", "batchEmbedContents": "embed"}
_CONVERSE = re.compile(r"/model/([^/]+)/converse(?:-stream)?$")
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")
_MODEL = re.compile(r"/models/(.+)$")
_TAILS = {
    "/v1/messages": MatchedPath("anthropic", "chat"),
    "/v1/messages/count_tokens": MatchedPath("anthropic", "token_count"),
    "/api/chat": MatchedPath("ollama", "chat"),
    "/v2/chat": MatchedPath("cohere", "chat"),
    "/v2/embed": MatchedPath("cohere", "embed"),
    "/v2/rerank": MatchedPath("cohere", "rerank"),
    "/responses": MatchedPath("openai_responses", "chat"),
    "/responses/input_tokens": MatchedPath("openai_responses", "token_count"),
}
_STORED = re.compile(r"/responses/[^/]+(/cancel|/input_items)?$")
_OF_STORED = {
    ("GET", None): paths.RETRIEVE,
    ("DELETE", None): paths.DELETE,
    ("POST", "/cancel"): paths.CANCEL,
    ("GET", "/input_items"): paths.INPUT_ITEMS,
}
_OPENAI = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/images/generations": "images.generations",
    "/images/edits": "images.edits",
    "/images/variations": "images.variations",
    "/audio/speech": "audio.speech",
    "/audio/transcriptions": "audio.transcriptions",
    "/audio/translations": "audio.translations",
    "/moderations": "moderations",
    "/rerank": "rerank",
}


def match_path(method: str, path: str, headers: Mapping[str, str]) -> MatchedPath:
    """Return the dialect and operation of a path and, if the path names it, the model.

    A path that no vendor documents is unknown, so that a wrong `base_url` is detected.
    """
    match = _bedrock(method, path) or _match(method, path, headers)
    if match.operation and _DOCUMENTED[match.dialect].match(path) is None:
        return MatchedPath(match.dialect, "")
    return match


# The path prefixes that vendors document. OpenAI's: also those of Groq, Azure, OpenRouter,
# Fireworks, Azure's older API and Google's compatible API. Anthropic's: also those of compatible
# servers.
_OPENAI_PATHS = re.compile(
    r"/(?:(?:openai/|api/|inference/|v1beta/)?v1|openai|openai/deployments/[^/]+|v1beta/openai)/"
    r"(?:(?:chat/)?completions|embeddings|images/\w+|audio/\w+|moderations|rerank|responses(?:/[^/]+(?:/\w+)?)?|models(?:/.*)?)$"
)
_DOCUMENTED = {
    "openai": _OPENAI_PATHS,
    "openai_responses": _OPENAI_PATHS,
    "anthropic": re.compile(r"(?:/anthropic)?/v1/(?:messages|models)"),
    # (A mirror of Google's API may add a prefix.)
    "gemini": re.compile(
        r"(?:/(?!v1)[^/]+)?/v1(?:beta\d*|alpha)?/(?:projects/.*/)?(?:models|endpoints)(?:/|$)"
    ),
    "ollama": re.compile(r"/api/(?:chat|tags)$"),
    "cohere": re.compile(r"/v2/(?:chat|embed|rerank)$"),
    "bedrock": re.compile(r"/(?:model/[^/]+/converse(?:-stream)?|foundation-models)$"),
}


def _bedrock(method: str, path: str) -> MatchedPath | None:
    if method == "GET" and path.endswith("/foundation-models"):
        return MatchedPath("bedrock", "models")
    found = _CONVERSE.search(path) if method == "POST" else None
    return MatchedPath("bedrock", "chat", unquote(found[1])) if found is not None else None


def _match(method: str, path: str, headers: Mapping[str, str]) -> MatchedPath:
    if method == "POST":
        if content := _CONTENT.search(path):
            operation = _GEMINI.get(content[2], "chat")
            return MatchedPath("gemini", operation, unquote(content[1]))
        for tail, found in _TAILS.items():
            if path.endswith(tail):
                return found
        for tail, operation in _OPENAI.items():
            if path.endswith(tail):
                deployment = _DEPLOYMENT.search(path)
                return MatchedPath(
                    "openai", operation, unquote(deployment[1]) if deployment else ""
                )
    if stored := _STORED.search(path):
        operation = _OF_STORED.get((method, stored[1]), "")
        return MatchedPath("openai_responses", operation)
    dialect = _guess(path, headers)
    if method == "GET":
        if path.endswith("/models" if dialect != "ollama" else "/api/tags"):
            return MatchedPath(dialect, "models")
        if dialect != "ollama" and (model := _MODEL.search(path)):
            return MatchedPath(dialect, "model", unquote(model[1]))
    return MatchedPath(dialect, "")


def _guess(path: str, headers: Mapping[str, str]) -> str:
    """Return the most likely dialect where paths are the same or unknown."""
    if "anthropic-version" in headers:
        return "anthropic"
    if "x-goog-api-key" in headers or "/v1beta" in path:
        return "gemini"
    return "ollama" if "/api/" in path and "/v1" not in path else "openai"
