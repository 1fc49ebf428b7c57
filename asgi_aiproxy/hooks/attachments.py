"""`AttachmentGuard`: refuses requests by number, size, type and language of attachments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, require_int_at_least
from asgi_aiproxy.hooks.base import Call, Hook
from asgi_aiproxy.messages import Media, Request, ToolResult
from asgi_aiproxy.patterns import matches_any

# Returns the language of a text, such as `en`.
DetectLanguage = Callable[[str], str]


class AttachmentGuard(Hook):
    """Checks the images, documents, audio and videos of chat requests.

    Arguments:

    - `max_count`: how many attachments a request may have (None: any number).
    - `max_bytes`: the size of each one that the request contains, in bytes. Those that it only
      refers to (a URL, an uploaded file) have no known size.
    - `media_types`: patterns of the types that are allowed, such as `image/*` (empty: all).
    - `references`: whether attachments may be given by a URL or the id of a file.
    - `languages`, `detect`: the languages that documents in plain text may have, and the function
      that returns the language of a text.

    Raises ConfigurationError for an invalid argument.
    """

    def __init__(
        self,
        *,
        max_count: int | None = None,
        max_bytes: int | None = None,
        media_types: Sequence[str] = (),
        references: bool = True,
        languages: Sequence[str] = (),
        detect: DetectLanguage | None = None,
    ) -> None:
        if isinstance(media_types, str) or isinstance(languages, str):
            raise ConfigurationError("AttachmentGuard: media_types and languages are lists.")
        if bool(languages) is not (detect is not None):
            raise ConfigurationError("AttachmentGuard: languages and detect need each other.")
        require_int_at_least(
            0,
            max_count=max_count if max_count is not None else 0,
            max_bytes=max_bytes if max_bytes is not None else 0,
        )
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._media_types = tuple(media_types)
        self._references = references
        self._languages = frozenset(languages)
        self._detect = detect

    async def before(self, call: Call) -> None:
        """Check the attachments of a request. Raises APIError if one is not allowed."""
        request = call.request
        found = list(_attachments(request)) if request is not None else []
        if self._max_count is not None and len(found) > self._max_count:
            raise _refused(f"It has {len(found)} attachments; {self._max_count} are allowed.")
        for media in found:
            self._check(media)

    def _check(self, media: Media) -> None:
        what = f"The {media.kind} {media.name!r}" if media.name else f"An attached {media.kind}"
        if self._media_types and not matches_any(self._media_types, _media_type(media)):
            allowed = ", ".join(self._media_types)
            raise _refused(f"{what} is {_media_type(media) or 'of no type'}; allowed: {allowed}.")
        if not self._references and (media.url or media.file):
            raise _refused(f"{what} is a reference; send its content.")
        size = _size_in_base64(media.data) + len(media.text.encode("utf-8", "replace"))
        if self._max_bytes is not None and size > self._max_bytes:
            raise _refused(f"{what} has {size} bytes; {self._max_bytes} are allowed.")
        if self._detect is not None and media.text:
            language = self._detect(media.text)
            if language not in self._languages:
                allowed = ", ".join(sorted(self._languages))
                raise _refused(f"{what} is in the language {language!r}; allowed: {allowed}.")


def _attachments(request: Request) -> Iterator[Media]:
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Media):
                yield part
            elif isinstance(part, ToolResult):
                yield from (inner for inner in part.parts if isinstance(inner, Media))


def _size_in_base64(data: str) -> int:
    """How many bytes a text in base64 stands for."""
    return len(data) * 3 // 4 - data[-2:].count("=")


def _media_type(media: Media) -> str:
    if media.media_type:
        return media.media_type.lower()
    return "text/plain" if media.text else f"{media.kind}/*"


def _refused(reason: str) -> APIError:
    message = f"The request is blocked by its attachments. {reason}"
    return APIError(ErrorKind.FORBIDDEN, message, code="attachment_blocked")
