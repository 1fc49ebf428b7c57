"""Embeddings in terms of no vendor, and the interface of an API for them.

An `EmbeddingsAPI` writes requests for providers and reads their responses. Those that clients use
as well are a `ClientEmbeddingsAPI`. A vendor with an API of its own gets a module with such a
class, and an instance of it as `embeddings=` of its `Provider`.

Vectors stay as the JSON text that the provider sent: they are only parsed if the client requested
them in base64.
"""

from __future__ import annotations

import base64
import binascii
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Usage

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
    - `task`: what they are for. `task_member` is the name of that member in the client's request.
    - `base64`: the client requested vectors in base64 instead of numbers.
    - `batch`: the client sent a list. `rest` are the members without a neutral meaning.
    """

    model: str
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    task: Task | None = None
    task_member: str = ""
    base64: bool = False
    batch: bool = True
    user: str = ""
    rest: Mapping[str, Any] = {}


class EmbeddingsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors, each a JSON array of numbers, in the order of the inputs."""

    model: str
    vectors: tuple[msgspec.Raw, ...]
    usage: Usage | None = None


class EmbeddingsAPI(ABC):
    """An API of providers for embeddings. Pure: no state, no I/O."""

    # The operation of `Provider.native_operations` that says that a provider has this API.
    operation: ClassVar[str]

    @abstractmethod
    def encode_request(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a request; raises APIError for what the API cannot express."""

    @abstractmethod
    def decode_response(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read a response; raises APIError if it is invalid."""


class ClientEmbeddingsAPI(EmbeddingsAPI):
    """An API for embeddings that clients of the gateway use, too."""

    @abstractmethod
    def decode_request(self, operation: Operation, body: bytes) -> EmbeddingsRequest:
        """Read a client's request; raises APIError of kind `invalid` naming the member."""

    @abstractmethod
    def encode_response(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Write the response to a client."""

    @abstractmethod
    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read model and usage of a response that passes through."""


def ignored_members(request: EmbeddingsRequest, *, task: bool, user: bool) -> tuple[str, ...]:
    """The members of a client's request that an API without `task` or `user` cannot carry."""
    found = list(request.rest)
    if request.task is not None and not task:
        found.append(request.task_member)
    if any(each.title for each in request.inputs) and not task:
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
