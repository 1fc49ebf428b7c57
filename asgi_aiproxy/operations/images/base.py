"""Images in terms of no vendor, and OpenAI's API for them, as clients use it.

POST /v1/images/generations and /v1/images/edits:
https://platform.openai.com/docs/api-reference/images

A vendor that makes one image per request is sent `n` of them (`ImagesAPI`): one, and when it was
answered the others, some at the same time. Images cost too much to be thrown away: if one of them
is not made, the response has the others.

What vendors do not have is refused if it would be another image (`mask`, a size), and else listed
as ignored (`quality`, `style` ...). Only OpenAI's API streams partial images: other vendors' images
are sent as one event each, after keep-alives.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Clock, Operation, ProviderRequest
from asgi_aiproxy.dialects.openai_chat.native_stream import openai_usage
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import ClientOperation, OperationAPI, read_json
from asgi_aiproxy.operations.forms import Form, FormFile, memory_file, number

EDITS = "images.edits"
MiB = 1024 * 1024
MAX_IMAGE_BYTES = 20 * MiB  # of an image to edit, which is sent as part of a JSON body
_MAX_IMAGES = 10
_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_KNOWN = frozenset(
    {"model", "prompt", "n", "size", "response_format", "output_format", "image", "images"}
    | {"mask", "stream", "image[]", "provider"}
)
# Members that have no effect with these values.
_DEFAULTS: Mapping[str, Collection[Any]] = {
    "quality": ("auto", "standard"),
    "background": ("auto",),
    "moderation": ("auto",),
    "partial_images": (0, "0"),
}


class ImagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for `n` images by a `model`.

    `size` is width and height in pixels; None: as the model does. `format` is `png`, `jpeg`, `webp`
    or empty. `images` are those to edit, `mask` says where. `url`: the client requested URLs
    instead of base64. `stream`: it requested events. `rest` are other members.
    """

    model: str
    prompt: str
    n: int = 1
    size: tuple[int, int] | None = None
    format: str = ""
    images: tuple[FormFile, ...] = ()
    mask: FormFile | None = None
    url: bool = False
    stream: bool = False
    rest: Mapping[str, Any] = {}


class GeneratedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image: `data` in base64, or a `url`. `prompt` is what the vendor made of the client's."""

    data: str = ""
    url: str = ""
    media_type: str = "image/png"
    prompt: str = ""


class ImagesResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The `images` of a `model`."""

    model: str
    images: tuple[GeneratedImage, ...]
    usage: Usage | None = None


class ImagesAPI(OperationAPI[ImagesRequest, ImagesResponse]):
    """An API that makes one image per request.

    `edits`: it takes images.
    """

    kind: ClassVar[str] = "images"
    reducible: ClassVar[str] = "n"
    edits: ClassVar[bool] = True

    @abstractmethod
    def encode_one(self, request: ImagesRequest) -> ProviderRequest:
        """Write a request for one image. Raises APIError."""

    @abstractmethod
    def decode_one(self, body: bytes, request: ImagesRequest) -> ImagesResponse:
        """Read its response. Raises APIError."""

    def encode_request(self, request: ImagesRequest) -> ProviderRequest:
        """Write the first request."""
        if request.mask is not None:
            raise unsupported("mask", "the provider of this model edits images without a mask")
        if request.images and not self.edits:
            raise unsupported("image", "the provider of this model does not edit images")
        return self.encode_one(request)

    def parts(self, request: ImagesRequest) -> Sequence[ProviderRequest]:
        """The requests for the images after the first one."""
        return [self.encode_one(request) for _ in range(request.n - 1)]

    def part_usage(self, body: bytes, request: ImagesRequest) -> Usage | None:
        """What the images of one response cost."""
        return join([self.decode_one(body, request)]).usage

    def decode_response(self, bodies: Sequence[bytes], request: ImagesRequest) -> ImagesResponse:
        """Read all images."""
        return join([self.decode_one(body, request) for body in bodies])


def join(found: Sequence[ImagesResponse]) -> ImagesResponse:
    """Several responses as one, with their usage added up."""
    images = tuple(image for each in found for image in each.images)
    usage = Usage(images=len(images))
    for each in found:
        if (one := each.usage) is not None:
            usage = msgspec.structs.replace(
                usage,
                input=usage.input + one.input,
                output=usage.output + one.output,
                image_input=usage.image_input + one.image_input,
                image_output=usage.image_output + one.image_output,
            )
    return ImagesResponse(model=found[0].model, images=images, usage=usage)


class OpenAIImagesClient(ClientOperation[ImagesRequest, ImagesResponse]):
    """OpenAI's API for images, as clients use it. `now` returns Unix seconds."""

    kind: ClassVar[str] = "images"
    streams: ClassVar[bool] = True

    def __init__(self, *, now: Clock = time.time) -> None:
        self._now = now

    def decode_request(self, operation: Operation, body: bytes | Form) -> ImagesRequest:
        """Read a JSON body, or a form with images."""
        fields = _form_fields(body) if isinstance(body, Form) else read_json(body)
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise _parsing.missing_field_error("prompt")
        n = fields.get("n")
        n = 1 if n is None else n
        if type(n) is not int or not 1 <= n <= _MAX_IMAGES:
            message = f"'n' must be an integer from 1 to {_MAX_IMAGES}."
            raise invalid(message, "n", "invalid_value")
        form = fields.get("output_format") or ""
        if form not in ("", "png", "jpeg", "webp"):
            message = "'output_format' must be 'png', 'jpeg' or 'webp'."
            raise invalid(message, "output_format", "invalid_value")
        wanted = fields.get("response_format")
        if wanted not in (None, "b64_json", "url"):
            message = "'response_format' must be 'b64_json' or 'url'."
            raise invalid(message, "response_format", "invalid_value")
        images, mask = _images(fields, body)
        if operation.name == EDITS and not images:
            raise _parsing.missing_field_error("image")
        return ImagesRequest(
            model=_parsing.get_text(fields, "model"),
            prompt=prompt,
            n=n,
            size=_size(fields.get("size")),
            format=form,
            images=images,
            mask=mask,
            url=wanted == "url",
            stream=str(fields.get("stream")).lower() in ("true", "1"),
            rest={
                name: value
                for name, value in fields.items()
                if name not in _KNOWN and value is not None and value not in _DEFAULTS.get(name, ())
            },
        )

    def media_type(self, request: ImagesRequest) -> str:
        """Events, or JSON."""
        return "text/event-stream" if request.stream else "application/json"

    def encode_response(self, response: ImagesResponse, request: ImagesRequest) -> bytes:
        """Write the images. A vendor's base64 becomes a `data:` URL if URLs were requested."""
        created = int(self._now())
        usage = response.usage
        tokens = None
        if usage is not None and usage.input + usage.output:
            tokens = {
                "input_tokens": usage.input,
                "output_tokens": usage.output,
                "total_tokens": usage.input + usage.output,
                "input_tokens_details": {
                    "text_tokens": usage.input - usage.image_input,
                    "image_tokens": usage.image_input,
                },
            }
        if request.stream:
            prefix = "image_edit" if request.images else "image_generation"
            frames = [
                _event(prefix, each, created, tokens if at == len(response.images) - 1 else None)
                for at, each in enumerate(response.images)
            ]
            return b"".join(frames)
        data = []
        for each in response.images:
            if request.url:
                one = {"url": each.url or f"data:{each.media_type};base64,{each.data}"}
            else:
                one = {"b64_json": each.data} if each.data else {"url": each.url}
            if each.prompt:
                one["revised_prompt"] = each.prompt
            data.append(one)
        answer: dict[str, Any] = {"created": created, "data": data}
        kind = response.images[0].media_type.removeprefix("image/") if response.images else ""
        if kind in ("png", "jpeg", "webp") and not request.url:
            answer["output_format"] = kind
        if tokens is not None:
            answer["usage"] = tokens
        return _json.dumps(answer)

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read the usage of a response that passes through: tokens, and the number of images."""
        model, usage = openai_usage(body)
        found = _parsing.parse_object(body) or {}
        images = found.get("data")
        count = len(images) if isinstance(images, list) else 0
        if not count:
            return model, usage
        return model, msgspec.structs.replace(usage or Usage(), images=count)

    def upload_units(self, length: int) -> Usage:
        """One image: how many are requested is not known before the form is read."""
        return Usage(images=1)

    def units(self, request: ImagesRequest) -> Usage:
        """The number of images."""
        return Usage(images=request.n)


def _event(prefix: str, image: GeneratedImage, created: int, tokens: Any) -> bytes:
    event: dict[str, Any] = {
        "type": f"{prefix}.completed",
        "b64_json": image.data,
        "created_at": created,
        "output_format": image.media_type.removeprefix("image/"),
    }
    if tokens is not None:
        event["usage"] = tokens
    return f"event: {prefix}.completed\ndata: ".encode() + _json.dumps(event) + b"\n\n"


def _form_fields(form: Form) -> dict[str, Any]:
    fields: dict[str, Any] = dict(form.fields)
    for name in ("n", "output_compression", "partial_images"):
        if name in fields:
            fields[name] = number(form, name)
    return fields


def _images(
    fields: Mapping[str, Any], body: bytes | Form
) -> tuple[tuple[FormFile, ...], FormFile | None]:
    """The images to edit, and the mask: files of a form, or `data:` URLs in JSON."""
    if isinstance(body, Form):
        return tuple(body.uploads("image")), next(iter(body.uploads("mask")), None)
    given = fields.get("images")
    items = given if isinstance(given, list) else []
    images = tuple(_data_url(each, f"images[{at}]") for at, each in enumerate(items))
    mask = fields.get("mask")
    return images, _data_url(mask, "mask") if mask is not None else None


def _data_url(given: Any, where: str) -> FormFile:
    """An image in JSON: `{"image_url": "data:..."}`. Raises APIError for what is not in it."""
    url = given.get("image_url") if isinstance(given, dict) else None
    found = _DATA_URL.match(url) if isinstance(url, str) else None
    if found is None or not isinstance(url, str):
        raise invalid(
            f"'{where}': for the provider of this model images must be 'data:' URLs, or files of a "
            "form.",
            where,
            "unsupported_content",
        )
    try:
        data = base64.b64decode(url[found.end() :], validate=True)
    except binascii.Error:
        raise invalid(f"'{where}' is not valid base64.", where, "invalid_value") from None
    return memory_file(where, data, found[1])


def _size(given: Any) -> tuple[int, int] | None:
    if given in (None, "auto", ""):
        return None
    found = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        message = "'size' must be 'auto', or a width and a height, such as '1024x1024'."
        raise invalid(message, "size", "invalid_value")
    return int(found[1]), int(found[2])


# What the APIs of vendors share.


def encoded(file: FormFile) -> str:
    """An image to edit, in base64. Raises APIError if it is too large."""
    data = file.read_at_most(MAX_IMAGE_BYTES, "the provider of this model")
    return base64.b64encode(data).decode()


def aspect_ratio(size: tuple[int, int], known: Sequence[str]) -> str:
    """The ratio of `known` that is nearest to a size. Raises APIError if none is near (5 %)."""
    wanted = math.log(size[0] / size[1])

    def distance(ratio: str) -> float:
        width, _, height = ratio.partition(":")
        return abs(math.log(int(width) / int(height)) - wanted)

    best = min(known, key=distance)
    if distance(best) > math.log(1.05):
        names = ", ".join(known)
        raise unsupported(
            "size", f"the provider of this model has no such ratio, only {names} (or 'auto')"
        )
    return best


def unsupported(name: str, why: str) -> APIError:
    """The error for a member that the vendor lacks."""
    return invalid(f"'{name}': {why}.", name, "unsupported_parameter")


def other_members(request: ImagesRequest, own: Collection[str] = ()) -> tuple[str, ...]:
    """The members that the vendor does not know, but for its `own`."""
    return tuple(name for name in request.rest if name not in own)
