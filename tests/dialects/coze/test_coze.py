"""Requests to Coze's chat API, its errors, and conversations that are continued."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.dialects import COZE_CHAT, ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Request
from asgi_aiproxy.providers import COZE
from tests.support import asgi_client as asgi
from tests.support.dialect_requests import HI, anthropic, openai, written
from tests.support.scripted_upstream import Step, Upstream, answers, streams
from tests.support.stream_fixtures import HERE

pytestmark = pytest.mark.anyio

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}


def stream_of(name: str) -> Step:
    return streams((HERE / "streams" / "coze" / f"{name}.sse").read_bytes())


def messages_of(request: Request) -> list[dict[str, Any]]:
    return list(written("coze", request).body["additional_messages"])


def question(content: str) -> dict[str, str]:
    return {"role": "user", "type": "question", "content_type": "text", "content": content}


def said(kind: str, content: str) -> dict[str, str]:
    return {"role": "assistant", "type": kind, "content_type": "text", "content": content}


def test_a_model_is_a_bot() -> None:
    draft = written("coze", openai(user="ann"))
    assert draft == ProviderRequest(
        "/v3/chat",
        {
            "bot_id": "7379462189365198898",
            "user_id": "ann",
            "additional_messages": [question("Hi")],
            "stream": True,
        },
    )


def test_messages_in_cozes_words() -> None:
    messages = [
        *HI,
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        {"role": "user", "content": "And?"},
    ]
    assert messages_of(openai(messages)) == [
        question("Hi"),
        said("function_call", '{"name":"f","arguments":{"n":1}}'),
        said("answer", "I look."),
        said("tool_response", "2"),
        question("And?"),
    ]


def test_files_are_sent_by_their_address() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "See"}, image]}]
    (sent,) = messages_of(openai(messages))
    assert sent["content_type"] == "object_string"
    assert json.loads(sent["content"]) == [
        {"type": "text", "text": "See"},
        {"type": "image", "file_url": "https://a.example/a.png"},
    ]


def test_other_files_are_refused_by_their_place() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(APIError) as caught:
        written("coze", openai([{"role": "user", "content": [image]}]))
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, "messages[0].content[0]")


@pytest.mark.parametrize(
    ("members", "ignored"),
    [
        ({"temperature": 0.5, "max_tokens": 9}, ("max_tokens", "temperature")),
        ({"tools": [TOOL]}, ("tools",)),
        ({"tools": [TOOL], "tool_choice": "required"}, ("tools", "tool_choice")),
        ({"response_format": {"type": "json_object"}}, ("response_format",)),
        ({"reasoning_effort": "low"}, ("reasoning_effort",)),
        ({"x": 1}, ("x",)),
    ],
)
def test_what_is_set_at_the_bot_is_reported(
    members: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    assert written("coze", openai(**members)).ignored == ignored


def test_instructions_are_said_by_the_user() -> None:
    draft = written("coze", openai([{"role": "system", "content": "A"}, *HI]))
    sent = [question("<system>\nA\n</system>"), question("Hi")]
    assert draft.body["additional_messages"] == sent
    assert draft.ignored == ("messages[].role",)


@pytest.mark.parametrize(
    "request_of", [lambda **more: openai(**more), lambda **more: anthropic(**more)]
)
def test_a_conversation_goes_on_by_its_id_with_what_is_new(request_of: Any) -> None:
    said = [*HI, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "And?"}]
    for messages in (said, said[-1:]):
        going_on = msgspec.structs.replace(request_of(messages=messages), conversation="71")
        draft = written("coze", going_on)
        assert draft.query == "conversation_id=71"
        assert draft.body["additional_messages"] == [question("And?")]


def test_a_raw_id_of_coze_is_not_accepted() -> None:
    draft = written("coze", openai(coze={"conversation_id": "71"}))
    assert draft.query == ""
    assert draft.ignored == ("coze",)


def test_members_of_coze_are_passed_on() -> None:
    draft = written("coze", openai(custom_variables={"a": "b"}, auto_save_history=False))
    assert draft.body["custom_variables"] == {"a": "b"}
    assert draft.body["auto_save_history"] is False
    assert draft.ignored == ()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_has_follow_ups(stream: bool) -> None:
    upstream = Upstream(stream_of("follow-up"))
    app = OpenAIShim(COZE.using("pat_x"), transport=upstream.transport)
    answer = await asgi.chat(app, model="73", stream=stream)
    last = answer.events[-2] if stream else answer.json
    assert last["coze"] == {"follow_ups": ["And Milan?", "Why?"]}
    assert upstream.bodies[0]["stream"] is True
    assert upstream.requests[0].headers["authorization"] == "Bearer pat_x"


@pytest.mark.parametrize(
    ("code", "status"),
    [(4100, 200), (4013, 200), (4000, 400), (4016, 409), (4200, 404)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_with_status_200_is_an_error(code: int, status: int, stream: bool) -> None:
    refused = answers(json.dumps({"code": code, "msg": "No."}).encode())
    steps = [refused, stream_of("text")] if status == 200 else [refused] * 3
    upstream = Upstream(*steps)
    app = OpenAIShim(COZE.using(["pat_x", "pat_y"]), transport=upstream.transport)
    answer = await asgi.chat(app, model="73", stream=stream)
    assert answer.status == status
    if status != 200:
        assert answer.json["error"]["message"] == "No."


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"code": 700012006, "msg": "access token invalid"}, ErrorKind.KEY_REJECTED),
        (400, {"code": 4008, "msg": "quota"}, ErrorKind.KEY_REJECTED),
        (429, {"code": 1, "msg": "slow"}, ErrorKind.LIMITED),
        (500, {"code": 5000, "msg": "oh"}, ErrorKind.UPSTREAM),
    ],
)
def test_errors_have_the_kind_of_their_code(status: int, body: Any, kind: ErrorKind) -> None:
    error = COZE_CHAT.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.message, error.words) == (kind, body["msg"], (str(body["code"]),))


def test_a_chat_that_is_complete_is_read_whole() -> None:
    usage = {"token_count": 9, "output_count": 4, "input_count": 5}
    chat = {"id": "72", "conversation_id": "71", "status": "completed", "usage": usage}
    response = COZE_CHAT.decode_response(json.dumps({"code": 0, "data": chat}).encode())
    assert (response.id, response.word) == ("72", "completed")
    chat["status"] = "in_progress"
    with pytest.raises(APIError, match="before the chat was completed"):
        COZE_CHAT.decode_response(json.dumps({"code": 0, "data": chat}).encode())


def test_a_list_of_workspaces_shows_a_valid_key() -> None:
    assert COZE_CHAT.decode_models(b'{"code":0,"data":{"workspaces":[]}}') == ()
    with pytest.raises(ValueError, match="workspaces"):
        COZE_CHAT.decode_models(b'{"code":4100,"msg":"authentication is invalid"}')
