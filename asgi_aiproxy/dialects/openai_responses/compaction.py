"""Compaction of conversations (POST /v1/responses/compact) for vendors that do not have it.

A vendor with the endpoint gets the request as it is. Any other model is requested to summarize the
conversation; its summary, after what the user wrote last, becomes a compaction item (see
`compaction_items`), with which the client continues.

https://platform.openai.com/docs/api-reference/responses/compact
"""

from __future__ import annotations

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation, RequestSummary
from asgi_aiproxy.dialects.openai_responses import OpenAIResponses, requests, responses
from asgi_aiproxy.dialects.openai_responses.compaction_items import compaction_item
from asgi_aiproxy.messages import Message, Request, Response, Text, Usage

OPERATION = Operation("responses.compact", "/responses/compact", chat=True)

_READ = ("model", "input", "instructions", "user", "previous_response_id", "conversation")
# How much of what the user wrote is repeated word for word, in characters, the last first.
_MAX_USER_TEXT = 40_000
_TASK = (
    "Summarize this conversation, so that it can be continued from the summary alone. State what "
    "the user wants and all constraints and preferences; what was done and found, with names, "
    "paths, values and code that are needed again; decisions and their reasons; what is left to "
    "do. Do not continue the conversation and do not call tools: write the summary only."
)


class OpenAICompaction(OpenAIResponses):
    """The compaction endpoint of the Responses API, for models of any vendor."""

    def match(self, method: str, path: str) -> Operation | None:
        """POST /v1/responses/compact."""
        return OPERATION if method == "POST" and path == "/v1/responses/compact" else None

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read the model; the response is never streamed."""
        fields = _parsing.fields(body)
        return RequestSummary(_parsing.read_model(fields), False, fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a request as one for a summary."""
        fields = _parsing.fields(body)
        read = {name: fields[name] for name in _READ if name in fields}
        request = requests.decode_request(_json.dumps(read))
        task = Message("user", (Text(_TASK),))
        return msgspec.structs.replace(request, messages=(*request.messages, task))

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a summary as a compaction."""
        ids = responses.Ids(self._new_id())
        summary = "".join(block.text for block in response.blocks if isinstance(block, Text))
        item = compaction_item(ids.item("cmp"), _continued(request, summary))
        return _json.dumps(
            {
                "id": ids.response,
                "object": "response.compaction",
                "created_at": int(self._now()),
                "output": [item],
                "usage": responses.encode_usage(response.usage or Usage()),
            }
        )


def _continued(request: Request, summary: str) -> str:
    """The text from which the conversation continues."""
    texts = _last_texts_of_user(request)
    said = "\n\n".join(texts)
    before = f"The last messages of the user were:\n\n{said}\n\n" if said else ""
    return f"{before}A summary of the conversation until now:\n\n{summary}"


def _last_texts_of_user(request: Request) -> list[str]:
    found: list[str] = []
    left = _MAX_USER_TEXT
    for message in reversed(request.messages[:-1]):  # the last one is the task
        if message.role != "user":
            continue
        text = "".join(part.text for part in message.parts if isinstance(part, Text))
        left -= len(text)
        if left < 0:
            break
        if text:
            found.append(text)
    return found[::-1]


OPENAI_COMPACTION: OpenAICompaction = OpenAICompaction()
