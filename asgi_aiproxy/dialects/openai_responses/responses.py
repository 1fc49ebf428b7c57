"""Whole responses: the Responses API's format to the neutral one, and back.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import with_unique_ids
from asgi_aiproxy.dialects.openai_chat.errors import read_error
from asgi_aiproxy.dialects.openai_responses.annotations import decode_citations, encode_citation
from asgi_aiproxy.dialects.openai_responses.reasoning import encode_carrier
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.dialects.openai_responses.tools import (
    Declared,
    call_item as write_call,
    declared,
    decode_call,
    encode_choice,
    encode_tools,
    is_custom,
    is_search,
    ran_by_vendor,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Block,
    Extra,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

_REASONS = {"max_output_tokens": StopReason.LENGTH, "content_filter": StopReason.FILTER}
_SAFE = "/:?#[]@!$&'*+,;=%~"  # of an address in Markdown, which ends at a parenthesis
_WORDS = {StopReason.LENGTH: "max_output_tokens", StopReason.FILTER: "content_filter"}
_CODES = {
    ErrorKind.LIMITED: "rate_limit_exceeded",
    ErrorKind.OVERLOADED: "server_is_overloaded",
    ErrorKind.INVALID: "invalid_prompt",
}


# ── reading ──────────────────────────────────────────────────────────────────


def decode_response(body: bytes) -> Response:
    """Read a whole response. Raises APIError if it reports a failure or is invalid."""
    answer = _parsing.parse_object(body)
    if answer is None:
        raise _parsing.unparsable_response_error(200, body)
    raise_error(answer)
    output = require_output(answer, body)
    blocks = tuple(with_unique_ids(_decode_items(output, answer.get("tools"))))
    called = any(isinstance(block, ToolCall) for block in blocks)
    stop, word = stop_reason(answer, called)
    return Response(
        id=str(answer.get("id") or ""),
        model=str(answer.get("model") or ""),
        blocks=blocks,
        stop=stop,
        usage=decode_usage(answer.get("usage")),
        word=word,
        conversation=kept_id(answer),
    )


def kept_id(answer: dict[str, Any]) -> str:
    """The id of a response that a request may continue: the provider has stored it."""
    return str(answer.get("id") or "") if answer.get("store") is True else ""


def require_output(answer: dict[str, Any], body: bytes) -> list[Any]:
    """The items of a whole answer. Raises APIError if it has none, not even an empty list."""
    output = answer.get("output")
    if not isinstance(output, list):
        raise _parsing.truncated_response_error(f"it holds no output: {_parsing.excerpt(body)}")
    return output


def raise_error(answer: dict[str, Any]) -> None:
    """Raise the error that a response with status 200 contains, if any."""
    if answer.get("error") or answer.get("status") in ("failed", "cancelled"):
        found = answer.get("error") or {"message": f"The response is {answer.get('status')}."}
        raise read_error({"error": found}, 200)


def stop_reason(answer: dict[str, Any], called: bool) -> tuple[StopReason, str]:
    """The neutral stop reason, and OpenAI's own word for it."""
    if answer.get("status") == "incomplete":
        reason = _parsing.get_text(answer.get("incomplete_details"), "reason")
        return _REASONS.get(reason or "max_output_tokens", StopReason.OTHER), reason
    return (StopReason.TOOLS if called else StopReason.END), "completed"


def _decode_items(output: list[Any], tools: Any) -> Iterator[Block]:
    begins = 0  # characters of text before the item
    for item in _parsing.objects(output):
        if ran_by_vendor(item, tools):
            yield Opaque(NAME, item)
            continue
        for block in decode_item(item, begins):
            begins += len(block.text) if isinstance(block, Text) else 0
            yield block


def decode_item(item: dict[str, Any], begins: int = 0) -> Iterator[Block]:
    """The blocks of one complete item of `output`, before which the answer has `begins` characters
    of text.
    """
    match item.get("type"):
        case "message":
            for part in _parsing.objects(item.get("content")):
                if part.get("type") == "refusal":
                    yield Refusal(_parsing.get_text(part, "refusal"))
                elif text := _parsing.get_text(part, "text"):
                    yield Text(text, tuple(decode_citations(part.get("annotations"), begins)))
                    begins += len(text)
        case "reasoning":
            text = reasoning_text(item)
            extra = reasoning_extra(item)
            if text or extra:
                yield Reasoning(text, extra)
        case "function_call":
            call = decode_call(item_call_id(item), item)
            yield call if call.arguments else msgspec.structs.replace(call, arguments="{}")
        case "custom_tool_call":
            yield decode_call(item_call_id(item), item)
        case "image_generation_call" if _is_base64(data := _parsing.get_text(item, "result")):
            form = _parsing.get_text(item, "output_format") or "png"
            yield Media(kind="image", media_type=f"image/{form}", data=data)
        case str():
            yield Opaque(NAME, item)


def item_call_id(item: dict[str, Any]) -> str:
    """The id by which the result of a call refers to it."""
    return str(item.get("call_id") or item.get("id") or "")


def _is_base64(data: str) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except binascii.Error:
        return False


def reasoning_text(item: dict[str, Any]) -> str:
    """The visible text of a reasoning item: its summary, or else the reasoning itself."""
    for group in ("summary", "content"):
        found = "".join(
            _parsing.get_text(part, "text") for part in _parsing.objects(item.get(group))
        )
        if found:
            return found
    return ""


def reasoning_extra(item: dict[str, Any]) -> Extra:
    """The members of a reasoning item that OpenAI requires to be sent back."""
    content = _parsing.get_text(item, "encrypted_content")
    if not content:
        return {}
    found = {"encrypted_content": content}
    item_id = _parsing.get_text(item, "id")
    if item_id and ":" not in content:  # a carrier of another vendor has no item id
        found["id"] = item_id
    return {NAME: found}


def decode_usage(usage: Any) -> Usage | None:
    """Read `usage`."""
    if not isinstance(usage, dict):
        return None
    into, out = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Usage(
        input=_parsing.read_count(usage, "input_tokens"),
        output=_parsing.read_count(usage, "output_tokens"),
        cache_read=_parsing.read_count(into, "cached_tokens"),
        cache_write=_parsing.read_count(into, "cache_write_tokens"),
        reasoning=_parsing.read_count(out, "reasoning_tokens"),
    )


# ── writing ──────────────────────────────────────────────────────────────────


class Ids:
    """Ids for one response and its items, which share their ending, as OpenAI's do."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._count = 0

    @property
    def response(self) -> str:
        """The id of the response."""
        return f"resp_{self._token}"

    def item(self, prefix: str) -> str:
        """The id of the next item."""
        self._count += 1
        return f"{prefix}_{self._token}{self._count:04x}"


def own_id(id: str) -> str:
    """The id of a provider's response, if it is one of this API: a later request may refer to it.
    Else empty.
    """
    return id if id.startswith("resp_") else ""


def encode_response(response: Response, request: Request, created: int, token: str) -> bytes:
    """Write a whole response; `created` is in Unix seconds, `token` is the common part of
    the ids.
    """
    ids = Ids(token)
    output = list(encode_items(response, request, ids))
    id = own_id(response.id) or ids.response
    answer = envelope(request, id, response.model, created)
    if response.conversation:
        answer["conversation"] = {"id": response.conversation}
    finish(answer, output, response.stop, response.usage)
    return _json.dumps(answer)


def envelope(request: Request, id: str, model: str, created: int) -> dict[str, Any]:
    """A response in progress, which repeats the request's parameters."""
    own = request.extra.get(NAME, {})
    thinking = request.thinking
    reasoning = None
    if thinking is not None:
        reasoning = {
            "effort": thinking.effort or None,
            "summary": "auto" if thinking.summary else None,
        }
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": _instructions(request),
        "max_output_tokens": request.max_tokens,
        "max_tool_calls": own.get("max_tool_calls"),
        "metadata": own.get("metadata") or {},
        "model": model or request.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tools is not False,
        "previous_response_id": None,
        "prompt_cache_key": own.get("prompt_cache_key"),
        "reasoning": reasoning or {"effort": None, "summary": None},
        "safety_identifier": own.get("safety_identifier"),
        "service_tier": own.get("service_tier") or "default",
        "store": False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": _text_options(request),
        "tool_choice": _tool_choice(request),
        "tools": [*encode_tools(request.tools, as_request=False), *own.get("tools", ())],
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": own.get("truncation") or "disabled",
        "usage": None,
        "user": request.user or None,
    }


def finish(
    answer: dict[str, Any], output: list[dict[str, Any]], stop: StopReason, usage: Usage | None
) -> None:
    """Complete a response in progress."""
    reason = _WORDS.get(stop)
    answer["status"] = "incomplete" if reason else "completed"
    answer["incomplete_details"] = {"reason": reason} if reason else None
    answer["output"] = output
    answer["usage"] = encode_usage(usage) if usage is not None else None


def encode_items(response: Response, request: Request, ids: Ids) -> Iterator[dict[str, Any]]:
    """The items of `output`; consecutive texts are one message."""
    tools = declared(request.tools)
    status = "incomplete" if response.stop in _WORDS else "completed"
    content: list[dict[str, Any]] = []
    carriers: list[str] = []
    refusal = Refusal(response.refusal) if response.refusal else None
    begins = 0  # characters of text before the block
    for block in (*response.blocks, *((refusal,) if refusal is not None else ())):
        if isinstance(block, Media) and block.url:
            block = image_link(block)
        said = isinstance(block, Text | Refusal)
        if not said or carriers:
            if content:
                yield message_item(ids.item("msg"), content, status)
                content = []
            yield from (carrier_item(ids.item("rs"), carrier) for carrier in carriers)
            carriers = []
        if isinstance(block, Text | Refusal):
            content.append(encode_part(block, begins))
        if isinstance(block, Text):
            begins += len(block.text)
            if carrier := encode_carrier(block, block.extra):
                carriers.append(carrier)
        if not said:
            yield from encode_item(block, tools, ids)
    if content:
        yield message_item(ids.item("msg"), content, status)
    yield from (carrier_item(ids.item("rs"), carrier) for carrier in carriers)


def encode_item(block: Block, tools: Declared, ids: Ids) -> Iterator[dict[str, Any]]:
    """The items for one complete block that is not part of a message."""
    match block:
        case Reasoning(text=text, extra=extra):
            known = extra.get(NAME, {}).get("id")
            yield reasoning_item(known or ids.item("rs"), text, encode_carrier(block, extra))
        case ToolCall():
            yield call_item(block, ids.item(call_prefix(block, tools)), tools, "completed")
            carrier = encode_carrier(block, block.extra)
            if carrier:
                yield carrier_item(ids.item("rs"), carrier)
        case Media(kind="image", data=data) if data:
            yield image_item(block, ids.item("ig"))
        case Opaque(dialect=dialect, payload=payload) if dialect == NAME:
            yield dict(payload)
        case Opaque() if carrier := encode_carrier(block, {}):
            yield carrier_item(ids.item("rs"), carrier)


def call_prefix(call: ToolCall, tools: Declared) -> str:
    """The prefix of the id of a call's item."""
    return "tsc" if is_search(call, tools) else "ctc" if is_custom(call, tools) else "fc"


def message_item(id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """A message of the assistant."""
    return {
        "id": id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def encode_part(block: Text | Refusal, begins: int = 0) -> dict[str, Any]:
    """A part of a message, before which the answer has `begins` characters of text."""
    if isinstance(block, Refusal):
        return {"type": "refusal", "refusal": block.text}
    size = len(block.text)
    return {
        "type": "output_text",
        "text": block.text,
        "annotations": [encode_citation(citation, begins, size) for citation in block.citations],
        "logprobs": [],
    }


def reasoning_item(id: str, text: str, carrier: str) -> dict[str, Any]:
    """A reasoning item."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: dict[str, Any] = {"id": id, "type": "reasoning", "summary": summary}
    if carrier:
        item["encrypted_content"] = carrier
    return item


def carrier_item(id: str, carrier: str) -> dict[str, Any]:
    """A reasoning item that only carries a vendor's signature of the item before it."""
    return reasoning_item(id, "", carrier)


def call_item(call: ToolCall, id: str, tools: Declared, status: str) -> dict[str, Any]:
    """A call of a function, of a custom tool or of the tool search."""
    what = write_call(call, tools)
    return {"id": id, "type": what["type"], "status": status, **what}


def image_link(media: Media) -> Text:
    """An image that has only an address, in Markdown: images of this API are base64."""
    return Text(f"![image]({quote(media.url, safe=_SAFE)})\n")


def image_item(media: Media, id: str) -> dict[str, Any]:
    """An image that the model generated."""
    return {
        "id": id,
        "type": "image_generation_call",
        "status": "completed",
        "output_format": media.media_type.partition("/")[2] or "png",
        "result": media.data,
    }


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Write `usage`."""
    into = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write}
    return {
        "input_tokens": usage.input,
        "input_tokens_details": into,
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def failure(error: APIError) -> dict[str, str]:
    """The member `error` of a failed response."""
    code = error.code or _CODES.get(error.kind, "server_error")
    return {"code": code, "message": error.message}


def error_event(error: APIError) -> dict[str, Any]:
    """The members of an `error` event."""
    return {
        "code": failure(error)["code"],
        "message": error.message,
        "param": error.param,
    }


def _instructions(request: Request) -> str | None:
    first = request.messages[0] if request.messages else None
    if first is None or first.role != "system":
        return None
    return "".join(part.text for part in first.parts if isinstance(part, Text)) or None


def _text_options(request: Request) -> dict[str, Any]:
    output = request.output
    form: dict[str, Any] = {"type": "text"}
    if output is not None and output.schema is None:
        form = {"type": "json_object"}
    elif output is not None:
        form = {
            "type": "json_schema",
            "name": output.name,
            "description": output.description or None,
            "schema": output.schema,
            "strict": bool(output.strict),
        }
    return {"format": form, **request.extra.get(NAME, {}).get("text", {})}


def _tool_choice(request: Request) -> Any:
    choice = request.tool_choice
    if choice is None:
        return request.extra.get(NAME, {}).get("tool_choice") or "auto"
    return encode_choice(choice, declared(request.tools))
