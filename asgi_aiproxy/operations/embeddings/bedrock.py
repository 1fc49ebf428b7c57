"""Embeddings on Amazon Bedrock, through InvokeModel: Amazon's Titan, and Cohere's Embed.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html

Titan embeds one text per request. Bedrock reports the tokens of Cohere's models in a header only,
so they are estimated.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.bedrock import invoke_path, no_such_operation
from asgi_aiproxy.operations.embeddings.base import (
    EmbeddingsAPI,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ignored_members,
    no_dimensions,
)
from asgi_aiproxy.operations.embeddings.cohere import decode_embed, embed_body


class _TitanAnswer(msgspec.Struct, rename="camel"):
    embedding: msgspec.Raw
    input_text_token_count: int = 0


_titan = msgspec.json.Decoder(_TitanAnswer).decode


class BedrockEmbeddings(EmbeddingsAPI):
    """The models for embeddings on Amazon Bedrock."""

    max_inputs = 1

    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write the body of one family of models."""
        model = request.model
        own: tuple[str, ...]
        if "titan-embed" in model:
            own = ("normalize",) if "v2" in model else ()
            body: dict[str, Any] = {"inputText": request.inputs[0].text}
            if request.dimensions is not None:
                if not own:
                    raise no_dimensions(request)
                body["dimensions"] = request.dimensions
            body |= {name: request.rest[name] for name in own if name in request.rest}
            ignored = ignored_members(request, task=False, own=own)
        elif "cohere.embed" in model:
            own = ("truncate", "max_tokens") if "v4" in model else ("truncate",)
            body = embed_body(request)
            body = {k: v for k, v in body.items() if k != "max_tokens" or k in own}
            ignored = ignored_members(request, task=True, own=own)
        else:
            raise no_such_operation(model, "embeddings")
        return ProviderRequest(invoke_path(model), body, ignored=ignored)

    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read a response."""
        if "cohere.embed" in request.model:
            return decode_embed(body, request)
        try:
            answer = _titan(body)
        except (msgspec.DecodeError, RecursionError):
            raise _parsing.unparsable_response_error(200, body) from None
        return EmbeddingsResponse(
            model=request.model,
            vectors=(answer.embedding,),
            usage=Usage(input=answer.input_text_token_count),
        )

    def limit_of(self, request: EmbeddingsRequest) -> int:
        """How many texts one request may have."""
        return 96 if "cohere.embed" in request.model else 1


BEDROCK_EMBEDDINGS: BedrockEmbeddings = BedrockEmbeddings()
