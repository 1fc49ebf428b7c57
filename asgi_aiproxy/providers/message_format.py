"""Chat requests for vendors that do not have all members of OpenAI's format. Pure.

OpenAI's chat format has grown, and vendors with that format have members of their own. Most vendors
skip what they do not know; Mistral, Groq and Cerebras refuse the request, with 400 or 422. Clients
notice when a conversation continues with another vendor: they send back what the first one
answered, such as its reasoning, and members that only OpenAI has.

A `MessageFormat` describes what a vendor has of the messages. The rest is written in the words that
the vendor has (a refusal becomes text), or removed: an earlier answer's reasoning without mention,
as it only matters to the model that wrote it, other members with a report in `ignored`. Content of
a kind that the vendor does not accept is refused by name. `tool_format` does the same for tools.

Signatures of other vendors are removed for all of them. The chat format has no place for signed
reasoning, so responses carry it in `reasoning_details` of a message and in `extra_content` of a
tool call (see `dialects.openai_chat.reasoning`), which clients send back with every request.
Gateways such as OpenRouter, which define these members, get them as they are.

A request that passes through is only decoded if one of these members is in its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.providers.base import TransformRequest
from asgi_aiproxy.providers.transforms import CHAT_PATH, chain, older_format, only_chat, plain

Part = dict[str, Any]
PartWriter = Callable[[Part], Part | None]  # of a part in OpenAI's format; None: it is not accepted
ReasoningWriter = Callable[[dict[str, Any], str], None]  # adds reasoning to a message

_REASONING = ("reasoning_content", "reasoning")
_SIGNED = ("reasoning_details",)
_SIGNED_CALL = "extra_content"


class MessageFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The messages that a vendor accepts.

    - `names`: messages may have the `name` of a participant.
    - `refusals`: the assistant's messages may have a `refusal`. If not, it is sent as text.
    - `own_reasoning`: messages may have the reasoning of an earlier answer as it is. If not,
      `reasoning` adds it to its message; None: it is removed.
    - `lacks`: the members of OpenAI's answers that it refuses when they are sent back.
    - `parts`: how parts of a type are written; other types are sent as they are.
    """

    names: bool = True
    refusals: bool = False
    own_reasoning: bool = False
    reasoning: ReasoningWriter | None = None
    lacks: tuple[str, ...] = ("annotations", "audio")
    parts: Mapping[str, PartWriter] = {}

    def marks(self) -> list[bytes]:
        """The encoded names, or their beginnings, of which one is in messages that differ."""
        marked = [_SIGNED_CALL, *self.lacks, *self.parts]
        marked += [] if self.names else ["name"]
        marked += [] if self.refusals else ["refusal"]
        reasoning = b'"reasoning_details"' if self.own_reasoning else b'"reasoning'
        return [reasoning, *(f'"{name}"'.encode() for name in marked)]

    def write(self, message: Mapping[str, Any], where: str, lost: list[str]) -> dict[str, Any]:
        """Write a message; members that were removed are added to `lost`. Raises APIError."""
        dropped = _SIGNED if self.own_reasoning else (*_SIGNED, *_REASONING)
        out = {name: value for name, value in message.items() if name not in dropped}
        calls = out.get("tool_calls")
        if isinstance(calls, list):
            out["tool_calls"] = [_without_signature(call) for call in calls]
        content = out.get("content")
        if isinstance(content, list):
            out["content"] = [
                self._part(part, f"{where}.content[{index}]") for index, part in enumerate(content)
            ]
        removed = list(self.lacks) if out.get("role") == "assistant" else []
        removed += [] if self.names or out.get("role") == "tool" else ["name"]
        lost += [f"messages[].{name}" for name in removed if out.pop(name, None)]
        if not self.refusals and (refusal := out.pop("refusal", None)):
            out["content"] = out.get("content") or refusal
        thought = next((message[name] for name in _REASONING if message.get(name)), None)
        if self.reasoning is not None and isinstance(thought, str):
            self.reasoning(out, thought)
        return out

    def _part(self, part: Any, where: str) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "refusal" and not self.refusals:
            return {"type": "text", "text": part.get("refusal", "")}
        if not isinstance(kind, str) or kind not in self.parts:
            return part
        written = self.parts[kind](part)
        if written is None:
            raise invalid(f"This provider does not accept content of type {kind!r}.", where)
        return written


def message_format(form: MessageFormat) -> TransformRequest:
    """Write the messages of chat requests in a vendor's format."""
    marks = form.marks()

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if draft.path != CHAT_PATH:
            return draft
        messages = draft.body.get("messages")
        if isinstance(messages, msgspec.Raw):
            encoded = bytes(messages)
            for mark in marks:
                if encoded.find(mark) >= 0:
                    break
            else:
                return draft
            try:
                messages = plain(messages)
            except ValueError:
                return draft  # the vendor reports the error
        elif form.own_reasoning:
            return draft  # translated messages have no signatures
        if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
            return draft
        lost: list[str] = []
        written = [
            form.write(message, f"messages[{number}]", lost)
            for number, message in enumerate(messages)
        ]
        ignored = tuple(dict.fromkeys((*draft.ignored, *lost)))
        return msgspec.structs.replace(
            draft, body={**draft.body, "messages": written}, ignored=ignored
        )

    return transform


def _without_signature(call: Any) -> Any:
    if isinstance(call, dict) and _SIGNED_CALL in call:
        return {name: value for name, value in call.items() if name != _SIGNED_CALL}
    return call


def reasoning_required(draft: ProviderRequest) -> ProviderRequest:
    """Add empty reasoning to earlier answers that have none, such as those of another vendor.

    With tools, DeepSeek and Kimi refuse an answer without the member while they think; they accept
    an empty one everywhere. https://api-docs.deepseek.com/guides/thinking_mode#tool-calls
    """
    messages = draft.body.get("messages")
    if isinstance(messages, msgspec.Raw):
        encoded = bytes(messages)
        answers = encoded.count(b'"assistant"')
        if b'"tool_calls"' not in encoded or encoded.count(b'"reasoning_content"') >= answers:
            return draft
        try:
            messages = plain(messages)
        except ValueError:
            return draft  # the vendor reports the error
    if not isinstance(messages, list):
        return draft
    written = [
        {**each, "reasoning_content": ""}
        if isinstance(each, dict)
        and each.get("role") == "assistant"
        and each.get("reasoning_content") is None
        else each
        for each in messages
    ]
    return msgspec.structs.replace(draft, body={**draft.body, "messages": written})


def not_accepted(part: Part) -> None:
    """Refuse a part."""


def text_only(draft: ProviderRequest) -> ProviderRequest:
    """Remove `modalities` and `audio`. Raises APIError if an answer in sound is requested."""
    requested = plain(draft.body.get("modalities"))
    if isinstance(requested, list) and any(kind != "text" for kind in requested):
        raise invalid("This provider's models answer in text only.", "modalities")
    if draft.body.keys().isdisjoint(("modalities", "audio")):
        return draft
    body = {name: v for name, v in draft.body.items() if name not in ("modalities", "audio")}
    return msgspec.structs.replace(draft, body=body)


def tool_format(*, parameters: bool = False) -> TransformRequest:
    """Write tools for a vendor that has functions only.

    A choice among some of the tools becomes a list of these tools. `parameters`: the vendor
    requires the parameters of every function. The transformation raises APIError for a tool of
    another type.
    """

    def transform(draft: ProviderRequest) -> ProviderRequest:
        tools, choice = draft.body.get("tools"), draft.body.get("tool_choice")
        if tools is None or not (parameters or _may_differ(tools, choice)):
            return draft
        try:
            tools, choice = plain(tools), plain(choice)
        except ValueError:
            return draft  # the vendor reports the error
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            return draft
        written = [changed(tool, f"tools[{number}]") for number, tool in enumerate(tools)]
        body = {**draft.body, "tools": written}
        allowed = _inner(choice, "allowed_tools")
        if isinstance(allowed.get("tools"), list):
            names = [_inner(tool, "function").get("name") for tool in allowed["tools"]]
            body["tools"] = [t for t in written if _inner(t, "function").get("name") in names]
            body["tool_choice"] = allowed.get("mode", "auto")
        return msgspec.structs.replace(draft, body=body)

    def changed(tool: dict[str, Any], where: str) -> dict[str, Any]:
        if tool.get("type") == "custom":
            raise invalid(
                "Tools of type 'custom' are not available from this provider; only functions are.",
                f"{where}.type",
            )
        own = _inner(tool, "function")
        if parameters and own and own.get("parameters") is None:
            return {**tool, "function": {**own, "parameters": {"type": "object", "properties": {}}}}
        return tool

    return only_chat(transform)


def _may_differ(tools: Any, choice: Any) -> bool:
    if not isinstance(tools, msgspec.Raw):
        return isinstance(choice, dict)  # translated: functions only
    allowed = isinstance(choice, msgspec.Raw) and b"allowed_tools" in bytes(choice)
    return allowed or b'"custom"' in bytes(tools)


def _inner(value: Any, name: str) -> dict[str, Any]:
    """An object within an object; empty if there is none."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _reasoning_chunk(message: dict[str, Any], thought: str) -> None:
    content = message.get("content") or []
    chunk = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if isinstance(content, list):
        message["content"] = [chunk, *content]


def _document(part: Part) -> Part | None:
    file = _inner(part, "file")
    if file.get("file_data"):
        named = {"document_name": file["filename"]} if file.get("filename") else {}
        return {"type": "document_url", "document_url": file["file_data"], **named}
    return {"type": "file", "file_id": file["file_id"]} if file.get("file_id") else None


def _audio_data(part: Part) -> Part | None:
    data = _inner(part, "input_audio").get("data")
    return {"type": "input_audio", "input_audio": data} if data else None


def _reasoning(message: dict[str, Any], thought: str) -> None:
    message["reasoning"] = thought


drop_signatures = message_format(MessageFormat(refusals=True, own_reasoning=True, lacks=()))
vendor_format = chain(older_format, drop_signatures)

OPENAI_MESSAGES = MessageFormat(refusals=True, lacks=())
# https://docs.mistral.ai/api/endpoint/chat
MISTRAL_MESSAGES = MessageFormat(
    names=False, reasoning=_reasoning_chunk, parts={"file": _document, "input_audio": _audio_data}
)
# https://console.groq.com/docs/api-reference#chat-create
GROQ_MESSAGES = MessageFormat(parts={"file": not_accepted, "input_audio": not_accepted})
# https://inference-docs.cerebras.ai/api-reference/chat-completions
CEREBRAS_MESSAGES = MessageFormat(
    reasoning=_reasoning, parts={"file": not_accepted, "input_audio": not_accepted}
)
