"""Files in a request: where pictures, sound and documents can stand, and how many tokens they take.

Vendors do not count the base64 of a file, but what they see in it. Only where their API references
have a place for a file is a string one; anything else is text, however it looks. A file that is
text, or of a type that is not known, counts as text, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from asgi_aiproxy.prices.output_limits import Fields, read_value

# The most that vendors count for a picture, whatever its size (Anthropic: 4,784).
PICTURE = 5_000
# What a request only refers to (a stored file, a former answer, a search of the web) is not seen:
# each is taken for so many tokens.
UNSEEN = 20_000
# What a tokenizer makes half as many tokens of as of anything else.
LETTERS = b" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Bytes of base64 for a token of sound, video and documents.
_PER_TOKEN = 20

# Where messages and their parts are, in any vendor's words.
_ROOTS = (
    "messages",
    "input",
    "contents",
    "system",
    "systemInstruction",
    "system_instruction",
    "images",
)
_INNER = ("content", "parts", "output", "functionResponse", "function_response")
_MARKS = tuple(
    b'"%b"' % name
    for name in (
        *(b"image_url", b"input_audio", b"video_url", b"audio_url", b"file", b"file_data"),
        *(b"file_id", b"file_url", b"source", b"inlineData", b"inline_data", b"fileData"),
        *(b"images", b"image"),
    )
)
_REFERENCES = (
    *("previous_response_id", "conversation", "prompt_id", "cachedContent", "cached_content"),
    *("web_search_options", "container", "input_file_id", "mcp_servers"),
)


class FileSizes(msgspec.Struct, frozen=True, gc=False):
    """`size` bytes of a body are files, `marks` of these no letters; `tokens` are of all files."""

    size: int = 0
    marks: int = 0
    tokens: int = 0


NO_FILES = FileSizes()


def find_files(body: bytes, fields: Fields) -> FileSizes:
    """The files that a request brings or refers to."""
    size = marks = 0
    tokens = sum(UNSEEN for name in _REFERENCES if read_value(fields.get(name)))
    tokens += UNSEEN * _hosted(fields)
    if any(mark in body for mark in _MARKS):
        for name in _ROOTS:
            if name not in fields:
                continue
            found = read_value(fields[name])
            for each in _found({"images": found} if name == "images" else found):
                size, marks = size + each.size, marks + each.marks
                tokens += each.tokens
    return FileSizes(size, marks, tokens)


def _hosted(fields: Fields) -> int:
    """How many tools the vendor runs: what they find is part of the input."""
    tools = read_value(fields.get("tools"))
    if not isinstance(tools, list):
        return 0
    ours = ("function", "custom", "functionDeclarations", "function_declarations", "input_schema")
    hosted = 0
    for tool in tools:
        if isinstance(tool, Mapping):
            plain = tool.get("type") in ("function", "custom") or any(name in tool for name in ours)
            hosted += not plain
    return hosted


def _found(part: Any) -> Iterator[FileSizes]:
    """The files in a message, a part, or a list of them."""
    if isinstance(part, list):
        for each in part:
            yield from _found(each)
    elif isinstance(part, Mapping):
        file = _file(part)
        if file is not None:
            yield file
        images = part.get("images")  # Ollama's
        for image in images if isinstance(images, list) else ():
            yield _data(image, "image/")
        for name in _INNER:
            if name in part:
                yield from _found(part[name])
        source = part.get("source")
        if isinstance(source, Mapping) and source.get("type") == "content":
            yield from _found(source.get("content"))


def _file(part: Mapping[str, Any]) -> FileSizes | None:
    """The file that a part is; None if it is none."""
    for name, kind in (("image_url", "image/"), ("video_url", "video/"), ("audio_url", "audio/")):
        if name in part:
            return _addressed(part[name], kind)
    for name in ("inlineData", "inline_data", "input_audio"):
        inline = part.get(name)
        if isinstance(inline, Mapping):
            kind = inline.get("mimeType") or inline.get("mime_type") or ""
            return _data(inline.get("data"), "audio/" if name == "input_audio" else str(kind))
    for name in ("image", "video", "audio", "document"):  # of Converse
        inner = part.get(name)
        if isinstance(inner, Mapping) and isinstance(inner.get("source"), Mapping):
            kind = "application/pdf" if inner.get("format") == "pdf" else name + "/"
            return _data(inner["source"].get("bytes"), kind)
    for name in ("file", "source"):
        inner = part.get(name)
        if isinstance(inner, Mapping):
            return _source(inner)
    if "file_data" in part or "file_url" in part or "file_id" in part or "fileData" in part:
        return _source(part)
    return None


def _source(source: Mapping[str, Any]) -> FileSizes | None:
    if source.get("type") in ("text", "content"):
        return None
    kind = str(source.get("media_type") or "")
    if isinstance(source.get("data"), str):  # Anthropic's
        return _data(source["data"], kind)
    if isinstance(source.get("file_data"), str):
        return _addressed(source["file_data"], "")
    return FileSizes(tokens=UNSEEN)


def _addressed(address: Any, kind: str) -> FileSizes:
    """A file by its URL, which may hold all of it."""
    url = address.get("url") if isinstance(address, Mapping) else address
    if not isinstance(url, str) or not url.startswith("data:"):
        return FileSizes(tokens=PICTURE if kind == "image/" else UNSEEN)
    return _data(url, url[5:100].partition(";")[0])


def _data(data: Any, kind: str) -> FileSizes:
    """A file in base64."""
    if not isinstance(data, str):
        return NO_FILES
    if kind.startswith("image/"):
        tokens = PICTURE
    elif kind.startswith(("audio/", "video/")) or kind == "application/pdf":
        tokens = len(data) // _PER_TOKEN + 1
    else:
        return NO_FILES  # text
    plain = data.encode("utf-8", "surrogatepass")
    return FileSizes(len(plain), len(plain.translate(None, LETTERS)), tokens)
