"""Sampling, limits and stop sequences, by generation of Claude models."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy.messages import (
    Media,
    Message,
)
from tests.dialects.anthropic.samples import (
    OPUS_47,
    PNG,
    SONNET_4,
    body_of,
    text,
)
from tests.support.dialect_requests import HI, gemini, openai, written


@pytest.mark.parametrize(
    ("members", "model", "sampling", "ignored"),
    [
        ({"temperature": 0.5}, SONNET_4, {"temperature": 0.5}, ()),
        ({"temperature": 0}, SONNET_4, {"temperature": 0}, ()),
        ({"temperature": 1.5}, SONNET_4, {"temperature": 1}, ("temperature",)),
        (
            {"temperature": 0.5, "top_p": 0.9, "top_k": 5},
            SONNET_4,
            {"temperature": 0.5, "top_p": 0.9, "top_k": 5},
            (),
        ),
        # from Opus 4.1 on one excludes the other
        (
            {"temperature": 0.5, "top_p": 0.9},
            "claude-opus-4-1",
            {"temperature": 0.5},
            ("top_p",),
        ),
        ({"top_p": 0.9}, "claude-sonnet-4-5", {"top_p": 0.9}, ()),
        # from Opus 4.7 on there is none
        ({"temperature": 0.5, "top_p": 0.9}, OPUS_47, {}, ("temperature", "top_p")),
        ({"temperature": 1, "top_p": 1}, OPUS_47, {}, ()),
        ({"top_k": 5}, OPUS_47, {}, ("top_k",)),
        # nor beside thinking
        ({"temperature": 0.5, "reasoning_effort": "low"}, SONNET_4, {}, ("temperature",)),
        ({"temperature": 1, "reasoning_effort": "low"}, SONNET_4, {}, ()),
        ({"temperature": 1, "reasoning_effort": "none"}, SONNET_4, {"temperature": 1}, ()),
        # what Claude never had
        ({"seed": 0}, SONNET_4, {}, ("seed",)),
        ({"presence_penalty": 0, "frequency_penalty": 0}, SONNET_4, {}, ()),
        (
            {"presence_penalty": 1, "frequency_penalty": -1},
            SONNET_4,
            {},
            ("presence_penalty", "frequency_penalty"),
        ),
    ],
)
def test_only_supported_sampling_parameters_are_sent(
    members: dict[str, Any], model: str, sampling: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    draft = written("anthropic", openai(**members), model)
    names = ("temperature", "top_p", "top_k")
    assert {n: draft.body[n] for n in names if n in draft.body} == sampling
    assert draft.ignored == ignored


def test_the_callers_limit_is_kept() -> None:
    assert body_of(openai(max_tokens=5))["max_tokens"] == 5


def test_stop_sequences_of_white_space_are_dropped_and_reported() -> None:
    draft = written("anthropic", openai(stop=["a", "\n\n"]))
    assert draft.body["stop_sequences"] == ["a"]
    assert draft.ignored == ("stop",)
    assert written("anthropic", openai(stop="a")).ignored == ()


def test_members_that_anthropic_lacks_are_reported() -> None:
    draft = written(
        "anthropic",
        openai([{"role": "user", "content": "Hi", "name": "bob"}], store=True, logit_bias={"1": 1}),
    )
    assert draft.ignored == ("store", "logit_bias", "messages[].name")
    google = gemini(
        [{"role": "model", "parts": [{"executableCode": {"code": "x"}}, {"text": "a"}]}],
        safetySettings=[],
        generationConfig={"mediaResolution": "LOW"},
    )
    draft = written("anthropic", google)
    assert draft.ignored == (
        "safetySettings",
        "generationConfig.mediaResolution",
        "messages[].content",
    )
    assert draft.body["messages"] == [{"role": "assistant", "content": [text("a")]}]


def test_log_probabilities_are_reported() -> None:
    for language in ("anthropic", "ollama"):
        draft = written(language, openai(logprobs=True, top_logprobs=3))
        assert draft.ignored == ("logprobs", "top_logprobs")
        assert written(language, openai(logprobs=False, top_logprobs=0)).ignored == ()


DRAWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize(
    "drawn",
    [
        {"content": "See", "images": [DRAWN]},
        {"content": [text("See"), DRAWN]},
    ],
)
def test_images_that_a_model_generated_are_reported(drawn: dict[str, Any]) -> None:
    """Claude's turns cannot contain images, and would be rejected with them."""
    draft = written("anthropic", openai([*HI, {"role": "assistant", **drawn}, *HI]))
    assert draft.body["messages"][1] == {"role": "assistant", "content": [text("See")]}
    assert draft.ignored == ("messages[].images",)


def test_images_that_a_model_generated_are_decoded_with_their_signature() -> None:
    google = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    message = {"role": "assistant", "content": None, "images": [{**DRAWN, **google}]}
    (said,) = openai([message]).messages
    signed = {"gemini": {"signature": "c2ln"}}
    image = Media(kind="image", media_type="image/png", data=PNG, extra=signed)
    assert said == Message("assistant", (image,))
