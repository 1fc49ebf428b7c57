"""Everything that vendors' SDKs declare of an answer means the same through every client API.

The answers are made from the SDKs' types (`tests/support/sdk_samples.py`): each kind of item, block
and event, with each choice that it leaves. What a client reads is compared with what the vendor's
format says, in one function for each vendor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, get_args

import botocore.loaders
import botocore.model
import pytest
from cohere.v2.types.v2chat_response import V2ChatResponse
from cohere.v2.types.v2chat_stream_response import V2ChatStreamResponse
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Message, Request, Text, fold, unfold
from asgi_aiproxy.translate import StreamTranslator
from tests.dialects.unusual import bedrock, cohere, coze, openai_responses as responses
from tests.dialects.unusual.case import Case, data, sse
from tests.dialects.unusual.meaning import check
from tests.support.event_stream import event as frame
from tests.support.readers import READERS
from tests.support.sdk_samples import alternatives, samples, shape_samples
from tests.support.stream_fixtures import cut, decode, faces, languages, translated
from tests.support.vendor_types import COZE_EVENTS, coze as coze_type

HI, MAX_SAMPLES = "Hi there", 60
REQUEST = Request(model="m", messages=(Message("user", (Text("Hi"),)),), stream=True)


def check_stream(case: Case) -> None:
    """A stream means what `case` says, for clients that stream and for those that do not."""
    dialect = languages()[case.dialect]
    for name, face in faces().items():
        framer, encoder = dialect.framer(case.media_type), face.encoder(REQUEST)
        translator = StreamTranslator(framer, dialect.decoder(), encoder)
        out, error = translated(translator, [case.data])
        assert (error.kind if error is not None else None) == case.error
        answer = READERS[name].stream(out)
        check(case, name, answer)
        assert case.error is None or answer.said == case.text
    if case.error is None:
        events, _ = decode(dialect, cut(dialect.framer(case.media_type), [case.data]))
        check_response(case, fold(events))


def check_whole(case: Case) -> None:
    """A whole answer means what `case` says, for clients that stream and for those that do not."""
    response = languages()[case.dialect].decode_response(case.data)
    check_response(case, response)
    for name, face in faces().items():
        encoder = face.encoder(REQUEST)
        out = b"".join([encoder.feed(event) for event in unfold(response)])
        check(case, name, READERS[name].stream(out))


def check_response(case: Case, response: Any) -> None:
    for name, face in faces().items():
        answer = READERS[name].whole(face.encode_response(response, REQUEST))
        if name == "gemini" and case.usage is None:
            answer.usage = None
        check(case, name, answer)


def of_item(item: dict[str, Any]) -> dict[str, Any]:
    """What an item of the Responses API means, as members of a `Case`."""
    match item:
        case {"type": "message", "content": parts}:
            cited = [each for part in parts for each in part.get("annotations", ())]
            return {
                "text": "".join(part.get("text", "") for part in parts),
                "refusal": "".join(part.get("refusal", "") for part in parts),
                "sources": tuple(
                    each.get("url") or each["filename"]
                    for each in cited
                    if each.get("url") or each.get("filename")
                ),
            }
        case {"type": "reasoning", "summary": summary}:
            found = summary or item.get("content") or ()
            return {"thought": "".join(part["text"] for part in found)}
        case {"type": "function_call" | "custom_tool_call", "call_id": id, "name": name}:
            name = f"{item['namespace']}__{name}" if item.get("namespace") else name
            arguments = item["arguments"] if "arguments" in item else {"input": item["input"]}
            return {"calls": ((id, name, arguments),), "finish": "tools"}
        case {"type": "image_generation_call", "result": str(data)}:
            return {"images": (data,)}
    return {}


def begun(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is when it begins."""
    empty = {"content": [], "summary": [], "arguments": "", "input": "", "result": None}
    known = ("message", "reasoning", "function_call", "custom_tool_call", "image_generation_call")
    if item["type"] not in known:
        return item
    return {**item, **{name: value for name, value in empty.items() if name in item}}


ITEMS = {
    get_args(k.model_fields["type"].annotation)[0]: k for k in alternatives(ResponseOutputItem)
}


@pytest.mark.parametrize("kind", ITEMS)
def test_each_item_of_the_responses_api_means_what_it_says(kind: str) -> None:
    for item in samples(ITEMS[kind])[:MAX_SAMPLES]:  # some hold declarations of tools of any kind
        means = {"text": HI, "usage": responses.COUNTED, **of_item(item)}
        means["text"] = HI + means["text"] if kind == "message" else HI
        more = {"dialect": "openai_responses", "name": json.dumps(item)}
        end = responses.end(responses.MESSAGE, item)
        for began in ((responses.added(begun(item), 1),), ()):
            events = (*responses.CREATED, *responses.TEXT, *began, responses.done(item, 1), end)
            check_stream(Case(**more, data=sse(*events), stream=True, **means))
        check_whole(Case(**more, data=data(end["response"]), stream=False, **means))


# Events with a meaning of their own; the others report the progress of hosted tools.
MEANINGFUL = (
    *("error", "response.completed", "response.incomplete", "response.failed"),
    *("response.output_item", "response.content_part", "response.output_text", "response.refusal"),
    *("response.reasoning", "response.function_call_arguments", "response.custom_tool_call_input"),
)
PROGRESS = {
    name: kind
    for kind in alternatives(ResponseStreamEvent)
    for name in get_args(kind.model_fields["type"].annotation)
    if not name.startswith(MEANINGFUL)
}


def test_events_about_hosted_tools_leave_the_answer_as_it_is() -> None:
    assert len(PROGRESS) > 30
    (started, *text), plain = responses.TEXT, {"text": HI, "usage": responses.COUNTED}
    for name, kind in PROGRESS.items():
        for event in samples(kind)[:8]:
            events = [
                *responses.CREATED,
                started,
                *text[:2],
                event,
                *text[2:],
                event,
                responses.END,
            ]
            body = sse(*[{**each, "sequence_number": n} for n, each in enumerate(events)])
            more = {"dialect": "openai_responses", "name": name, "stream": True}
            check_stream(Case(**more, data=body, **plain))


@cache
def converse() -> Any:
    """Amazon's description of Bedrock."""
    description = botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2")
    return botocore.model.ServiceModel(description, "bedrock-runtime")


def stream_events() -> Any:
    output = converse().operation_model("ConverseStream").output_shape
    return output.members["stream"].members


STOPS = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "end",  # without a call
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "filter",
    "content_filtered": "filter",
    "malformed_model_output": "other",
    "malformed_tool_use": "other",
}


def of_block(block: dict[str, Any]) -> dict[str, Any]:
    """What a content block of Converse, or a piece of one, means, as members of a `Case`."""
    match block:
        case {"text": text}:
            return {"text": HI + text}
        case {"reasoningContent": {"text": text} | {"reasoningText": {"text": text}}}:
            return {"thought": text}
        case {"toolUse": {"type": "server_tool_use"}}:
            return {}
        case {"toolUse": {"toolUseId": id, "name": name, "input": arguments}}:
            return {"calls": ((id, name, arguments),), "finish": "tools"}
        case {"image": {"source": {"bytes": data}}}:
            return {"images": (data,)}
        case {"citation": citation}:
            return {"sources": tuple(sources([citation]))}
        case {"citationsContent": content}:
            text = "".join(each["text"] for each in content.get("content", ()))
            return {"text": HI + text, "sources": tuple(sources(content.get("citations", ())))}
    return {}


def sources(citations: Iterable[dict[str, Any]]) -> Iterable[str]:
    for each in citations:
        page = each.get("location", {}).get("web", {})
        found = (page.get("url"), each.get("title"), each.get("source"), page.get("domain"))
        yield from [name for name in found if name][:1]


def converse_stream(name: str, *events: bytes, **means: Any) -> Case:
    means = {"text": HI, "usage": bedrock.COUNTED, **means}
    return bedrock.stream(name, *bedrock.START, *events, **means)


@pytest.mark.parametrize("place", ["start", "delta"])
def test_each_piece_of_a_converse_stream_means_what_it_says(place: str) -> None:
    begin = {
        "toolUse": {"toolUseId": "text", "name": "text"},
        "toolResult": {"toolUseId": "text"},
        "image": {"format": "png"},
    }
    piece = {
        "toolUse": {"input": "text"},
        "toolResult": [{"text": "text"}],
        "image": {"source": {"bytes": "eA=="}},
    }
    shape = stream_events()[f"contentBlock{place.title()}"].members[place]
    for sample in shape_samples(shape):
        ((kind, _),) = sample.items()
        start = sample if place == "start" else {kind: begin[kind]} if kind in begin else None
        delta = {kind: piece[kind]} if place == "start" else sample
        opened = frame("contentBlockStart", {"contentBlockIndex": 1, "start": start})
        events = [opened] if start is not None else []
        events += [bedrock.delta(1, **delta), bedrock.stop(1), bedrock.end()]
        both = {**(start or {}).get(kind, {}), **delta[kind]} if kind == "toolUse" else delta[kind]
        check_stream(converse_stream(str(sample), *events, **of_block({kind: both})))


def test_each_block_of_a_converse_answer_means_what_it_says() -> None:
    for block in shape_samples(converse().shape_for("ContentBlock")):
        means = {"text": HI, **of_block(block)}
        check_whole(bedrock.whole(str(block), [{"text": HI}, block], **means))


def test_each_end_of_a_converse_answer_means_what_it_says() -> None:
    for end in shape_samples(stream_events()["messageStop"]):
        means = {"finish": STOPS[end["stopReason"]]}
        last = frame("metadata", {"usage": bedrock.COUNTS, "metrics": {"latencyMs": 1}})
        check_stream(converse_stream(str(end), frame("messageStop", end), last, **means))
        check_whole(bedrock.whole(str(end), [{"text": HI}], end["stopReason"], text=HI, **means))
    for last in shape_samples(stream_events()["metadata"]):
        counts = last["usage"]
        read, written = (counts.get(f"cache{n}InputTokens", 0) for n in ("Read", "Write"))
        usage = counts["inputTokens"] + read + written, counts["outputTokens"], read, 0
        stopped = frame("messageStop", {"stopReason": "end_turn"})
        check_stream(converse_stream(str(last), stopped, frame("metadata", last), usage=usage))


COHERE_STOPS = {"MAX_TOKENS": "length"}
COHERE_FAILURES = ("ERROR", "TIMEOUT")


def of_cohere(message: dict[str, Any]) -> dict[str, Any]:
    """What a message of Cohere, or a piece of one, means, as members of a `Case`."""
    contents = listed(message.get("content"))
    means: dict[str, Any] = {
        "text": (message.get("tool_plan") or "") + joined(contents, "text"),
        "thought": joined(contents, "thinking"),
        "sources": tuple(
            (source.get("document") or {}).get("title") or source["id"]
            for citation in listed(message.get("citations"))
            if citation.get("type") != "THINKING_CONTENT"
            for source in citation.get("sources") or ()
            if source.get("id")
        ),
    }
    if calls := listed(message.get("tool_calls")):
        means |= {"calls": tuple(map(cohere_call, calls)), "finish": "tools"}
    return means


def listed(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value] if value else []


def joined(found: list[dict[str, Any]], name: str) -> str:
    return "".join(each.get(name) or "" for each in found)


def cohere_call(call: dict[str, Any]) -> tuple[str, str, Any]:
    function = call.get("function") or {}
    return call.get("id") or "?", function.get("name") or "", function.get("arguments") or {}


COHERE_EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in alternatives(V2ChatStreamResponse)
}


@pytest.mark.parametrize("kind", [kind for kind in COHERE_EVENTS if kind != "message-end"])
def test_each_event_of_cohere_means_what_it_says(kind: str) -> None:
    for event in samples(COHERE_EVENTS[kind]):
        message = (event.get("delta") or {}).get("message") or {}
        before: list[Any] = []
        match kind:
            case "message-start":  # its content comes in other events
                message = {}
            case "tool-call-start" if not cohere_call(message.get("tool_calls") or {})[1]:
                continue  # a call has a name
            case "tool-call-delta":
                before = [cohere.call(event.get("index"), "f_1", "f")[0]]
                piece = (message.get("tool_calls") or {}).get("function") or {}
                message = {"tool_calls": {"id": "f_1", "function": {**piece, "name": "f"}}}
        means = of_cohere(message)
        means["text"] = HI + means["text"]
        events = (*cohere.START, *before, event, cohere.end())
        check_stream(cohere.stream(str(event), *events, **means))


def test_each_answer_and_each_end_of_cohere_means_what_it_says() -> None:
    for answer in samples(V2ChatResponse):
        usage = answer.get("usage") or {}
        counts = usage.get("billed_units") or usage.get("tokens") or {}
        counted = counts and tuple(int(counts.get(f"{n}_tokens") or 0) for n in ("input", "output"))
        reason = answer["finish_reason"] if isinstance(answer["finish_reason"], str) else "COMPLETE"
        message = {"content": [{"type": "text", "text": HI}]}
        end = {"type": "message-end", "delta": {**answer, "message": None}}
        means: dict[str, Any] = {"text": HI, "usage": (*counted, 0, 0) if counted else None}
        if reason in COHERE_FAILURES:
            stop = {"error": ErrorKind.UPSTREAM, "message": reason}
            check_stream(cohere.stream(reason, *cohere.START, end, text=HI, **stop))
            with pytest.raises(APIError, match=reason):
                languages()["cohere"].decode_response(data({**answer, "message": message}))
            continue
        finish = COHERE_STOPS.get(reason, "end")
        check_stream(cohere.stream(reason, *cohere.START, end, finish=finish, **means))
        means = {"finish": finish, **means, **of_cohere(answer["message"])}
        means["finish"] = "length" if finish == "length" else means["finish"]
        if all(name for _, name, _ in means.get("calls", ())):  # a call has a name
            body = data(answer)
            check_whole(Case(dialect="cohere", name=reason, data=body, stream=False, **means))


@pytest.mark.parametrize("name", [name for name in stream_events() if name.endswith("Exception")])
def test_each_exception_in_a_converse_stream_is_an_error(name: str) -> None:
    kinds = {"throttlingException": "LIMITED", "validationException": "INVALID"}
    kinds["serviceUnavailableException"] = "OVERLOADED"
    for payload in shape_samples(stream_events()[name]):
        error = ErrorKind[kinds.get(name, "UPSTREAM")]
        message = payload.get("message") or name[1:]
        frames = (*bedrock.START, frame(name, payload, "exception"))
        check_stream(bedrock.stream(name, *frames, text=HI, error=error, message=message))


def of_coze(event: str, found: dict[str, Any]) -> dict[str, Any]:
    """What an event of Coze means, as members of a `Case`."""
    kind = event.rpartition(".")[2]
    if ".message." in event and found.get("type") in ("answer", "", None):
        held = kind == "delta" and found["content_type"] == "object_string"
        return {
            "text": HI + ("" if held else found["content"]),
            "thought": found.get("reasoning_content", ""),
        }
    calls = found.get("required_action", {}).get("submit_tool_outputs", {}).get("tool_calls", ())
    functions = [(each["id"], each["function"]) for each in calls if "function" in each]
    if kind == "requires_action" and functions:
        called = tuple((id, f["name"], f["arguments"]) for id, f in functions)
        return {"calls": called, "finish": "tools"}
    return {}


@pytest.mark.parametrize("name", COZE_EVENTS)
def test_each_event_of_coze_means_what_it_says(name: str) -> None:
    final = name.endswith(("chat.completed", "chat.requires_action"))
    for found in samples(coze_type(COZE_EVENTS[name])):
        event = coze.sent(name, found)
        if name == "conversation.chat.failed":
            message = found.get("last_error", {}).get("msg") or "The chat failed"
            means = {"text": HI, "error": ErrorKind.UPSTREAM, "message": message}
            check_stream(coze.stream(name, *coze.START, event, coze.DONE, **means))
            continue
        counts = found.get("usage")
        usage = None
        if counts is not None:
            usage = counts.get("input_count", 0), counts.get("output_count", 0), 0, 0
        means = {"text": HI, "usage": usage if final else coze.COUNTED, **of_coze(name, found)}
        rest = (coze.DONE,) if final else coze.END
        check_stream(coze.stream(json.dumps(found), *coze.START, event, *rest, **means))
