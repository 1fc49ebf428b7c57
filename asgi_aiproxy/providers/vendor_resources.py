"""The paths of files and batches in each client API, and which dialects of providers have them.

- https://platform.openai.com/docs/api-reference/files, .../uploads and .../batch
- https://platform.claude.com/docs/en/api/creating-message-batches and .../files-create (beta)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceAPI:
    """The resources of a client API.

    `paths` matches up to a collection, `batches` the path that creates a batch; `references` are
    the members of its body that name a resource, and `call_path` is the path of a call that names
    none. `opened` are the patterns of `PassthroughProxy`, and `dialects` the names of the dialects
    whose providers have this API.
    """

    paths: str
    batches: str
    references: tuple[str, ...]
    opened: tuple[str, ...]
    call_path: str
    dialects: frozenset[str]


_OPENAI = ("/files/**", "/uploads/**", "/batches/**")

RESOURCE_APIS: Mapping[str, ResourceAPI] = {
    "openai_chat": ResourceAPI(
        paths=r"/v1/(?:files|uploads|batches)(?=/|$)",
        batches=r"^/v1/batches$",
        references=("input_file_id",),
        opened=(*_OPENAI, *("/v1" + path for path in _OPENAI)),
        call_path="/v1/chat/completions",
        dialects=frozenset({"openai_chat", "openai_responses"}),
    ),
    "anthropic": ResourceAPI(
        paths=r"/v1/(?:messages/batches|files)(?=/|$)",
        batches=r"^/v1/messages/batches$",
        references=(),
        opened=("/v1/messages/batches/**", "/v1/files/**"),
        call_path="/v1/messages",
        dialects=frozenset({"anthropic"}),
    ),
}
