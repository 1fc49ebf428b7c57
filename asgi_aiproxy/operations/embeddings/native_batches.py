"""Requests for embeddings that pass through, with more inputs than the vendor takes at once.

Such a request is sent in several batches, and the client gets one response: the vectors in the
order of the inputs, and the sum of the usage. Inputs and vectors stay as they were sent, so tokens
and vectors in base64 pass as well. A request that fits is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.operations.embeddings.base import MAX_BATCHES

_Object = dict[str, msgspec.Raw]

_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(_Object).decode
_objects = msgspec.json.Decoder(list[_Object]).decode


class NativeFormat(msgspec.Struct, frozen=True):
    """Where an API has its inputs, its vectors and its usage; at most `limit` inputs at once.

    `numbered`: vectors have an `index`, which counts the inputs of their request.
    """

    inputs: str
    vectors: str
    usage: str
    limit: int
    numbered: bool = False


FORMATS: Mapping[str, NativeFormat] = {
    # https://platform.openai.com/docs/api-reference/embeddings/create
    "embeddings": NativeFormat("input", "data", "usage", 2048, numbered=True),
    # https://ai.google.dev/api/embeddings
    "batchEmbedContents": NativeFormat("requests", "embeddings", "usageMetadata", 100),
}


class NativeBatches:
    """A request with the members `body` in batches of `form.limit` inputs."""

    def __init__(self, form: NativeFormat, body: Mapping[str, Any], inputs: _Inputs) -> None:
        self._form = form
        self._body = body
        self._inputs = inputs

    @classmethod
    def of(cls, operation: str, body: Mapping[str, Any]) -> NativeBatches | None:
        """The batches of a request; None if one is enough. Raises APIError if it needs too many."""
        form = FORMATS.get(operation)
        given = body.get(form.inputs) if form is not None else None
        if form is None or not isinstance(given, msgspec.Raw):
            return None
        if memoryview(given).nbytes <= 2 * form.limit:  # (each has a comma)
            return None
        try:
            inputs = _list(given)
        except (msgspec.DecodeError, RecursionError):
            return None  # the vendor's own error is the best one
        if len(inputs) <= form.limit or memoryview(inputs[0])[0] not in b'"[{':
            return None  # (numbers are the tokens of one input)
        most = form.limit * MAX_BATCHES
        if len(inputs) > most:
            message = f"'{form.inputs}' has {len(inputs)} inputs; a call takes at most {most}."
            raise invalid(message, form.inputs, "invalid_value")
        return cls(form, body, inputs)

    def bodies(self) -> list[dict[str, Any]]:
        """The members of the requests."""
        count = -(-len(self._inputs) // self._form.limit)
        return [{**self._body, self._form.inputs: self._batch(number)} for number in range(count)]

    def join(self, bodies: Sequence[bytes]) -> bytes:
        """The response of all, made of those of the batches. Raises APIError."""
        form = self._form
        vectors: list[Any] = []
        counts: dict[str, int] = {}
        whole: _Object = {}
        for number, body in enumerate(bodies):
            try:
                found = _object(body)
                part = self._vectors(found, len(vectors))
                usage = _json.loads(bytes(found.get(form.usage, b"null")))
            except (msgspec.DecodeError, ValueError, RecursionError):
                raise _parsing.unparsable_response_error(200, body) from None
            if len(part) != len(self._batch(number)):
                raise APIError(
                    ErrorKind.UPSTREAM,
                    f"The provider sent {len(part)} embeddings for {len(self._batch(number))} "
                    "inputs.",
                )
            whole = whole or found
            vectors += part
            for name, count in (usage if isinstance(usage, dict) else {}).items():
                if isinstance(count, int):
                    counts[name] = counts.get(name, 0) + count
        joined: dict[str, Any] = {**whole, form.vectors: vectors}
        if counts:
            joined[form.usage] = counts
        return _json.dumps(joined)

    def _vectors(self, found: _Object, before: int) -> Sequence[Any]:
        given = found.get(self._form.vectors, msgspec.Raw(b"[]"))
        if not self._form.numbered:
            return _list(given)
        items = _objects(given)
        if all("index" in item for item in items):
            items.sort(key=lambda item: int(bytes(item["index"])))
        return [{**item, "index": before + at} for at, item in enumerate(items)]

    def _batch(self, number: int) -> _Inputs:
        limit = self._form.limit
        return self._inputs[number * limit : (number + 1) * limit]


_Inputs = list[msgspec.Raw]
