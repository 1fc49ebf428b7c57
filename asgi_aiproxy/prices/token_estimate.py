"""How many tokens a request may come to, before anybody has counted them."""

from __future__ import annotations

import re

import msgspec

from asgi_aiproxy.prices.file_estimate import LETTERS, NO_FILES, UNSEEN, FileSizes, find_files
from asgi_aiproxy.prices.output_limits import Fields, limited, output_tokens, read_value

# A token of prose is about four bytes, of other alphabets and of code about two and a half.
_USUAL_BYTES = 2.5
# What vendors put before the caller's words to tell a model of tools.
_TOOLS = 1_000
# Bytes of a form for a token: it is for sound and pictures.
_UPLOAD_BYTES = 50

# Of what a model writes, as much as a caller is sure to have had.
_PROSE = 4
# A member that holds text, of which the end may be missing.
_TEXT = re.compile(
    rb'"(?:content|text|delta|partial_json|arguments|thinking|reasoning|reasoning_content|refusal'
    rb'|response|transcript)"\s*:\s*"((?:[^"\\]+|\\.)+)',
    re.DOTALL,
)


class SentRequest(msgspec.Struct, frozen=True, gc=False):
    """What leaves for one target, by which its cost is estimated.

    `path` is where `provider` is asked, below its base URL. `body` is what it is sent, `fields` its
    members, encoded or not; of what is not read before there is only its `length` in bytes. What
    happens `later`, as in batches, tells no usage in its answer.
    """

    provider: str
    model: str
    path: str = ""
    body: bytes = b""
    fields: Fields = {}
    length: int = 0
    later: bool = False


class RequestSize(msgspec.Struct, frozen=True, gc=False):
    """The most tokens that a request to a target is likely to bring, and to get.

    `usual` is what most requests of that length bring; `limited` says that the request itself
    limits its answer.
    """

    provider: str
    model: str
    input: int
    output: int
    usual: int = 0
    limited: bool = False
    later: bool = False


def estimate_size(sent: SentRequest, default_output: int) -> RequestSize:
    """The size of a request.

    `default_output` is for requests that do not limit their answer. The input can only be too low
    by what is just referred to (a stored file, a former answer, a search: UNSEEN tokens each), by
    documents of very many empty pages, and by sound and video that are very much compressed.
    """
    provider, path, fields, body = sent.provider, sent.path, sent.fields, sent.body
    if body:
        files = find_files(body, fields)
        more = files.tokens + (_TOOLS if "tools" in fields else 0)
        read = text_tokens(body, files) + more
        usual = int((len(body) - files.size) / _USUAL_BYTES) + 1 + more
    else:
        read = usual = (sent.length or UNSEEN * _UPLOAD_BYTES) // _UPLOAD_BYTES + 1
    return RequestSize(
        provider,
        sent.model,
        read,
        output_tokens(provider, path, fields, default_output),
        usual=min(read, usual),
        limited=limited(provider, path, fields),
        later=sent.later or read_value(fields.get("background")) is True,
    )


def text_tokens(body: bytes, files: FileSizes = NO_FILES) -> int:
    """The most tokens of the text in a body that holds these files.

    Tokenizers make no more tokens of a text than it has bytes, and of letters half as many.
    """
    marks = len(body.translate(None, LETTERS)) - files.marks
    return max((len(body) - files.size + marks) // 2, 0) + 1


def estimate_output_tokens(size: int, sample: bytes) -> int:
    """About how many tokens an answer holds of which `size` bytes went by.

    `sample` is a part of them, as a provider of any dialect sent it: it tells how many of them are
    text. 0 if no text is in it.
    """
    first = _TEXT.search(sample)
    if first is None:
        return 0
    # Not what comes before the first text: a beginning as long comes but once.
    sample = sample[sample.rfind(b"\n", 0, first.start()) + 1 :]
    texts = _TEXT.findall(sample)
    length = sum(map(len, texts))
    # An event holds at least a token; seldom much less than what most vendors put into one.
    tokens = max(length / _PROSE, len(texts))
    return int(size / len(sample) * tokens) + 1
