"""Chat requests of vendors as their official SDKs declare them: `refusal` is what a vendor that
enforces it would say of a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
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


# What Coze's SDK declares: written by `scripts/coze_types.py`, because the SDK cannot be installed
# beside the other packages of the tests.
_COZE_TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("coze_types.json").read_text())
COZE_EVENTS: dict[str, str] = _COZE_TABLE["events"]
# Types of messages and contents that are only in answers, as the SDK says in its comments.
_COZE_ANSWERS = {"", "follow_up", "verbose", "card", "audio"}


@cache
def coze(name: str, *, sent: bool = False) -> Members:
    """An object of Coze's; `sent`: with the words that a request may have."""
    members = _COZE_TABLE[name].items()
    return Members({member: (_coze(kind, sent), needed) for member, (kind, needed) in members})


def _coze(kind: Any, sent: bool) -> Any:
    match kind:
        case [item]:
            return list[_coze(item, sent)]  # type: ignore[misc]
        case {"*": item}:
            return dict[str, _coze(item, sent)]  # type: ignore[misc]
        case {"of": name}:
            return coze(name, sent=sent)
        case {"enum": words}:
            return Literal[tuple(w for w in words if not (sent and w in _COZE_ANSWERS))]
    return {"str": str, "int": int, "bool": bool, "any": Any}[kind]


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


def _coze_request(path: str, body: Any) -> str:
    if path.endswith("/submit_tool_outputs"):
        outputs = Members(
            tool_outputs=(list[coze("ToolOutput")], True),  # type: ignore[misc]
            stream=(bool, True),
        )
        return misfit(body, outputs)
    return misfit(body, coze("ChatRequest", sent=True))


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
    "coze": _coze_request,
}


def refusal(provider: str, path: str, body: Any) -> str:
    """What the vendor says against a request; empty if it accepts it."""
    return CHECKS[provider](path, body)
