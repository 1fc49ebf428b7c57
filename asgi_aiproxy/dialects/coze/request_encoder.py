"""Writes chats: the neutral format to Coze's.

https://www.coze.com/open/docs/developer_guides/chat_v3
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._unsupported import (
    chosen_by_service,
    unsupported_fields,
    vendor_fields,
)
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Message,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
    after_last_answer,
    new_messages,
)

NAME = "coze"

# Members of Coze's chat that a client of another API may send as they are.
KNOWN = frozenset(
    {"auto_save_history", "custom_variables", "enable_card", "meta_data", "parameters"}
)
_USER = "user"  # an id is required


def encode_request(request: Request) -> ProviderRequest:
    """Write a request; raises APIError for content that Coze does not accept."""
    return _Writer(request).draft()


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._ignored: list[str] = []

    def draft(self) -> ProviderRequest:
        request = self._request
        self._ignored += chosen_by_service(request)  # these are set at the bot
        self._ignored += unsupported_fields(request, NAME, known=KNOWN)
        self._ignored = [name for name in self._ignored if name != "tool_choice"]
        if request.tool_choice is not None and request.tool_choice.mode != "auto":
            self._ignored.append("tool_choice")
        if results := self._waiting_results():
            return self._outputs(results)
        messages = after_last_answer(request.messages) if request.conversation else request.messages
        body: dict[str, Any] = {
            "bot_id": request.model,
            "user_id": request.user or _USER,
            "additional_messages": [
                out
                for number, message in enumerate(messages, len(request.messages) - len(messages))
                for out in self._message(message, f"messages[{number}]")
            ],
            "stream": True,
            **vendor_fields(request, KNOWN),
        }
        if not body["additional_messages"]:
            raise _parsing.empty_messages_error()
        id = request.conversation
        query = urlencode({"conversation_id": id}) if id else ""
        return ProviderRequest("/v3/chat", body, query=query, ignored=self._reported())

    def _reported(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._ignored))

    # the results of tool calls that a chat waits for

    def _waiting_results(self) -> list[ToolResult]:
        """The results at the end of the conversation, if a chat waits for them."""
        last = new_messages(self._request.messages)
        results = [part for each in last for part in each.parts if isinstance(part, ToolResult)]
        return results if results and NAME in results[0].extra else []

    def _outputs(self, results: list[ToolResult]) -> ProviderRequest:
        ids = results[0].extra[NAME]
        if any(each.extra.get(NAME) != ids for each in results):
            raise invalid("The results of tools belong to different chats of Coze.", "messages")
        outputs = [{"tool_call_id": each.id, "output": _text(each)} for each in results]
        body = {"tool_outputs": outputs, "stream": True}
        path = "/v3/chat/submit_tool_outputs"
        return ProviderRequest(path, body, query=urlencode(ids), ignored=self._reported())

    # messages

    def _message(self, message: Message, where: str) -> Iterator[dict[str, Any]]:
        objects: list[dict[str, Any]] = []
        role = "assistant" if message.role == "assistant" else "user"
        for index, part in enumerate(message.parts):
            match part:
                case Text(text) | Refusal(text) if text:
                    objects.append({"type": "text", "text": self._worded(message, text)})
                case Media() if role == "assistant":
                    self._ignored.append("messages[].images")
                case Media():
                    objects.append(_file(part, f"{where}.content[{index}]"))
                case ToolCall(_, name, arguments):
                    value = _parsing.arguments(arguments, self._ignored)
                    call = {"name": name, "arguments": value}
                    yield _typed("function_call", _json.dumps(call).decode())
                case ToolResult():
                    yield _typed("tool_response", _text(part))
        if not objects:
            return
        kind = "answer" if role == "assistant" else "question"
        out = {"role": role, "type": kind, "content_type": "text"}
        if all(item["type"] == "text" for item in objects):
            yield {**out, "content": "".join(item["text"] for item in objects)}
        else:
            content = _json.dumps(objects).decode()
            yield {**out, "content_type": "object_string", "content": content}

    def _worded(self, message: Message, text: str) -> str:
        """The text; instructions are marked, because the user has to say them."""
        if message.role != "system":
            return text
        self._ignored.append("messages[].role")
        return f"<system>\n{text}\n</system>"


def _typed(kind: str, content: str) -> dict[str, Any]:
    return {"role": "assistant", "type": kind, "content_type": "text", "content": content}


def _text(result: ToolResult) -> str:
    return "".join(part.text for part in result.parts if isinstance(part, Text))


def _file(media: Media, where: str) -> dict[str, Any]:
    if text := _parsing.document_text(media):
        return {"type": "text", "text": f"{media.name}\n{text}" if media.name else text}
    kind = media.kind if media.kind in ("image", "audio") else "file"
    if media.file:
        return {"type": kind, "file_id": media.file}
    if media.url:
        return {"type": kind, "file_url": media.url}
    raise invalid("Coze accepts files by URL or by the id of an uploaded file only.", where)
