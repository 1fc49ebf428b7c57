"""Images on Amazon Bedrock, through InvokeModel: Stability's models, and Amazon's Nova Canvas.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html
https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import read_object
from asgi_aiproxy.operations.bedrock import invoke_path, no_such_operation
from asgi_aiproxy.operations.images.base import (
    GeneratedImage,
    ImagesAPI,
    ImagesRequest,
    ImagesResponse,
    aspect_ratio,
    encoded,
    other_members,
    unsupported,
)

_RATIOS = ("1:1", "16:9", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
_OWN = ("negative_prompt", "seed", "strength")
_NOVA_MOST = 5


class BedrockImages(ImagesAPI):
    """The models for images on Amazon Bedrock."""

    def encode_one(self, request: ImagesRequest) -> ProviderRequest:
        """Write the body of one family of models."""
        if "stability." in request.model:
            body, ignored = self._stability(request)
        elif "nova-canvas" in request.model:
            body, ignored = self._nova(request)
        else:
            raise no_such_operation(request.model, "images")
        return ProviderRequest(invoke_path(request.model), body, ignored=ignored)

    def _stability(self, request: ImagesRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
        body: dict[str, Any] = {"prompt": request.prompt}
        if request.format == "webp":
            raise unsupported("output_format", "the provider of this model makes 'png' and 'jpeg'")
        if request.format:
            body["output_format"] = request.format
        body |= {name: request.rest[name] for name in _OWN if name in request.rest}
        if request.images:
            if len(request.images) > 1:
                raise unsupported("image", "the provider of this model edits one image")
            body |= {"mode": "image-to-image", "image": encoded(request.images[0])}
            body.setdefault("strength", 0.7)  # required
            ignored = ("size",) if request.size is not None else ()
        else:
            body.pop("strength", None)
            ignored = ("strength",) if "strength" in request.rest else ()
            if request.size is not None:
                body["aspect_ratio"] = aspect_ratio(request.size, _RATIOS)
        return body, (*other_members(request, _OWN), *ignored)

    def _nova(self, request: ImagesRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
        if request.n > _NOVA_MOST:
            raise unsupported("n", f"the provider of this model makes at most {_NOVA_MOST} images")
        if request.format not in ("", "png"):
            raise unsupported("output_format", "the provider of this model makes 'png' only")
        config: dict[str, Any] = {"numberOfImages": request.n}
        if request.size is not None:
            config |= {"width": request.size[0], "height": request.size[1]}
        quality = request.rest.get("quality")
        if quality in ("high", "hd"):
            config["quality"] = "premium"
        if "seed" in request.rest:
            config["seed"] = request.rest["seed"]
        params: dict[str, Any] = {"text": request.prompt}
        if "negative_prompt" in request.rest:
            params["negativeText"] = request.rest["negative_prompt"]
        body: dict[str, Any] = {"taskType": "TEXT_IMAGE", "textToImageParams": params}
        if request.images:
            params["images"] = [encoded(file) for file in request.images]
            body = {"taskType": "IMAGE_VARIATION", "imageVariationParams": params}
        known = ("seed", "negative_prompt", *(("quality",) if quality in ("high", "hd") else ()))
        return {**body, "imageGenerationConfig": config}, other_members(request, known)

    def parts(self, request: ImagesRequest) -> Sequence[ProviderRequest]:
        """The requests for the images after the first one; Nova Canvas makes all at once."""
        return () if "nova-canvas" in request.model else super().parts(request)

    def decode_one(self, body: bytes, request: ImagesRequest) -> ImagesResponse:
        """Read a response; a filtered image has a reason instead."""
        found = read_object(body)
        data = found.get("images")
        reasons = [r for r in found.get("finish_reasons") or [] if isinstance(r, str) and r]
        error = _parsing.get_text(found, "error")
        images = [each for each in data if isinstance(each, str)] if isinstance(data, list) else []
        if reasons or error or not images:
            why = ", ".join(reasons) or error or "no reason is given"
            raise APIError(
                ErrorKind.INVALID,
                f"The provider made no image: {why}.",
                code="content_policy_violation",
            )
        kind = f"image/{request.format or 'png'}"
        made = tuple(GeneratedImage(data=each, media_type=kind) for each in images)
        return ImagesResponse(model=request.model, images=made, usage=Usage(images=len(made)))


BEDROCK_IMAGES = BedrockImages()
