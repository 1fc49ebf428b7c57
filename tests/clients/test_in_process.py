"""Official SDKs and frameworks on the app itself, without a socket: InProcessTransport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import types
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from asgi_aiproxy import (
    AIShim,
    Authenticate,
    InProcessTransport,
    KeyPool,
    Principal,
    ProviderRouter,
    UsageRecord,
)
from asgi_aiproxy.keys import Key
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.testing import MockProvider
from asgi_aiproxy.upstream import HttpxTransport

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
SAID = "Hello from the mock."
MODELS = pytest.mark.parametrize("model", ["gpt-test", "claude-test"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Gateway:
    """An app with authentication, called as the principal `job`, in front of a mock."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self.pool = KeyPool([Key("sk-1", id="1")])
        upstream = HttpxTransport(httpx.ASGITransport(MockProvider()))
        self.app = AIShim(
            ProviderRouter(
                {
                    "claude-*": ANTHROPIC.using(self.pool, base_url="http://mock"),
                    "*": OPENAI.using(self.pool, base_url="http://mock/v1"),
                }
            ),
            transport=upstream,
            record=self.record,
        )
        closed = Authenticate(self.app, verify=static_tokens({"unknown-to-clients": "x"}))
        self.transport: Any = InProcessTransport(closed, principal=Principal("job"))
        self.http = httpx2.AsyncClient(transport=self.transport, timeout=60)

    async def record(self, usage: UsageRecord) -> None:
        self.records.append(usage)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    async with made.app, made.http:
        yield made
    assert {usage.principal for usage in made.records} == {"job"}
    assert (await made.pool.status())[0].in_flight == 0


@MODELS
async def test_openai(gateway: Gateway, model: str) -> None:
    client = openai.AsyncOpenAI(base_url="http://ai/v1", api_key="-", http_client=gateway.http)
    said: Any = [{"role": "user", "content": "Hi"}]
    whole = await client.chat.completions.create(model=model, messages=said)
    assert whole.choices[0].message.content == SAID
    stream = await client.chat.completions.create(model=model, messages=said, stream=True)
    pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    assert "".join(pieces) == SAID
    assert (await client.responses.create(model=model, input="Hi")).output_text == SAID
    if model == "gpt-test":
        assert (await client.embeddings.create(model=model, input="Hi")).data[0].embedding


@MODELS
async def test_anthropic(gateway: Gateway, model: str) -> None:
    client = anthropic.AsyncAnthropic(base_url="http://ai", api_key="-", http_client=gateway.http)
    said: Any = [{"role": "user", "content": "Hi"}]
    whole: Any = await client.messages.create(model=model, messages=said, max_tokens=9)
    assert whole.content[0].text == SAID
    async with client.messages.stream(model=model, messages=said, max_tokens=9) as stream:
        assert await stream.get_final_text() == SAID


@MODELS
async def test_google_genai(gateway: Gateway, model: str) -> None:
    options = types.HttpOptions(base_url="http://ai", httpx_async_client=gateway.http)
    with genai.Client(api_key="-", http_options=options) as client:
        whole = await client.aio.models.generate_content(model=model, contents="Hi")
        assert whole.text == SAID
        stream = await client.aio.models.generate_content_stream(model=model, contents="Hi")
        assert "".join([chunk.text or "" async for chunk in stream]) == SAID


@MODELS
async def test_langchain_openai(gateway: Gateway, model: str) -> None:
    chat = ChatOpenAI(
        model=model,
        base_url="http://ai/v1",
        api_key=SecretStr("-"),
        http_async_client=gateway.http,
    )
    assert (await chat.ainvoke("Hi")).content == SAID
    assert "".join([str(chunk.content) async for chunk in chat.astream("Hi")]) == SAID
    if model == "gpt-test":
        vectors = OpenAIEmbeddings(
            model=model,
            base_url="http://ai/v1",
            api_key=SecretStr("-"),
            http_async_client=gateway.http,
            check_embedding_ctx_length=False,
        )
        assert await vectors.aembed_query("Hi")


@MODELS
async def test_langchain_google_genai(gateway: Gateway, model: str) -> None:
    chat = ChatGoogleGenerativeAI(
        model=model,
        base_url="http://ai",
        api_key="-",
        client_args={"transport": gateway.transport},
    )
    assert (await chat.ainvoke("Hi")).text == SAID
    assert "".join([chunk.text async for chunk in chat.astream("Hi")]) == SAID


@MODELS
@pytest.mark.parametrize("api", ["chat", "responses", "messages", "gemini"])
async def test_pydantic_ai(gateway: Gateway, model: str, api: str) -> None:
    http = gateway.http
    openai_provider = OpenAIProvider(base_url="http://ai/v1", api_key="-", http_client=http)
    used: Model
    if api == "chat":
        used = OpenAIChatModel(model, provider=openai_provider)
    elif api == "responses":
        used = OpenAIResponsesModel(model, provider=openai_provider)
    elif api == "messages":
        provider = AnthropicProvider(base_url="http://ai", api_key="-", http_client=http)
        used = AnthropicModel(model, provider=provider)
    else:
        google = GoogleProvider(base_url="http://ai", api_key="-", http_client=http)
        used = GoogleModel(model, provider=google)
    agent = Agent(used, retries=0)
    assert (await agent.run("Hi")).output == SAID
    async with agent.run_stream("Hi") as run:
        assert await run.get_output() == SAID
