"""Conversations that a provider keeps, continued by a token through every client API."""

from __future__ import annotations

import json
import re
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from asgi_aiproxy import (
    AIShim,
    APIError,
    Authenticate,
    ConfigurationError,
    InProcess,
    InProcessTransport,
    KeyPool,
    OpenAIShim,
    Principal,
    ProviderRouter,
)
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.hooks import Call, Hook
from asgi_aiproxy.keys import Key, Sealer
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import COZE, OPENAI, OPENAI_RESPONSES
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, chat_stream, refuses, streams

pytestmark = pytest.mark.anyio

COZE_STREAM = (
    b'event:conversation.message.delta\ndata:{"id":"1","conversation_id":"71","chat_id":"72",'
    b'"type":"answer","role":"assistant","content":"Hello","content_type":"text"}\n\n'
    b'event:conversation.chat.completed\ndata:{"id":"72","conversation_id":"71","status":'
    b'"completed","usage":{"input_count":1,"output_count":2,"token_count":3}}\n\n'
    b'event:done\ndata:"[DONE]"\n\n'
)
COZE_CALLS = (
    b'event:conversation.chat.requires_action\ndata:{"id":"72","conversation_id":"71","status":'
    b'"requires_action","required_action":{"type":"submit_tool_outputs","submit_tool_outputs":'
    b'{"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}},'
    b'{"id":"call_2","type":"function","function":{"name":"f","arguments":"{}"}}]}},'
    b'"usage":{"input_count":1,"output_count":2,"token_count":3}}\n\n'
    b'event:done\ndata:"[DONE]"\n\n'
)
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GEMINI = "/v1beta/models/73:generateContent"
GEMINI_STREAM = "/v1beta/models/73:streamGenerateContent"
APIS = pytest.mark.parametrize("api", ["chat", "messages", "gemini", "responses", "completions"])


def coze_step() -> Step:
    return streams(COZE_STREAM)


class Gateway:
    """Coze with two keys behind all client APIs, and callers with tokens of their own."""

    def __init__(self, upstream: Upstream | None = None, **more: Any) -> None:
        self.upstream = upstream if upstream is not None else Upstream(coze_step())
        self.pool = KeyPool([Key("pat_1", id="1"), Key("pat_2", id="2")])
        self.router = ProviderRouter({"73": COZE.using(self.pool), "other": OPENAI.using("sk")})
        self.shim = AIShim(self.router, transport=self.upstream.transport, **more)
        self.app = Authenticate(
            self.shim,
            verify=static_tokens(
                {
                    "a": Principal("ann", account="one"),
                    "b": Principal("bob", account="one"),
                    "c": Principal("cid", account="two"),
                }
            ),
        )

    async def call(
        self, api: str, text: str = "Hi", *, token: str = "a", stream: bool = False, **more: Any
    ) -> asgi.Answer:
        said = [{"role": "user", "content": text}]
        path, body = {
            "chat": (CHAT, {"model": "73", "messages": said, "stream": stream}),
            "completions": ("/v1/completions", {"model": "73", "prompt": text, "stream": stream}),
            "messages": (
                MESSAGES,
                {"model": "73", "messages": said, "max_tokens": 9, "stream": stream},
            ),
            "responses": (RESPONSES, {"model": "73", "input": text, "stream": stream}),
            "gemini": (
                GEMINI_STREAM + "?alt=sse" if stream else GEMINI,
                {"contents": [{"role": "user", "parts": [{"text": text}]}]},
            ),
        }[api]
        headers = {"authorization": f"Bearer {token}"}
        return await asgi.request(self.app, "POST", path, {**body, **more}, headers=headers)

    async def token(self, api: str = "chat", **more: Any) -> str:
        if api == "gemini":
            more.setdefault("conversation", "new")  # Google's types allow no further member
        answer = await self.call(api, **more)
        assert answer.status == 200, answer.body
        return token_in(api, answer, stream=more.get("stream", False))


def token_in(api: str, answer: asgi.Answer, *, stream: bool) -> str:
    """The token in a whole answer, or in the one event of a stream that has it."""
    if not stream:
        found = [answer.json]
    elif api == "responses":
        found = [event["response"] for event in answer.events if "response" in event]
        found = [each for each in found if each["status"] == "completed"]
    else:
        found = [event for event in answer.events if isinstance(event, dict)]
    tokens = [each["conversation"] for each in found if each.get("conversation")]
    assert len(tokens) == 1, answer.body
    return tokens[0]["id"] if api == "responses" else tokens[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_clients_of_google_get_a_token_only_on_request(stream: bool) -> None:
    answer = await Gateway().call("gemini", stream=stream)
    assert answer.status == 200
    assert b"conversation" not in answer.body


@APIS
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_every_client_api_gets_a_token_and_goes_on_with_it(api: str, stream: bool) -> None:
    gateway = Gateway()
    token = await gateway.token(api, stream=stream)
    assert "71" not in token.split("-")
    going_on: Any = {"id": token} if api == "responses" else token
    answer = await gateway.call(api, "And?", stream=stream, conversation=going_on)
    assert answer.status == 200
    first, second = gateway.upstream.requests
    assert "conversation_id" not in first.url.params
    assert second.url.params["conversation_id"] == "71"
    assert gateway.upstream.bodies[1]["additional_messages"][-1]["content"] == "And?"


async def test_a_token_of_one_api_goes_on_in_another() -> None:
    gateway = Gateway()
    token = await gateway.token("messages")
    assert (await gateway.call("gemini", conversation=token)).status == 200
    assert gateway.upstream.requests[1].url.params["conversation_id"] == "71"


async def test_the_responses_api_takes_a_token_as_text_too() -> None:
    gateway = Gateway()
    token = await gateway.token("responses")
    assert (await gateway.call("responses", conversation=token)).status == 200
    assert gateway.upstream.requests[1].url.params["conversation_id"] == "71"


async def test_a_conversation_stays_with_its_key() -> None:
    gateway = Gateway()
    token = await gateway.token()
    used = gateway.upstream.keys[0]
    for _ in range(4):
        assert (await gateway.call("chat", conversation=token)).status == 200
    assert gateway.upstream.keys == [used] * 5
    other = "2" if used == "pat_1" else "1"
    answer = await asgi.chat(
        gateway.app,
        model="73",
        conversation=token,
        headers={"authorization": "Bearer a", "aiproxy-key": other},
    )
    assert answer.status == 400
    assert answer.json["error"]["code"] == "invalid_conversation"


async def test_a_token_is_of_its_account_only() -> None:
    gateway = Gateway()
    token = await gateway.token()
    assert (await gateway.call("chat", token="b", conversation=token)).status == 200
    answer = await gateway.call("chat", token="c", conversation=token)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "conversation"
    assert len(gateway.upstream.requests) == 2


@pytest.mark.parametrize("change", ["cut", "flipped", "long", "empty", "other key"])
async def test_a_changed_token_is_refused(change: str) -> None:
    gateway = Gateway()
    token = await gateway.token()
    changed = {
        "cut": token[:-8],
        "flipped": token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:],
        "long": token + "A" * 9999,
        "empty": token[: token.index("sealed")],
        "other key": await Gateway().token(),
    }[change]
    for api in ("chat", "messages", "gemini", "responses"):
        answer = await gateway.call(api, conversation=changed)
        assert answer.status == 400
        assert b"conversation" in answer.body


async def test_another_model_goes_on_at_the_provider_that_keeps_the_conversation() -> None:
    gateway = Gateway()
    token = await gateway.token()
    assert (await gateway.call("chat", conversation=token, model="other")).status == 200
    assert gateway.upstream.requests[1].url.host == "api.coze.com"
    assert gateway.upstream.bodies[1]["bot_id"] == "other"


async def test_a_removed_key_ends_its_conversations() -> None:
    gateway = Gateway()
    token = await gateway.token()
    used = "1" if gateway.upstream.keys[0] == "pat_1" else "2"
    await gateway.pool.disable(used)
    assert (await gateway.call("chat", conversation=token)).status >= 400
    assert len(gateway.upstream.requests) == 1


async def test_an_error_of_the_provider_goes_to_no_other_target() -> None:
    gateway = Gateway(Upstream(coze_step(), refuses(500)))
    token = await gateway.token()
    answer = await gateway.call("chat", conversation=token)
    assert answer.status == 502
    assert {request.url.host for request in gateway.upstream.requests} == {"api.coze.com"}


async def test_workers_with_the_same_sealing_key_accept_each_others_tokens() -> None:
    key = Sealer.generate()
    one, other = (Gateway(conversations=Sealer(key)) for _ in range(2))
    answer = await other.call("chat", conversation=await one.token())
    assert answer.status == 200
    assert other.upstream.requests[0].url.params["conversation_id"] == "71"


async def test_the_switch_turns_it_off() -> None:
    token = await Gateway().token()
    gateway = Gateway(conversations=False)
    for stream in (False, True):
        answer = await gateway.call("chat", stream=stream)
        assert b'"conversation"' not in answer.body
        assert b'"71"' not in answer.body
    refused = await gateway.call("chat", conversation=token)
    assert refused.status == 400
    assert "send the whole conversation" in refused.json["error"]["message"]
    app = build(Settings(providers={"coze": {"keys": ["pat"]}}, conversations=False))
    assert callable(app)
    with pytest.raises(ConfigurationError, match="Sealer"):
        OpenAIShim(COZE.using("k"), conversations="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["conv_1", {"id": "conv_1"}, None, 5, ["x"]])
async def test_other_values_belong_to_the_api_that_the_client_speaks(value: Any) -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(OPENAI.using("sk"), transport=upstream.transport)
    assert (await asgi.chat(app, model="gpt", conversation=value)).status == 200
    assert upstream.bodies[0]["conversation"] == value


async def test_a_provider_that_keeps_nothing_reports_the_member_as_ignored() -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(OPENAI.using("sk"), transport=upstream.transport)
    answer = await asgi.chat(app, model="gpt", conversation="new")
    assert answer.status == 200
    assert answer.header("aiproxy-ignored") == "conversation"
    assert "conversation" not in upstream.bodies[0]
    strict = OpenAIShim(OPENAI.using("sk"), transport=upstream.transport, strict=True)
    assert (await asgi.chat(strict, model="gpt", conversation="new")).status == 400


# ── the Responses API as upstream ────────────────────────────────────────────


def response(id: str, *, store: bool) -> bytes:
    part = {"type": "output_text", "text": "Hello", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "content": [part]}
    return json.dumps(
        {
            "id": id,
            "object": "response",
            "status": "completed",
            "model": "gpt",
            "store": store,
            "output": [{**message, "status": "completed"}],
            "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        }
    ).encode()


async def test_the_responses_api_keeps_a_conversation_if_the_client_requests_it() -> None:
    upstream = Upstream(
        answers(response("resp_1", store=False)),
        answers(response("resp_2", store=True)),
        answers(response("resp_3", store=True)),
    )
    app = OpenAIShim(OPENAI_RESPONSES.using("sk"), transport=upstream.transport)
    plain = await asgi.chat(app, model="gpt")
    assert "conversation" not in plain.json
    begun = await asgi.chat(app, model="gpt", conversation="new")
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    token = begun.json["conversation"]
    gone_on = await asgi.chat(app, model="gpt", messages=history, conversation=token)
    assert gone_on.json["conversation"] != token
    first, second, third = upstream.bodies
    assert first["store"] is False
    assert second["store"] is True
    assert "previous_response_id" not in second
    assert third["previous_response_id"] == "resp_2"
    assert third["instructions"] == "Be brief."
    assert [item["content"][0]["text"] for item in third["input"]] == ["And?"]


# ── hooks, calls in process, SDKs ────────────────────────────────────────────


async def test_guarded_responses_have_a_token_too() -> None:
    class Pass(Hook):
        def filters(self, call: Call) -> Any:
            class Same:
                async def feed(self, event: Any) -> Any:
                    return [event]

                async def close(self) -> Any:
                    return []

            return [Same()]

    for stream in (False, True):
        gateway = Gateway(hooks=[Pass()])
        token = await gateway.token(stream=stream)
        assert (await gateway.call("chat", stream=stream, conversation=token)).status == 200
        assert gateway.upstream.requests[1].url.params["conversation_id"] == "71"


async def test_calls_in_process_go_on_too() -> None:
    gateway = Gateway()
    ai = InProcess(gateway.app, principal=Principal("ann", account="one"))
    answer = await ai.chat(model="73", messages="Hi")
    await ai.chat(model="73", messages="And?", conversation=answer.conversation)
    assert gateway.upstream.requests[1].url.params["conversation_id"] == "71"
    with pytest.raises(APIError) as caught:
        await InProcess(gateway.app, principal=Principal("x")).chat(
            model="73", messages="And?", conversation=answer.conversation
        )
    assert caught.value.code == "invalid_conversation"


async def test_the_official_sdks_carry_it() -> None:
    gateway = Gateway()
    transport: Any = InProcessTransport(gateway.app, principal=Principal("ann", account="one"))
    said: Any = [{"role": "user", "content": "Hi"}]
    async with httpx2.AsyncClient(transport=transport) as http:
        chat = openai.AsyncOpenAI(base_url="http://ai/v1", api_key="-", http_client=http)
        made: Any = await chat.chat.completions.create(model="73", messages=said)
        token = made.conversation
        await chat.chat.completions.create(
            model="73", messages=said, extra_body={"conversation": token}
        )
        answered = await chat.responses.create(model="73", input="Hi", conversation=token)
        assert answered.conversation is not None
        claude = anthropic.AsyncAnthropic(base_url="http://ai", api_key="-", http_client=http)
        message: Any = await claude.messages.create(
            model="73", messages=said, max_tokens=9, extra_body={"conversation": token}
        )
        assert message.conversation
        options = types.HttpOptions(base_url="http://ai", httpx_async_client=http)
        with genai.Client(api_key="-", http_options=options) as google:
            config = types.GenerateContentConfig(
                http_options=types.HttpOptions(extra_body={"conversation": token})
            )
            found = await google.aio.models.generate_content(
                model="73", contents="Hi", config=config
            )
            assert found.text == "Hello"
    sent = [r.url.params.get("conversation_id") for r in gateway.upstream.requests]
    assert sent == [None, "71", "71", "71", "71"]


async def test_a_stream_of_another_vendor_is_unchanged() -> None:
    upstream = Upstream(streams(*chat_stream("Hel", "lo")))
    app = OpenAIShim(OPENAI.using("sk"), transport=upstream.transport)
    answer = await asgi.chat(app, model="gpt", stream=True)
    assert b"conversation" not in answer.body


# ── calls of a client's tools ────────────────────────────────────────────────


def calls_in(api: str, answer: asgi.Answer) -> list[Any]:
    """The tool calls of a whole answer, as the client sends them back."""
    match api:
        case "chat":
            return list(answer.json["choices"][0]["message"]["tool_calls"])
        case "messages":
            return list(answer.json["content"])
        case "gemini":
            return list(answer.json["candidates"][0]["content"]["parts"])
    return [item for item in answer.json["output"] if item["type"] == "function_call"]


def with_results(api: str, calls: list[Any], ids: list[str]) -> dict[str, Any]:
    """A request that ends with the results of calls, which have the numbers of the calls."""
    if api == "chat":
        results: list[Any] = [
            {"role": "tool", "tool_call_id": id, "content": str(number)}
            for number, id in enumerate(ids)
        ]
        return {"messages": [{"role": "assistant", "tool_calls": calls}, *results]}
    if api == "messages":
        results = [
            {"type": "tool_result", "tool_use_id": id, "content": str(number)}
            for number, id in enumerate(ids)
        ]
        turns = [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
        return {"messages": [{"role": "user", "content": "Hi"}, *turns]}
    if api == "gemini":
        results = [
            {"functionResponse": {"id": id, "name": "f", "response": {"result": str(number)}}}
            for number, id in enumerate(ids)
        ]
        return {"contents": [{"role": "model", "parts": calls}, {"role": "user", "parts": results}]}
    results = [
        {"type": "function_call_output", "call_id": id, "output": str(number)}
        for number, id in enumerate(ids)
    ]
    return {"input": [*calls, *results]}


def ids_of(api: str, calls: list[Any]) -> list[str]:
    if api == "gemini":
        return [part["functionCall"]["id"] for part in calls]
    return [call["call_id" if api == "responses" else "id"] for call in calls]


TOOL_APIS = pytest.mark.parametrize("api", ["chat", "messages", "gemini", "responses"])


@TOOL_APIS
async def test_results_find_the_chat_that_waits_for_them_and_its_key(api: str) -> None:
    gateway = Gateway(Upstream(streams(COZE_CALLS), coze_step()))
    calls = calls_in(api, await gateway.call(api))
    ids = ids_of(api, calls)
    assert len({*ids}) == 2
    for id in ids:
        assert re.fullmatch("aiproxy-call-[A-Za-z0-9_-]+", id)  # what Anthropic's API accepts
    answer = await gateway.call(api, **with_results(api, calls, ids))
    assert answer.status == 200
    first, second = gateway.upstream.requests
    assert second.url.path == "/v3/chat/submit_tool_outputs"
    assert dict(second.url.params) == {"conversation_id": "71", "chat_id": "72"}
    outputs = gateway.upstream.bodies[1]["tool_outputs"]
    assert [(each["tool_call_id"], each["output"].strip('{}":result ')) for each in outputs] == [
        ("call_1", "0"),
        ("call_2", "1"),
    ]
    assert second.headers["authorization"] == first.headers["authorization"]


@TOOL_APIS
@pytest.mark.parametrize("change", ["another caller", "changed", "another gateway", "too long"])
async def test_a_result_of_a_call_that_was_not_made_for_the_caller_is_refused(
    api: str, change: str
) -> None:
    gateway = Gateway(Upstream(streams(COZE_CALLS), coze_step()))
    calls = calls_in(api, await gateway.call(api))
    ids = ids_of(api, calls)
    if change in ("changed", "too long"):
        other = ids[1] + "A" * 5000 if change == "too long" else ids[1][:-9] + ids[0][-9:]
        calls, ids = json.loads(json.dumps([calls, ids]).replace(ids[1], other))
    requested = Gateway() if change == "another gateway" else gateway
    token = "c" if change == "another caller" else "a"
    answer = await requested.call(api, token=token, **with_results(api, calls, ids))
    assert answer.status == 404
    assert "No tool call waits for this result" in answer.json["error"]["message"]
    assert len(requested.upstream.requests) == (0 if change == "another gateway" else 1)


async def test_a_result_with_the_vendors_own_ids_reaches_no_chat() -> None:
    gateway = Gateway()
    call = {"id": "coze-71-72-call_1", "type": "function", "function": {"name": "f"}}
    call["function"] |= {"arguments": "{}"}  # type: ignore[operator]
    body = with_results("chat", [call], [str(call["id"])])
    assert (await gateway.call("chat", **body)).status == 200
    (request,) = gateway.upstream.requests
    assert request.url.path == "/v3/chat"  # a new one
    assert "conversation_id" not in request.url.params


async def test_results_of_calls_are_refused_where_no_conversations_are_continued() -> None:
    gateway = Gateway(Upstream(streams(COZE_CALLS), coze_step()))
    calls = calls_in("chat", await gateway.call("chat"))
    without = Gateway(conversations=False)
    answer = await without.call("chat", **with_results("chat", calls, ids_of("chat", calls)))
    assert answer.status == 404


async def test_earlier_calls_of_a_conversation_are_only_its_history() -> None:
    gateway = Gateway(Upstream(streams(COZE_CALLS), coze_step()))
    calls = calls_in("chat", await gateway.call("chat"))
    body = with_results("chat", calls, ids_of("chat", calls))
    body["messages"] += [{"role": "assistant", "content": "So."}, {"role": "user", "content": "?"}]
    answer = await gateway.call("chat", token="c", **body)
    assert answer.status == 200
    assert gateway.upstream.requests[1].url.path == "/v3/chat"
