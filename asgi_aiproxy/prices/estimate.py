"""How many tokens a request may come to, before anybody has counted them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

# A token of prose is about four bytes, of other alphabets and of code about two and a half.
_BYTES = 2.5
# Base64 of pictures and documents: more tokens than vendors make of a photo of usual size.
_MEDIA_BYTES = 50
# A shorter string is no file, and is counted as text.
_FILE = 2048

# Of what a model writes, as much as a caller is sure to have had.
_PROSE = 4
# A member that holds text, of which the end may be missing.
_TEXT = re.compile(
    rb'"(?:content|text|delta|partial_json|arguments|thinking|reasoning|reasoning_content|refusal'
    rb'|response|transcript)"\s*:\s*"((?:[^"\\]+|\\.)+)',
    re.DOTALL,
)

_OUTPUT = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_TIMES = ("n", "best_of")
_ROOMS = {
    "generationConfig": ("maxOutputTokens", "candidateCount"),
    "generation_config": ("max_output_tokens", "candidate_count"),
    "options": ("num_predict", ""),
}
_number = msgspec.json.Decoder(int)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def input_tokens(body: bytes) -> int:
    """An upper estimate of the tokens of a request, from its bytes."""
    files = 0
    if len(body) >= _FILE:
        files = sum(len(text) for text in body.split(b'"') if len(text) >= _FILE and _base64(text))
    return int((len(body) - files) / _BYTES) + files // _MEDIA_BYTES + 1


def _base64(text: bytes) -> bool:
    return text.isascii() and b" " not in text and b"\\" not in text


def written_tokens(size: int, sample: bytes) -> int:
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


def output_tokens(fields: Mapping[str, msgspec.Raw], default: int) -> int:
    """The most tokens a request lets the model write; `default` where it does not say.

    `fields` are the members of its body, still encoded, of any dialect.
    """
    limit: int | None = None
    for name in _OUTPUT:
        if limit is None and name in fields:
            limit = _read(fields, name)
    times = 1
    for name in _TIMES:
        if name in fields:
            times = max(times, _read(fields, name) or 1)
    if not _ROOMS.keys().isdisjoint(fields):
        for room, (most, count) in _ROOMS.items():
            inner = _inside(fields, room)
            if limit is None:
                limit = _read(inner, most)
            times = max(times, _read(inner, count) or 1)
    return (default if limit is None or limit < 0 else limit) * times


def _read(fields: Mapping[str, msgspec.Raw], name: str) -> int | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _number.decode(raw)
    except msgspec.DecodeError:
        return None  # the provider says what is wrong with it


def _inside(fields: Mapping[str, msgspec.Raw], name: str) -> Mapping[str, msgspec.Raw]:
    raw = fields.get(name)
    if raw is None:
        return {}
    try:
        return _object.decode(raw)
    except msgspec.DecodeError:
        return {}
