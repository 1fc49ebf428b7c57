"""Images of servers that run a workflow of their own: ComfyUI and Gradio.

- ComfyUI: https://docs.comfy.org/development/comfyui-server/comms_routes: POST /prompt, then GET
  /history/{id} until the workflow is done, then GET /view for each image.
- Gradio: https://www.gradio.app/guides/querying-gradio-apps-with-curl: POST to
  /gradio_api/call/{name}, then GET its events until they are complete, then the files they name.

Which inputs a workflow has is up to its author: it is given as a template, in which the strings
`{prompt}`, `{width}`, `{height}`, `{n}`, `{seed}` and `{model}` stand for the values of a request.
`{style}`, `{quality}` and `{negative_prompt}` are members of that name, empty if they are missing.
"""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import FollowUp, read_object
from asgi_aiproxy.operations.images.base import (
    GeneratedImage,
    ImagesAPI,
    ImagesRequest,
    ImagesResponse,
    other_members,
    unsupported,
)

_TEXTS = ("style", "quality", "negative_prompt")
_SIGNATURES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))


class WorkflowImages(ImagesAPI):
    """A server whose template has placeholders.

    `size` is the default width and height in pixels.
    """

    edits = False

    def __init__(self, template: Any, size: tuple[int, int]) -> None:
        self._template = template
        self._size = size
        self._used = _placeholders(template)

    @abstractmethod
    def files(self, bodies: Sequence[bytes]) -> tuple[list[ProviderRequest], int] | None:
        """The requests for the images, and how many of `bodies` came before them; None if the
        workflow is not done. Raises APIError if it failed.
        """

    def filled(self, request: ImagesRequest) -> Any:
        """The template with the values of a request. Raises APIError for what it lacks."""
        if request.n > 1 and "n" not in self._used:
            raise unsupported("n", "the workflow of this model makes one image")
        if request.size is not None and not {"width", "height"} & self._used:
            raise unsupported("size", "the workflow of this model has one size")
        if request.format:
            raise unsupported("output_format", "the workflow of this model chooses the format")
        width, height = request.size or self._size
        seed = request.rest.get("seed")
        given = {name: request.rest.get(name) for name in _TEXTS}
        values = {
            **{name: text if isinstance(text, str) else "" for name, text in given.items()},
            "prompt": request.prompt,
            "width": width,
            "height": height,
            "n": request.n,
            "seed": seed if type(seed) is int else getrandbits(32),
            "model": request.model,
        }
        return _fill(self._template, values)

    def parts(self, request: ImagesRequest) -> Sequence[ProviderRequest]:
        """No further request: the workflow makes all images."""
        return ()

    def follow_up(self, bodies: Sequence[bytes], request: ImagesRequest) -> FollowUp | None:
        """Wait for the workflow, or fetch the next image."""
        found = self.files(bodies)
        if found is None:
            return self.wait(bodies)
        drafts, before = found
        fetched = len(bodies) - before
        return FollowUp(draft=drafts[fetched]) if fetched < len(drafts) else None

    @abstractmethod
    def wait(self, bodies: Sequence[bytes]) -> FollowUp:
        """The request for the state of the workflow."""

    def decode_response(self, bodies: Sequence[bytes], request: ImagesRequest) -> ImagesResponse:
        """Read the images, which are the last bodies."""
        found = self.files(bodies)
        images = bodies[found[1] :] if found is not None else ()
        if not images:
            raise APIError(ErrorKind.UPSTREAM, "The workflow made no image.")
        return ImagesResponse(
            model=request.model,
            images=tuple(map(_image, images)),
            usage=Usage(images=len(images)),
        )

    def decode_one(self, body: bytes, request: ImagesRequest) -> ImagesResponse:
        """Read one image."""
        return ImagesResponse(model=request.model, images=(_image(body),))


class ComfyUIImages(WorkflowImages):
    """ComfyUI. `workflow` is one in the format of its API (Workflow, Export (API)).

    `size` is the default size, `poll_seconds` the time between two polls.
    """

    def __init__(
        self,
        workflow: Mapping[str, Any],
        *,
        size: tuple[int, int] = (1024, 1024),
        poll_seconds: float = 1.0,
    ) -> None:
        super().__init__(workflow, size)
        self._poll_seconds = poll_seconds

    def encode_one(self, request: ImagesRequest) -> ProviderRequest:
        """Queue the workflow."""
        body = {"prompt": self.filled(request)}
        used = [name for name in ("seed", *_TEXTS) if name in self._used]
        return ProviderRequest("/prompt", body, ignored=other_members(request, used))

    def wait(self, bodies: Sequence[bytes]) -> FollowUp:
        """Poll its history."""
        path = f"/history/{quote(_id(bodies[0], 'prompt_id'), safe='')}"
        return FollowUp(draft=ProviderRequest(path, {}), delay=self._poll_seconds)

    def files(self, bodies: Sequence[bytes]) -> tuple[list[ProviderRequest], int] | None:
        """The images of all nodes."""
        id = _id(bodies[0], "prompt_id")
        for at, body in enumerate(bodies[1:], 2):
            run = (_parsing.parse_object(body) or {}).get(id)
            if not isinstance(run, dict):
                continue
            status = run.get("status")
            if _parsing.get_text(status, "status_str") == "error":
                raise APIError(ErrorKind.UPSTREAM, "The workflow failed.")
            outputs = run.get("outputs")
            drafts = []
            for node in outputs.values() if isinstance(outputs, dict) else ():
                for image in _parsing.objects(node.get("images")):
                    names = ("filename", "subfolder", "type")
                    query = urlencode({name: _parsing.get_text(image, name) for name in names})
                    if _parsing.get_text(image, "type") != "temp":
                        drafts.append(ProviderRequest("/view", {}, query=query))
            return drafts, at
        return None


class GradioImages(WorkflowImages):
    """A Gradio app. `api_name` is one of its endpoints, `inputs` the values that it takes.

    `size` is the default size. The first output must be an image, or a gallery.
    """

    def __init__(
        self, api_name: str, inputs: Sequence[Any], *, size: tuple[int, int] = (1024, 1024)
    ) -> None:
        super().__init__(list(inputs), size)
        self._path = f"/gradio_api/call/{quote(api_name.lstrip('/'), safe='')}"

    def encode_one(self, request: ImagesRequest) -> ProviderRequest:
        """Call the endpoint."""
        used = [name for name in ("seed", *_TEXTS) if name in self._used]
        ignored = other_members(request, used)
        return ProviderRequest(self._path, {"data": self.filled(request)}, ignored=ignored)

    def wait(self, bodies: Sequence[bytes]) -> FollowUp:
        """Read the events of the call, to their end."""
        path = f"{self._path}/{quote(_id(bodies[0], 'event_id'), safe='')}"
        return FollowUp(draft=ProviderRequest(path, {}))

    def files(self, bodies: Sequence[bytes]) -> tuple[list[ProviderRequest], int] | None:
        """The files of the first output."""
        if len(bodies) < 2:
            return None
        complete = None
        for event, data in _events(bodies[1]):
            if event == "error":
                raise APIError(ErrorKind.UPSTREAM, "The Gradio app failed.")
            complete = data if event == "complete" else complete
        if not isinstance(complete, list) or not complete:
            raise APIError(ErrorKind.UPSTREAM, "The Gradio app sent no result.")
        first = complete[0]
        items = first if isinstance(first, list) else [first]
        drafts = []
        for item in items:
            inner = item.get("image") if isinstance(item, dict) else None
            url = _parsing.get_text(inner if isinstance(inner, dict) else item, "url")
            if url:
                parts = urlsplit(url)
                drafts.append(ProviderRequest(parts.path, {}, query=parts.query))
        return drafts, 2


def _events(body: bytes) -> list[tuple[str, Any]]:
    """The events of a Gradio call, with their data."""
    found = []
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = dict(line.partition(b": ")[::2] for line in block.split(b"\n") if b": " in line)
        if b"event" in lines:
            try:
                data = _json.loads(lines.get(b"data", b"null"))
            except _json.NotJSONError:
                data = None
            found.append((lines[b"event"].decode("utf-8", "replace"), data))
    return found


def _id(body: bytes, name: str) -> str:
    found = _parsing.get_text(read_object(body), name)
    if not found:
        raise _parsing.unparsable_response_error(200, body)
    return found


def _image(body: bytes) -> GeneratedImage:
    kind = next((kind for mark, kind in _SIGNATURES if body.startswith(mark)), "image/png")
    return GeneratedImage(data=base64.b64encode(body).decode(), media_type=kind)


def _placeholders(template: Any) -> frozenset[str]:
    if isinstance(template, Mapping):
        return frozenset().union(*map(_placeholders, template.values()))
    if isinstance(template, list):
        return frozenset().union(*map(_placeholders, template))
    if isinstance(template, str) and template.startswith("{") and template.endswith("}"):
        return frozenset({template[1:-1]})
    return frozenset()


def _fill(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, Mapping):
        return {name: _fill(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_fill(each, values) for each in template]
    if isinstance(template, str) and template.startswith("{") and template.endswith("}"):
        return values.get(template[1:-1], template)
    return template
