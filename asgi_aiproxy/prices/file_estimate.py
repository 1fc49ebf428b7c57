"""Finds the images, audio and documents in a request and estimates their tokens.

Vendors do not count the base64 text of a file, but its content. A string is only treated as a file
at the places that the vendors' API references define for files; anything else is text. Text files
and files of unknown types also count as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from asgi_aiproxy.dialects.output_limits import Fields, read_value

# Tokens: the maximum that vendors count for an image of any size (Anthropic: 4,784).
IMAGE_TOKENS = 5_000
# Tokens assumed for content that a request only refers to (a stored file, an earlier response, a
# web search).
REFERENCE_TOKENS = 20_000
# Characters of which a tokenizer makes at most one token for two bytes.
LETTERS = b" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Bytes of base64 per token of audio, video and documents.
_BYTES_PER_TOKEN = 20

# Members with messages and their parts, in any vendor's format.
_MESSAGE_MEMBERS = (
    "messages",
    "input",
    "contents",
    "system",
    "systemInstruction",
    "system_instruction",
    "images",
)
_PART_MEMBERS = ("content", "parts", "output", "functionResponse", "function_response")
_FILE_MARKS = tuple(
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
    """Files in a body.

    `size`: their bytes in the body; `marks`: how many of these are not letters or spaces; `tokens`:
    the estimated tokens of all files.
    """

    size: int = 0
    marks: int = 0
    tokens: int = 0


NO_FILES = FileSizes()


def find_files(body: bytes, fields: Fields) -> FileSizes:
    """The files that a request contains or refers to."""
    size = marks = 0
    tokens = sum(REFERENCE_TOKENS for name in _REFERENCES if read_value(fields.get(name)))
    tokens += REFERENCE_TOKENS * _count_hosted_tools(fields)
    if any(mark in body for mark in _FILE_MARKS):
        for name in _MESSAGE_MEMBERS:
            if name not in fields:
                continue
            found = read_value(fields[name])
            for file in _files({"images": found} if name == "images" else found):
                size, marks = size + file.size, marks + file.marks
                tokens += file.tokens
    return FileSizes(size, marks, tokens)


def _count_hosted_tools(fields: Fields) -> int:
    """The number of tools that the vendor runs; their results are part of the input."""
    tools = read_value(fields.get("tools"))
    if not isinstance(tools, list):
        return 0
    client_tools = (
        "function",
        "custom",
        "functionDeclarations",
        "function_declarations",
        "input_schema",
    )
    hosted = 0
    for tool in tools:
        if isinstance(tool, Mapping):
            is_client_tool = tool.get("type") in ("function", "custom") or any(
                name in tool for name in client_tools
            )
            hosted += not is_client_tool
    return hosted


def _files(part: Any) -> Iterator[FileSizes]:
    """The files in a message, a part, or a list of them."""
    if isinstance(part, list):
        for item in part:
            yield from _files(item)
    elif isinstance(part, Mapping):
        file = _file(part)
        if file is not None:
            yield file
        images = part.get("images")  # Ollama's
        for image in images if isinstance(images, list) else ():
            yield _base64_file(image, "image/")
        for name in _PART_MEMBERS:
            if name in part:
                yield from _files(part[name])
        source = part.get("source")
        if isinstance(source, Mapping) and source.get("type") == "content":
            yield from _files(source.get("content"))


def _file(part: Mapping[str, Any]) -> FileSizes | None:
    """The file of a part; None if the part is not a file."""
    for name, kind in (("image_url", "image/"), ("video_url", "video/"), ("audio_url", "audio/")):
        if name in part:
            return _file_at_url(part[name], kind)
    for name in ("inlineData", "inline_data", "input_audio"):
        inline = part.get(name)
        if isinstance(inline, Mapping):
            kind = inline.get("mimeType") or inline.get("mime_type") or ""
            return _base64_file(
                inline.get("data"), "audio/" if name == "input_audio" else str(kind)
            )
    for name in ("image", "video", "audio", "document"):  # Bedrock Converse
        inner = part.get(name)
        if isinstance(inner, Mapping) and isinstance(inner.get("source"), Mapping):
            kind = "application/pdf" if inner.get("format") == "pdf" else name + "/"
            return _base64_file(inner["source"].get("bytes"), kind)
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
        return _base64_file(source["data"], kind)
    if isinstance(source.get("file_data"), str):
        return _file_at_url(source["file_data"], "")
    return FileSizes(tokens=REFERENCE_TOKENS)


def _file_at_url(address: Any, kind: str) -> FileSizes:
    """A file by its URL; a `data:` URL contains the file."""
    url = address.get("url") if isinstance(address, Mapping) else address
    if not isinstance(url, str) or not url.startswith("data:"):
        return FileSizes(tokens=IMAGE_TOKENS if kind == "image/" else REFERENCE_TOKENS)
    return _base64_file(url, url[5:100].partition(";")[0])


def _base64_file(data: Any, kind: str) -> FileSizes:
    """A base64-encoded file."""
    if not isinstance(data, str):
        return NO_FILES
    if kind.startswith("image/"):
        tokens = IMAGE_TOKENS
    elif kind.startswith(("audio/", "video/")) or kind == "application/pdf":
        tokens = len(data) // _BYTES_PER_TOKEN + 1
    else:
        return NO_FILES  # text
    plain = data.encode("utf-8", "surrogatepass")
    return FileSizes(len(plain), len(plain.translate(None, LETTERS)), tokens)
