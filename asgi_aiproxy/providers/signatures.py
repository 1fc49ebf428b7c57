"""Keep signatures of other vendors out of native chat requests.

OpenAI's chat API has no place for signed reasoning, so responses of other vendors carry it in
members that OpenAI does not know (see `dialects.openai_chat.reasoning`): `reasoning_details` of a
message, and `extra_content` of a tool call. Clients send them back with every request, also after
they changed to a model of another vendor. Vendors whose API does not have these members are sent
none of them; gateways such as OpenRouter, which define them, get them as they are.
"""

from __future__ import annotations

import msgspec

from asgi_aiproxy.dialects.base import ProviderRequest

_MARKS = (b'"reasoning_details"', b'"extra_content"')
_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def drop_signatures(draft: ProviderRequest) -> ProviderRequest:
    """Remove signatures from the messages of a native chat request."""
    sent = draft.body.get("messages")
    if draft.path != "/chat/completions" or not isinstance(sent, msgspec.Raw):
        return draft  # translated requests have none
    encoded = bytes(sent)
    if _MARKS[0] not in encoded and _MARKS[1] not in encoded:
        return draft
    try:
        messages = _messages(encoded)
        for message in messages:
            message.pop("reasoning_details", None)
            calls = message.get("tool_calls")
            if calls is not None and _MARKS[1] in bytes(calls):
                message["tool_calls"] = _without_extra_content(calls)
    except msgspec.DecodeError:
        return draft  # the vendor reports the error
    changed = msgspec.Raw(msgspec.json.encode(messages))  # as the next transformation expects
    return msgspec.structs.replace(draft, body={**draft.body, "messages": changed})


def _without_extra_content(calls: msgspec.Raw) -> msgspec.Raw:
    kept = [{n: v for n, v in c.items() if n != "extra_content"} for c in _messages(calls)]
    return msgspec.Raw(msgspec.json.encode(kept))
