"""Google's images: Gemini models that answer with images (generateContent), and Imagen (predict).

https://ai.google.dev/gemini-api/docs/image-generation, https://ai.google.dev/gemini-api/docs/imagen
and, for Vertex AI,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from asgi_aiproxy.dialects import GEMINI_CONTENT, _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.gemini.request_encoder import method_path
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import read_object
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

_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_IMAGEN_RATIOS = ("1:1", "3:4", "4:3", "9:16", "16:9")
_IMAGEN_MOST = 4
_IMAGEN_OWN = ("personGeneration", "negativePrompt", "seed", "addWatermark", "enhancePrompt")


class GeminiImages(ImagesAPI):
    """Google's APIs for images, by the name of the model: Imagen's, or Gemini's."""

    def encode_request(self, request: ImagesRequest) -> ProviderRequest:
        """Write the first request."""
        if _is_imagen(request) and request.images:
            raise unsupported("image", "Imagen does not edit images here: use a Gemini model")
        return super().encode_request(request)

    def encode_one(self, request: ImagesRequest) -> ProviderRequest:
        """Write a request: for one image, or of Imagen for all."""
        if _is_imagen(request):
            return _predict(request)
        if request.format:
            raise unsupported("output_format", "the model chooses the format of its images")
        parts: list[dict[str, Any]] = [{"text": request.prompt}]
        for file in request.images:
            kind = file.media_type if file.media_type.startswith("image/") else "image/png"
            parts.append({"inlineData": {"mimeType": kind, "data": encoded(file)}})
        config: dict[str, Any] = {"responseModalities": ["TEXT", "IMAGE"]}
        if request.size is not None:
            config["imageConfig"] = {"aspectRatio": aspect_ratio(request.size, _RATIOS)}
            longest = max(request.size)
            if longest > 2000:
                config["imageConfig"]["imageSize"] = "4K" if longest > 4000 else "2K"
        body = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
        path = method_path(request.model, "generateContent")
        return ProviderRequest(path, body, ignored=other_members(request))

    def parts(self, request: ImagesRequest) -> Sequence[ProviderRequest]:
        """The requests for the images after the first one; Imagen makes all at once."""
        return () if _is_imagen(request) else super().parts(request)

    def decode_one(self, body: bytes, request: ImagesRequest) -> ImagesResponse:
        """Read a response."""
        found = read_object(body)
        if _is_imagen(request):
            return _predictions(found, request)
        images = []
        for candidate in _parsing.objects(found.get("candidates")):
            content = candidate.get("content")
            parts = content.get("parts") if isinstance(content, dict) else None
            for part in _parsing.objects(parts):
                data = part.get("inlineData")
                if isinstance(data, dict) and not part.get("thought"):
                    kind = _parsing.get_text(data, "mimeType") or "image/png"
                    images.append(
                        GeneratedImage(data=_parsing.get_text(data, "data"), media_type=kind)
                    )
        usage = GEMINI_CONTENT.decode_response(body).usage  # raises an error that is in it
        if not images:
            raise _refused("")
        if usage is not None:
            usage = msgspec.structs.replace(usage, image_output=usage.output - usage.reasoning)
        return ImagesResponse(model=request.model, images=tuple(images), usage=usage)


def _is_imagen(request: ImagesRequest) -> bool:
    return "imagen" in request.model


def _predict(request: ImagesRequest) -> ProviderRequest:
    if request.n > _IMAGEN_MOST:
        raise unsupported("n", f"Imagen makes at most {_IMAGEN_MOST} images at once")
    parameters: dict[str, Any] = {"sampleCount": request.n}
    if request.size is not None:
        parameters["aspectRatio"] = aspect_ratio(request.size, _IMAGEN_RATIOS)
        if max(request.size) > 1536:
            parameters["sampleImageSize"] = "2K"
    if request.format == "webp":
        raise unsupported("output_format", "Imagen makes 'png' and 'jpeg' only")
    compression = request.rest.get("output_compression")
    if request.format:
        parameters["outputOptions"] = {"mimeType": f"image/{request.format}"}
        if request.format == "jpeg" and type(compression) is int:
            parameters["outputOptions"]["compressionQuality"] = compression
    own = (*_IMAGEN_OWN, *(("output_compression",) if request.format == "jpeg" else ()))
    parameters |= {name: request.rest[name] for name in _IMAGEN_OWN if name in request.rest}
    body = {"instances": [{"prompt": request.prompt}], "parameters": parameters}
    path = method_path(request.model, "predict")
    return ProviderRequest(path, body, ignored=other_members(request, own))


def _predictions(found: dict[str, Any], request: ImagesRequest) -> ImagesResponse:
    images, reason = [], ""
    for each in _parsing.objects(found.get("predictions")):
        data = _parsing.get_text(each, "bytesBase64Encoded")
        reason = reason or _parsing.get_text(each, "raiFilteredReason")
        if data:
            kind = _parsing.get_text(each, "mimeType") or "image/png"
            prompt = _parsing.get_text(each, "prompt")
            images.append(GeneratedImage(data=data, media_type=kind, prompt=prompt))
    if not images:
        raise _refused(reason)
    usage = Usage(images=len(images))
    return ImagesResponse(model=request.model, images=tuple(images), usage=usage)


def _refused(reason: str) -> APIError:
    """The error for a response without images."""
    message = f"The provider made no image: {reason or 'it was filtered, or the answer is text'}"
    return APIError(ErrorKind.INVALID, message.rstrip(".") + ".", code="content_policy_violation")


GEMINI_IMAGES = GeminiImages()
