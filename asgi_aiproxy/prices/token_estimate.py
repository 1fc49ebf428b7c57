"""Estimates the tokens of a request before it is sent, and of a response without usage."""

from __future__ import annotations

import re

import msgspec

from asgi_aiproxy.dialects.output_limits import Fields, limited, output_tokens, read_value
from asgi_aiproxy.dialects.surcharges import FULL_PRICE, SURCHARGED, price_factor
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.file_estimate import (
    LETTERS,
    NO_FILES,
    REFERENCE_TOKENS,
    FileSizes,
    find_files,
)

_NO_UNITS = Usage()
# A token has about four bytes in English text, about two and a half in other scripts and in code.
_USUAL_BYTES = 2.5
# Tokens that vendors add to the prompt to describe the use of tools.
_TOOL_PROMPT_TOKENS = 1_000
# Bytes per token of a form upload, which contains audio or images.
_UPLOAD_BYTES = 50

# Bytes per output token, for an estimate that is rather too low than too high.
_OUTPUT_BYTES = 4
# A member with text, whose end may be missing.
_TEXT = re.compile(
    rb'"(?:content|text|delta|partial_json|arguments|thinking|reasoning|reasoning_content|refusal'
    rb'|response|transcript)"\s*:\s*"((?:[^"\\]+|\\.)+)',
    re.DOTALL,
)


class SentRequest(msgspec.Struct, frozen=True, gc=False):
    """A request to one target, for the estimate of its cost.

    `path` is the request path below the base URL of `provider`. `body` is the body that is sent and
    `fields` are its members, which may be encoded. Of a body that is streamed only the `length` in
    bytes is known. `history` are the tokens of an earlier response that the body refers to, if they
    are known. `later`: the request is processed later, as in a batch, so its response has no
    usage. `units` is what it costs beside tokens: images, characters, seconds, search units.
    """

    provider: str
    model: str
    path: str = ""
    body: bytes = b""
    fields: Fields = {}
    length: int = 0
    history: int = 0
    later: bool = False
    units: Usage = _NO_UNITS


class RequestSize(msgspec.Struct, frozen=True, gc=False):
    """Upper estimates of the input and output tokens of a request to a target.

    `usual` are the input tokens of most requests of this length. `limited`: the request itself
    limits its output. `price_factor`: the multiple of the list price that it costs, in millionths.
    `units`: what it costs beside tokens.
    """

    provider: str
    model: str
    input: int
    output: int
    usual: int = 0
    limited: bool = False
    later: bool = False
    price_factor: int = FULL_PRICE
    units: Usage = _NO_UNITS

    def price_ratio(self, ratio: int) -> int:
        """The price ratio of a caller, in millionths, for this request."""
        return ratio * self.price_factor // FULL_PRICE


def estimate_size(sent: SentRequest, default_output: int) -> RequestSize:
    """Estimate the size of a request.

    `default_output`: output tokens of requests that do not limit their output. The input estimate
    can only be too low because of content that the request refers to (a stored file, an earlier
    response, a search: REFERENCE_TOKENS each), documents with many empty pages, and strongly
    compressed audio and video.
    """
    provider, path, fields, body = sent.provider, sent.path, sent.fields, sent.body
    if body:
        files = find_files(body, fields)
        more = files.tokens + max(sent.history - REFERENCE_TOKENS, 0)
        more += _TOOL_PROMPT_TOKENS if "tools" in fields else 0
        read = text_tokens(body, files) + more
        usual = int((len(body) - files.size) / _USUAL_BYTES) + 1 + more
    else:
        read = usual = (sent.length or REFERENCE_TOKENS * _UPLOAD_BYTES) // _UPLOAD_BYTES + 1
    return RequestSize(
        provider,
        sent.model,
        read,
        output_tokens(provider, path, fields, default_output),
        usual=min(read, usual),
        limited=limited(provider, path, fields),
        later=sent.later or read_value(fields.get("background")) is True,
        price_factor=price_factor(
            sent.model, {name: read_value(fields[name]) for name in SURCHARGED & fields.keys()}
        ),
        units=sent.units,
    )


def text_tokens(body: bytes, files: FileSizes = NO_FILES) -> int:
    """The maximum number of text tokens in a body that contains `files`.

    Tokenizers make at most one token per byte, and of letters at most one per two bytes.
    """
    marks = len(body.translate(None, LETTERS)) - files.marks
    return max((len(body) - files.size + marks) // 2, 0) + 1


def estimate_output_tokens(size: int, sample: bytes) -> int:
    """Estimate the output tokens of a response of `size` bytes.

    `sample` is a part of these bytes, in any dialect: its share of text is used for all. 0 if it
    contains no text.
    """
    first = _TEXT.search(sample)
    if first is None:
        return 0
    # Without the bytes before the first text, which occur only once.
    sample = sample[sample.rfind(b"\n", 0, first.start()) + 1 :]
    texts = _TEXT.findall(sample)
    length = sum(map(len, texts))
    # An event has at least one token.
    tokens = max(length / _OUTPUT_BYTES, len(texts))
    return int(size / len(sample) * tokens) + 1
