"""The clients that can be connected: where each has its settings, and what they must be.

A client's `setup` is a pure function from a `GatewayAccess` to a `Setup`: environment variables,
the members of its configuration file, and an example. Nothing is read and nothing is written here.
The settings follow the vendors' documentation:

- https://code.claude.com/docs/en/llm-gateway, https://code.claude.com/docs/en/settings
- https://developers.openai.com/codex/config-reference
- https://geminicli.com/docs/reference/configuration
- https://opencode.ai/docs/providers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    GEMINI_CONTENT,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    Dialect,
)

TOKEN_VARIABLE = "AI_GATEWAY_TOKEN"  # noqa: S105 (a name)
PROVIDER = "aiproxy"  # the gateway's name in the files of clients that have several providers


class GatewayAccess(ConcealedStruct, frozen=True, kw_only=True):
    """A gateway as a client sees it.

    `url` is where it is mounted, without `/v1`, and `model` the model to use. `variable` names the
    environment variable that holds the token; `token` is given only if it shall be written out.
    `websocket` is whether it serves the Responses API over a WebSocket.
    """

    url: str
    model: str
    variable: str = TOKEN_VARIABLE
    token: str = ""
    websocket: bool = False

    @property
    def secret(self) -> str:
        """The token, or a reference to its variable for a shell."""
        return self.token or f"${self.variable}"


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """The `members` for a client's file in this `format`; `path` may begin with `~/`."""

    path: str
    format: Literal["json", "toml"]
    members: Mapping[str, Any]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A client's configuration: `environment` variables, `file`, an `example`, and `notes`."""

    environment: Mapping[str, str] = {}
    file: ConfigFile | None = None
    example: str = ""
    notes: tuple[str, ...] = ()


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A program or SDK that can use a gateway; `title` is its name in messages.

    `setup` writes its configuration. `dialect` is the API that it speaks, and `base` what it
    expects behind the gateway's URL before the paths of the dialect. `list_query` is the query with
    which it lists models, and `model` the one to suggest if none is given. `probe`: it sends
    `HEAD /` first. `websocket`: it prefers a WebSocket. `model_prefixes`: it shows only models
    whose names begin so.
    """

    name: str
    title: str
    dialect: Dialect
    setup: Callable[[GatewayAccess], Setup]
    base: str = ""
    list_query: str = ""
    model: str
    probe: bool = False
    websocket: bool = False
    model_prefixes: tuple[str, ...] = ()


# ── coding agents ────────────────────────────────────────────────────────────


def _claude_code(gateway: GatewayAccess) -> Setup:
    settings = {
        "ANTHROPIC_BASE_URL": gateway.url,
        "ANTHROPIC_MODEL": gateway.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": gateway.model,  # of its small background requests
        "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
    }
    written = {"ANTHROPIC_AUTH_TOKEN": gateway.token} if gateway.token else {}
    return Setup(
        environment={**settings, "ANTHROPIC_AUTH_TOKEN": gateway.secret},
        file=ConfigFile(
            path="~/.claude/settings.json", format="json", members={"env": {**settings, **written}}
        ),
        example="claude",
        notes=(
            "The file sets the same variables; the token stays in the environment.",
            "In its list of models Claude Code shows only names that begin with 'claude' or "
            "'anthropic': give models of other vendors such an alias in the gateway's routes.",
        ),
    )


def _codex(gateway: GatewayAccess) -> Setup:
    provider: dict[str, Any] = {
        "name": "AI gateway",
        "base_url": f"{gateway.url}/v1",
        "env_key": gateway.variable,
        "wire_api": "responses",
        "supports_websockets": gateway.websocket,
    }
    return Setup(
        environment={gateway.variable: gateway.token} if gateway.token else {},
        file=ConfigFile(
            path="~/.codex/config.toml",
            format="toml",
            members={
                "model": gateway.model,
                "model_provider": PROVIDER,
                "model_providers": {PROVIDER: provider},
            },
        ),
        example="codex",
        notes=(
            "Codex knows OpenAI's models by name. For others it warns that it has no metadata: "
            "--write --catalog gives it a list of the gateway's models.",
        ),
    )


def _gemini_cli(gateway: GatewayAccess) -> Setup:
    return Setup(
        environment={
            "GOOGLE_GEMINI_BASE_URL": gateway.url,
            "GEMINI_API_KEY": gateway.secret,
            "GEMINI_MODEL": gateway.model,
        },
        file=ConfigFile(
            path="~/.gemini/settings.json",
            format="json",
            members={"security": {"auth": {"selectedType": "gemini-api-key"}}},
        ),
        example="gemini",
        notes=("Older versions take http URLs only for localhost and 127.0.0.1.",),
    )


def _opencode(gateway: GatewayAccess) -> Setup:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "AI gateway",
        "options": {
            "baseURL": f"{gateway.url}/v1",
            "apiKey": gateway.token or f"{{env:{gateway.variable}}}",
        },
        "models": {gateway.model: {"name": gateway.model}},
    }
    return Setup(
        file=ConfigFile(
            path="~/.config/opencode/opencode.json",
            format="json",
            members={
                "$schema": "https://opencode.ai/config.json",
                "model": f"{PROVIDER}/{gateway.model}",
                "provider": {PROVIDER: provider},
            },
        ),
        example="opencode",
        notes=(
            "Each model to choose from needs an entry in `models`.",
            "Of models that reason behind signatures, 'npm': '@ai-sdk/anthropic' or "
            "'@ai-sdk/openai' (with the same baseURL) returns the signatures to the vendor.",
        ),
    )


# ── SDKs ─────────────────────────────────────────────────────────────────────


def _openai_python(gateway: GatewayAccess) -> Setup:
    return Setup(
        environment={"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": gateway.secret},
        example=f"""\
import openai

client = openai.OpenAI()
answer = client.responses.create(model="{gateway.model}", input="Hi")
print(answer.output_text)""",
    )


def _anthropic_python(gateway: GatewayAccess) -> Setup:
    return Setup(
        environment={"ANTHROPIC_BASE_URL": gateway.url, "ANTHROPIC_API_KEY": gateway.secret},
        example=f"""\
import anthropic

client = anthropic.Anthropic()
messages = [{{"role": "user", "content": "Hi"}}]
answer = client.messages.create(model="{gateway.model}", max_tokens=500, messages=messages)
print(answer.content[0].text)""",
    )


def _google_genai(gateway: GatewayAccess) -> Setup:
    return Setup(
        environment={"GOOGLE_GEMINI_BASE_URL": gateway.url, "GEMINI_API_KEY": gateway.secret},
        example=f"""\
from google import genai

client = genai.Client()
answer = client.models.generate_content(model="{gateway.model}", contents="Hi")
print(answer.text)""",
    )


def _ai_sdk(gateway: GatewayAccess) -> Setup:
    return Setup(
        environment={gateway.variable: gateway.token} if gateway.token else {},
        example=f"""\
import {{ createOpenAI }} from "@ai-sdk/openai"
import {{ generateText }} from "ai"

const gateway = createOpenAI({{
  baseURL: "{gateway.url}/v1",
  apiKey: process.env.{gateway.variable},
}})
const {{ text }} = await generateText({{
  model: gateway("{gateway.model}"),
  prompt: "Hi",
  providerOptions: {{ openai: {{ store: false }} }},
}})
console.log(text)""",
        notes=(
            "With store: false the SDK sends earlier items of a conversation. Otherwise it refers "
            "to them, and the gateway needs a stash for other vendors than OpenAI.",
            f'createAnthropic takes baseURL "{gateway.url}/v1", createGoogleGenerativeAI '
            f'"{gateway.url}/v1beta".',
        ),
    )


CLIENTS: Mapping[str, Client] = {
    client.name: client
    for client in (
        Client(
            name="claude-code",
            title="Claude Code",
            dialect=ANTHROPIC_MESSAGES,
            setup=_claude_code,
            list_query="limit=1000",
            model="claude-sonnet-5",
            probe=True,
            model_prefixes=("claude", "anthropic"),
        ),
        Client(
            name="codex",
            title="Codex",
            dialect=OPENAI_RESPONSES,
            setup=_codex,
            base="/v1",
            model="gpt-6.2-sol",
            websocket=True,
        ),
        Client(
            name="gemini-cli",
            title="Gemini CLI",
            dialect=GEMINI_CONTENT,
            setup=_gemini_cli,
            model="gemini-3-pro",
        ),
        Client(
            name="opencode",
            title="opencode",
            dialect=OPENAI_CHAT,
            setup=_opencode,
            base="/v1",
            model="gpt-6.2-sol",
        ),
        Client(
            name="openai-python",
            title="OpenAI SDK (Python)",
            dialect=OPENAI_RESPONSES,
            setup=_openai_python,
            base="/v1",
            model="gpt-6.2-sol",
        ),
        Client(
            name="anthropic-python",
            title="Anthropic SDK (Python)",
            dialect=ANTHROPIC_MESSAGES,
            setup=_anthropic_python,
            model="claude-sonnet-5",
        ),
        Client(
            name="google-genai",
            title="Google Gen AI SDK (Python)",
            dialect=GEMINI_CONTENT,
            setup=_google_genai,
            model="gemini-3-pro",
        ),
        Client(
            name="ai-sdk",
            title="AI SDK (JavaScript)",
            dialect=OPENAI_RESPONSES,
            setup=_ai_sdk,
            base="/v1",
            model="gpt-6.2-sol",
        ),
    )
}
