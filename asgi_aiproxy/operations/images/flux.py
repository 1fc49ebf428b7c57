"""Images of Black Forest Labs: a job is submitted, polled, and its image is fetched.

https://docs.bfl.ai/quick_start/generating_images

A job makes one image: submit, then GET its `polling_url` every half a second until it is ready. The
image is at an address that needs no key and ends after ten minutes; it is fetched unless
the client requested a URL.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import FollowUp, read_object
from asgi_aiproxy.operations.images.base import (
    GeneratedImage,
    ImagesAPI,
    ImagesRequest,
    ImagesResponse,
    encoded,
    other_members,
    unsupported,
)

_POLL_SECONDS = 0.5
_WAITING = frozenset({"Pending", "Queued", "Processing", "Running"})
_REFUSED = frozenset({"Request Moderated", "Content Moderated"})
_OWN = ("seed", "prompt_upsampling", "safety_tolerance", "raw", "guidance", "steps")
_MOST_IMAGES = 8


class FluxImages(ImagesAPI):
    """The API of Black Forest Labs. `poll_seconds` is the time between two polls."""

    def __init__(self, *, poll_seconds: float = _POLL_SECONDS) -> None:
        self._poll_seconds = poll_seconds

    def encode_one(self, request: ImagesRequest) -> ProviderRequest:
        """Submit a job."""
        if len(request.images) > _MOST_IMAGES:
            raise unsupported("image", f"at most {_MOST_IMAGES} images can be edited together")
        body: dict[str, Any] = {"prompt": request.prompt}
        if request.format == "webp":
            raise unsupported("output_format", "the provider of this model makes 'png' and 'jpeg'")
        body["output_format"] = request.format or "png"
        if request.size is not None:
            body |= {"width": request.size[0], "height": request.size[1]}
        for at, file in enumerate(request.images, 1):
            body["input_image" if at == 1 else f"input_image_{at}"] = encoded(file)
        body |= {name: request.rest[name] for name in _OWN if name in request.rest}
        path = f"/v1/{quote(check_model(request.model), safe='')}"
        return ProviderRequest(path, body, ignored=other_members(request, _OWN))

    def follow_up(self, bodies: Sequence[bytes], request: ImagesRequest) -> FollowUp | None:
        """Poll the job, or fetch its image."""
        if len(bodies) > 1:
            job = _parsing.parse_object(bodies[-1])
            if job is None:
                return None  # the image itself
            status = _parsing.get_text(job, "status")
            if status not in _WAITING:
                url = _sample(job, bodies[-1])
                return None if request.url else FollowUp(draft=_at(url), anonymous=True)
        submitted = read_object(bodies[0])
        url = _parsing.get_text(submitted, "polling_url")
        if not url:
            raise _parsing.unparsable_response_error(200, bodies[0])
        return FollowUp(draft=_at(url), delay=self._poll_seconds)

    def decode_one(self, body: bytes, request: ImagesRequest) -> ImagesResponse:
        """Read the image, or the job with its address."""
        job = _parsing.parse_object(body)
        kind = f"image/{request.format or 'png'}"
        if job is not None:
            image = GeneratedImage(url=_sample(job, body), media_type=kind)
        else:
            image = GeneratedImage(data=base64.b64encode(body).decode(), media_type=kind)
        return ImagesResponse(model=request.model, images=(image,), usage=Usage(images=1))

    def decode_response(self, bodies: Sequence[bytes], request: ImagesRequest) -> ImagesResponse:
        """Read the last response of each job."""
        return super().decode_response(bodies if request.n > 1 else bodies[-1:], request)


def _sample(job: dict[str, Any], body: bytes) -> str:
    """The address of a job's image. Raises APIError if there is none."""
    status = _parsing.get_text(job, "status")
    if status in _REFUSED:
        raise APIError(
            ErrorKind.INVALID,
            f"The provider made no image: {status}.",
            code="content_policy_violation",
        )
    result = job.get("result")
    url = _parsing.get_text(result, "sample")
    if status != "Ready" or not url:
        raise APIError(
            ErrorKind.UPSTREAM, f"The provider made no image: {status or 'no status is given'}."
        )
    return url


def _at(url: str) -> ProviderRequest:
    """A request for an address. Raises APIError if it is not one of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise APIError(ErrorKind.UPSTREAM, "The provider named an invalid address.")
    base = f"{parts.scheme}://{parts.netloc}"
    return ProviderRequest(parts.path, {}, query=parts.query, base_url=base)


FLUX_IMAGES: FluxImages = FluxImages()
