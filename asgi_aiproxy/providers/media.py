"""Vendors of images and sound, one `Provider` each, and servers for images that one runs oneself.

They have no chat: chat requests for their models are refused, or answered by the next target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asgi_aiproxy.dialects.no_chat import NoChat
from asgi_aiproxy.operations import (
    DEEPGRAM_SPEECH,
    DEEPGRAM_TRANSCRIPTION,
    ELEVENLABS_SPEECH,
    ELEVENLABS_TRANSCRIPTION,
    FLUX_IMAGES,
    ComfyUIImages,
    GradioImages,
)
from asgi_aiproxy.providers import refusal_codes
from asgi_aiproxy.providers.base import Provider, header

# https://elevenlabs.io/docs/api-reference/introduction
ELEVENLABS = Provider(
    name="elevenlabs",
    refusals=refusal_codes.ELEVENLABS,
    dialect=NoChat(id="model_id"),
    base_url="https://api.elevenlabs.io",
    auth=header("xi-api-key"),
    operations=(ELEVENLABS_SPEECH, ELEVENLABS_TRANSCRIPTION),
    path_profile="elevenlabs",
)
# https://developers.deepgram.com/reference/deepgram-api-overview
DEEPGRAM = Provider(
    name="deepgram",
    refusals=refusal_codes.DEEPGRAM,
    dialect=NoChat(members="stt", id="canonical_name"),
    base_url="https://api.deepgram.com",
    auth=header("authorization", "Token"),
    operations=(DEEPGRAM_SPEECH, DEEPGRAM_TRANSCRIPTION),
    path_profile="deepgram",
)
# https://docs.bfl.ai: models are paths (`flux-2-pro`). Regions: base_url https://api.eu.bfl.ai.
BFL = Provider(
    name="bfl",
    refusals=refusal_codes.BFL,
    dialect=NoChat(),
    base_url="https://api.bfl.ai",
    auth=header("x-key"),
    operations=(FLUX_IMAGES,),
    catalogue=("flux-2-pro", "flux-2-flex", "flux-2-max", "flux-kontext-pro", "flux-kontext-max"),
    path_profile="bfl",
)


def comfyui(
    workflow: Mapping[str, Any],
    base_url: str = "http://127.0.0.1:8188",
    *,
    size: tuple[int, int] = (1024, 1024),
    poll_seconds: float = 1.0,
    name: str = "comfyui",
) -> Provider:
    """A ComfyUI server with a workflow in the format of its API.

    The strings `{prompt}`, `{width}`, `{height}`, `{n}`, `{seed}` and `{model}` in the workflow
    stand for the values of a request. `size` is the default size in pixels, `poll_seconds` the time
    between two polls, `name` the name of the provider. Raises ConfigurationError if `base_url` is
    invalid.
    """
    images = ComfyUIImages(workflow, size=size, poll_seconds=poll_seconds)
    return Provider(
        name=name, dialect=NoChat(), base_url=base_url, operations=(images,), catalogue=(name,)
    )


def gradio(
    api_name: str,
    inputs: Sequence[Any],
    base_url: str = "http://127.0.0.1:7860",
    *,
    size: tuple[int, int] = (1024, 1024),
    name: str = "gradio",
) -> Provider:
    """A Gradio app that makes images.

    `api_name` is one of its endpoints, `inputs` are the values that it takes, with the placeholders
    of `comfyui`. Its first output must be an image or a gallery. `size` is the default size in
    pixels, `name` the name of the provider. Raises ConfigurationError if `base_url` is invalid.
    """
    images = GradioImages(api_name, inputs, size=size)
    return Provider(
        name=name, dialect=NoChat(), base_url=base_url, operations=(images,), catalogue=(name,)
    )


ROWS: tuple[Provider, ...] = (ELEVENLABS, DEEPGRAM, BFL)
