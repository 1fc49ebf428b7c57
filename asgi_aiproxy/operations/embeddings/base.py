"""Embeddings in terms of no vendor, and the interface of an API for them.

An `EmbeddingsAPI` writes requests for providers and reads their responses. Those that clients use
as well are a `ClientEmbeddingsAPI`. A vendor with an API of its own gets a module with such a
class, and an instance of it among the `operations` of its `Provider`.

A request with more texts than the vendor takes at once is sent in several batches, some at the same
time, and their vectors are joined.

Vectors stay as the JSON text that the provider sent: they are only parsed if the client requested
them in base64.
"""

from __future__ import annotations

import base64
import binascii
import sys
from abc import abstractmethod
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import ClientOperation, OperationAPI

# A call is at most so many requests to a provider.
MAX_BATCHES = 100

# What embeddings are for. Vendors that distinguish fewer purposes have a word for the nearest.
Task = Literal[
    "query",
    "document",
    "similarity",
    "classification",
    "clustering",
    "question_answering",
    "fact_verification",
    "code_query",
]


class EmbeddingInput(msgspec.Struct, frozen=True):
    """A text, and the title of the document that it is from."""

    text: str
    title: str = ""


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the embeddings of `inputs`.

    - `dimensions`: the length of the vectors, if it is not the model's.
    - `task`: what they are for.
    - `task_member`, `input_member`, `dimensions_member`: what the client's API calls these.
    - `base64`: the client requested vectors in base64 instead of numbers.
    - `batch`: the client sent a list. `rest` are the members without a neutral meaning.
    """

    model: str
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    task: Task | None = None
    task_member: str = ""
    input_member: str = "input"
    dimensions_member: str = "dimensions"
    base64: bool = False
    batch: bool = True
    user: str = ""
    rest: Mapping[str, Any] = {}


class EmbeddingsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`vectors`, each a JSON array of numbers, in the order of the inputs, of a `model`."""

    model: str
    vectors: tuple[msgspec.Raw, ...]
    usage: Usage | None = None


class EmbeddingsAPI(OperationAPI[EmbeddingsRequest, EmbeddingsResponse]):
    """An API of providers for embeddings. Pure: no state, no I/O.

    `max_inputs` is the largest number of texts in one request; 0: no limit is known.
    """

    kind: ClassVar[str] = "embeddings"
    max_inputs: int = 0

    @abstractmethod
    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a request for texts that fit into one; raises APIError for what the API cannot
        express.
        """

    @abstractmethod
    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read the response to such a request; raises APIError if it is invalid."""

    def encode_request(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write the request for the first batch."""
        count, most = len(request.inputs), self.limit_of(request) * MAX_BATCHES
        if 0 < most < count:
            message = (
                f"'{request.input_member}' has {count} texts; this model takes at most {most}."
            )
            raise invalid(message, request.input_member, "invalid_value")
        return self.encode_batch(self._batch(request, 0))

    def parts(self, request: EmbeddingsRequest) -> Sequence[ProviderRequest]:
        """The requests for the batches after the first one."""
        most, count = self.limit_of(request), len(request.inputs)
        starts = range(most, count, most) if most else ()
        return [self.encode_batch(self._batch(request, start // most)) for start in starts]

    def part_usage(self, body: bytes, request: EmbeddingsRequest) -> Usage | None:
        """The tokens of one batch."""
        return self.decode_batch(body, request).usage

    def decode_response(
        self, bodies: Sequence[bytes], request: EmbeddingsRequest
    ) -> EmbeddingsResponse:
        """Read the responses to all batches."""
        found = []
        for number, body in enumerate(bodies):
            batch = self._batch(request, number)
            response = self.decode_batch(body, batch)
            if len(response.vectors) != len(batch.inputs):
                raise APIError(
                    ErrorKind.UPSTREAM,
                    f"The provider sent {len(response.vectors)} embeddings for "
                    f"{len(batch.inputs)} inputs.",
                )
            found.append(response)
        if len(found) == 1:
            return found[0]
        vectors = tuple(vector for each in found for vector in each.vectors)
        counted = [each.usage for each in found if each.usage is not None]
        usage = Usage(input=sum(each.input for each in counted)) if counted else None
        return EmbeddingsResponse(model=found[0].model, vectors=vectors, usage=usage)

    def limit_of(self, request: EmbeddingsRequest) -> int:
        """How many texts one request for this model may have; 0: no limit is known."""
        return self.max_inputs

    def _batch(self, request: EmbeddingsRequest, number: int) -> EmbeddingsRequest:
        most = self.limit_of(request)
        if not most or len(request.inputs) <= most:
            return request
        inputs = request.inputs[number * most : (number + 1) * most]
        return msgspec.structs.replace(request, inputs=inputs)


class ClientEmbeddingsAPI(EmbeddingsAPI, ClientOperation[EmbeddingsRequest, EmbeddingsResponse]):
    """An API for embeddings that clients of the gateway use, too."""


def ignored_members(
    request: EmbeddingsRequest,
    *,
    task: bool,
    titles: bool = False,
    user: bool = False,
    own: Collection[str] = (),
) -> tuple[str, ...]:
    """The members of a client's request that an API without these members cannot carry.

    `own` are the members of `rest` that it can carry.
    """
    found = [name for name in request.rest if name not in own]
    if request.task is not None and not task:
        found.append(request.task_member)
    if any(each.title for each in request.inputs) and not titles:
        found.append("title")
    if request.user and not user:
        found.append("user")
    return tuple(found)


def require_dimensions(value: Any, where: str) -> int | None:
    """The length of vectors. Raises APIError if it is not an integer above 0."""
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise invalid(f"'{where}' must be an integer of at least 1.", where, "invalid_value")
    return value


def to_base64(vector: msgspec.Raw) -> str:
    """A vector as OpenAI's base64: numbers of 32 bits, little-endian. Raises ValueError."""
    numbers = array("f", _numbers(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def from_base64(text: str) -> msgspec.Raw:
    """The vector in OpenAI's base64. Raises ValueError."""
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(f"invalid base64: {error}") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return msgspec.Raw(_json.dumps(numbers.tolist()))


_numbers = msgspec.json.Decoder(list[float]).decode


def no_dimensions(request: EmbeddingsRequest) -> APIError:
    """The error for a model whose vectors have one length."""
    name = request.dimensions_member
    return invalid(
        f"'{name}': the vectors of the model {request.model!r} have one length. Leave it out.",
        name,
        "unsupported_parameter",
    )
