"""The JSON texts in a whole binary event stream (`application/vnd.amazon.eventstream`).

The events of Bedrock's InvokeModelWithResponseStream hold the JSON of the model's own API, in
base64: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_PayloadPart.html
"""

from __future__ import annotations

import base64
import binascii

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._event_stream import MEDIA_TYPE, EventStreamFramer
from asgi_aiproxy.errors import APIError, ErrorKind

__all__ = ["MEDIA_TYPE", "json_texts"]


def json_texts(body: bytes) -> list[bytes]:
    """Return the JSON text of each event. Raises APIError if the stream is damaged or cut off."""
    framer = EventStreamFramer()
    texts = framer.feed(body)
    if framer.close():
        raise APIError(ErrorKind.UPSTREAM, "The provider's stream ended within an event.")
    return [_payload(text) or text for text in texts]


def _payload(text: bytes) -> bytes | None:
    """What an event holds in base64; None if it holds nothing in base64."""
    try:
        event = _json.loads(text)
        encoded = event["chunk"]["bytes"]
        return base64.b64decode(encoded, validate=True)
    except (_json.NotJSONError, KeyError, TypeError, binascii.Error):
        return None
