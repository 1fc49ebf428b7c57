"""Chat requests of vendors as their official SDKs declare them: `refusal` is what a vendor that
enforces it would say of a request.

Coze has no SDK with types of requests; its members are from its documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import unquote

import botocore.loaders
import botocore.model
import ollama
from anthropic.types.message_create_params import MessageCreateParams
from cerebras.cloud.sdk.types.chat.completion_create_params import (
    CompletionCreateParams as CerebrasChat,
)
from cohere.v2.raw_client import RawV2Client
from google.genai import types as google
from groq.types.chat.completion_create_params import CompletionCreateParams as GroqChat
from mistralai.client.models import ChatCompletionRequest as MistralChat
from openai.types.chat.completion_create_params import CompletionCreateParams
from openai.types.responses.response_create_params import ResponseCreateParams

from tests.support.sdk_types import Members, members_of, misfit, misfit_of_shape, of_method


class GenerateContent(TypedDict):
    """The body that Google's SDK makes of its arguments, with the types that it has for them."""

    contents: list[google.Content]
    systemInstruction: NotRequired[google.Content]
    generationConfig: NotRequired[google.GenerationConfig]
    tools: NotRequired[list[google.Tool]]
    toolConfig: NotRequired[google.ToolConfig]
    safetySettings: NotRequired[list[google.SafetySetting]]
    cachedContent: NotRequired[str]


# The body that Ollama's SDK makes of its arguments, with the types that it has for them. Parameters
# of functions are any JSON schema.
_FUNCTION = Members(members_of(ollama.Tool.Function) | {"parameters": (dict, False)})
_MESSAGE = Members(members_of(ollama.Message) | {"images": (list[str], False)})
OLLAMA_CHAT = Members(
    model=(str, True),
    messages=(list[_MESSAGE], True),  # type: ignore[valid-type]
    stream=(bool, False),
    tools=(list[Members(type=(str, True), function=(_FUNCTION, True))], False),  # type: ignore[misc]
    format=(Literal["json"] | dict[str, Any], False),
    options=(ollama.Options, False),
    think=(bool | Literal["low", "medium", "high"], False),
    keep_alive=(float | str, False),
    logprobs=(bool, False),
    top_logprobs=(int, False),
)
# Members that Anthropic's earlier models have, and that its SDK no longer declares.
_SAMPLING = Members(temperature=(float, False), top_p=(float, False), top_k=(int, False))


class CozeMessage(TypedDict):
    """https://www.coze.com/open/docs/developer_guides/chat_v3"""

    role: Literal["user", "assistant"]
    content: NotRequired[str]
    content_type: NotRequired[Literal["text", "object_string", "card"]]
    type: NotRequired[
        Literal["question", "answer", "function_call", "tool_response", "tool_output"]
    ]
    meta_data: NotRequired[dict[str, str]]


class CozeChat(TypedDict):
    """https://www.coze.com/open/docs/developer_guides/chat_v3"""

    bot_id: str
    user_id: str
    additional_messages: NotRequired[list[CozeMessage]]
    stream: NotRequired[bool]
    custom_variables: NotRequired[dict[str, str]]
    auto_save_history: NotRequired[bool]
    meta_data: NotRequired[dict[str, str]]
    extra_params: NotRequired[dict[str, str]]
    parameters: NotRequired[dict[str, Any]]
    enable_card: NotRequired[bool]


Check = Callable[[str, Any], str]  # of a path and a body: why it is refused; empty if it is not


def _of(kind: Any) -> Check:
    return lambda path, body: misfit(body, kind)


def _streamed(kind: Any) -> Check:
    """A body with the member that asks for a stream, which the SDK adds in its transport."""

    def check(path: str, body: Any) -> str:
        without = {name: value for name, value in body.items() if name != "stream"}
        return misfit(without, kind) or misfit(body.get("stream", False), bool, ".stream")

    return check


@cache
def converse() -> Any:
    """The shape of Converse in Amazon's description of its service."""
    description = botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2")
    model = botocore.model.ServiceModel(description, "bedrock-runtime")
    return model.operation_model("Converse").input_shape


def _converse(path: str, body: Any) -> str:
    _, _, model, _ = path.split("/")
    return misfit_of_shape({"modelId": unquote(model), **body}, converse())


def _openai(path: str, body: Any) -> str:
    kind = ResponseCreateParams if path.endswith("/responses") else CompletionCreateParams
    return misfit(body, kind)


def _anthropic(path: str, body: Any) -> str:
    sampling = {name: body[name] for name in _SAMPLING if name in body}
    rest = {name: value for name, value in body.items() if name not in _SAMPLING}
    return misfit(rest, MessageCreateParams) or misfit(sampling, _SAMPLING)


CHECKS: dict[str, Check] = {
    "openai": _openai,
    "openai-responses": _of(ResponseCreateParams),
    "anthropic": _anthropic,
    "gemini": _of(GenerateContent),
    "bedrock": _converse,
    "cohere": _streamed(of_method(RawV2Client.chat, "request_options")),
    "mistral": _of(MistralChat),
    "groq": _of(GroqChat),
    "cerebras": _of(CerebrasChat),
    "ollama": _of(OLLAMA_CHAT),
    "coze": _of(CozeChat),
}


def refusal(provider: str, path: str, body: Any) -> str:
    """What the vendor says against a request; empty if it accepts it."""
    return CHECKS[provider](path, body)
