"""Amazon Bedrock's Converse and ConverseStream. The gateway is only ever their client.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html; names and
limits as in the service model `bedrock-runtime` 2023-09-30 of the official SDK (botocore 1.44).

- `capabilities`: what a family of models takes beside the common members;
- `request_encoder`, `content`: neutral requests to Converse;
- `streams`: streamed and whole responses to neutral events;
- `errors`: error responses and exceptions within a stream.

A response names neither its model nor itself. Its signatures of reasoning are those of Claude
models, which Anthropic's own API accepts too, so they are kept as Anthropic's.
"""

from __future__ import annotations

import re
from typing import ClassVar

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._event_stream import EventStreamFramer
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest, ToolNameRule
from asgi_aiproxy.dialects.bedrock import errors, request_encoder, streams
from asgi_aiproxy.dialects.bedrock.content import NAME
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer
from asgi_aiproxy.messages import Request, Response, fold


class Bedrock(OutboundDialect):
    """The dialect of Bedrock's Converse API."""

    name: ClassVar[str] = NAME
    tool_names = ToolNameRule(re.compile("[a-zA-Z0-9_-]{1,64}"), 64)

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write the body of POST /model/{model}/converse or /converse-stream."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole response."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        decoder = self.decoder()
        return fold([*decoder.whole(answer), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of events."""
        return streams.Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /foundation-models, which is served at the control plane's host."""
        return ProviderRequest("/foundation-models", {}, query="byOutputModality=TEXT")

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models."""
        return _parsing.names(body, "modelSummaries", "modelId")

    def framer(self, media_type: str) -> Framer:
        """A binary event stream."""
        return EventStreamFramer(bare=streams.DELTA)


BEDROCK_CONVERSE: Bedrock = Bedrock()
