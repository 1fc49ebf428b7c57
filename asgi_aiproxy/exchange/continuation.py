"""Conversations that a provider keeps, continued by an opaque token. Theory of operation.

Some providers keep conversations: Coze always, OpenAI's Responses API on request. Where such a
provider answers a client of another API, the last chunk and the whole response have a member
`conversation`: a token. A request with this token goes on in that conversation, and only what is
new needs to be sent. `"conversation": "new"` begins a conversation that is kept.

A token is the provider, the id of its API key, and the provider's own id of the conversation,
encrypted and authenticated for the caller's account. So it cannot be read, changed, or used by
another caller, and nothing is stored. A request with a token is pinned to its provider and key.
Workers that share a key for this encryption accept each other's tokens.

The member is taken out of the request before anything else reads it. A value that is neither
"new" nor a token belongs to the API or the vendor that the client speaks, and stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.base import Encoder, OutboundDialect
from asgi_aiproxy.errors import APIError, ConfigurationError, invalid
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys.encryption import Sealer, SealError, SecretCipher
from asgi_aiproxy.messages import Event, MessageEnd, Response
from asgi_aiproxy.principal import Principal

MEMBER = "conversation"
NEW = "new"
CONVERSATION_PREFIX = "aiproxy-conversation-"
_MAX_TOKEN = 4096


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    provider: str
    key_id: str
    id: str


class _Object(msgspec.Struct):
    """The member as an object, as in the Responses API."""

    id: str = ""


_kept = msgspec.json.Decoder(_Kept).decode
_member: msgspec.json.Decoder[str | _Object | None] = msgspec.json.Decoder(str | _Object | None)


class Continuations:
    """Opens and makes the tokens of conversations.

    `cipher` is shared by all workers; without one, tokens are valid in this process only. If
    `enabled` is False, or the package `cryptography` is missing, no tokens are made, and requests
    with one are refused.
    """

    def __init__(self, cipher: SecretCipher | None = None, *, enabled: bool = True) -> None:
        self._cipher = cipher
        self._enabled = enabled

    def _usable_cipher(self) -> SecretCipher | None:
        if self._enabled and self._cipher is None:
            try:
                self._cipher = Sealer(Sealer.generate())
            except ConfigurationError:
                self._enabled = False
        return self._cipher if self._enabled else None

    async def open(self, call: GatewayRequest) -> GatewayRequest:
        """Take the member `conversation` out of a request. Raises APIError for an invalid token."""
        try:
            given = _member.decode(call.fields[MEMBER])
        except msgspec.DecodeError:
            return call
        token = given.id if isinstance(given, _Object) else given or ""
        if not call.operation.chat or not (token == NEW or token.startswith(CONVERSATION_PREFIX)):
            return call
        cipher = self._usable_cipher()
        if cipher is None:
            raise invalid(
                "Conversations are not continued here: send the whole conversation.",
                MEMBER,
                "unsupported_parameter",
            )
        fields = {name: value for name, value in call.fields.items() if name != MEMBER}
        changes = {"fields": fields, "body": _json.dumps(fields)}
        if token == NEW:
            return msgspec.structs.replace(call, conversation="", **changes)
        try:
            if len(token) > _MAX_TOKEN:
                raise SealError("The token is too long.")
            # (In a thread: with a passphrase the first use takes a tenth of a second.)
            text = await asyncio.to_thread(
                cipher.decrypt, token.removeprefix(CONVERSATION_PREFIX), _about(call.principal)
            )
            kept = _kept(text)
        except (SealError, msgspec.MsgspecError):
            raise _unknown_conversation() from None
        if (call.provider or kept.provider) != kept.provider or (
            call.key_id and kept.key_id and call.key_id != kept.key_id
        ):
            raise invalid(
                "The conversation is kept by another provider, or with another key, than the "
                "request names.",
                MEMBER,
                "invalid_conversation",
            )
        return msgspec.structs.replace(
            call,
            conversation=kept.id,
            provider=kept.provider,
            key_id=call.key_id or kept.key_id,
            **changes,
        )

    def writer(
        self, call: GatewayRequest, provider: str, key_id: str, dialect: OutboundDialect
    ) -> ResponseWriter:
        """What writes a response for the client, with a token if `provider` keeps a conversation.

        `key_id` is the key that the response came by.
        """
        if not dialect.keeps_conversations:
            return ResponseWriter(call)
        cipher = None if call.face.name == dialect.name else self._usable_cipher()
        if cipher is None:
            return ResponseWriter(call, lambda id: "")
        about = _about(call.principal)

        def seal(id: str) -> str:
            data = _json.dumps(_Kept(provider, key_id, id))
            return CONVERSATION_PREFIX + cipher.encrypt(data, about)

        return ResponseWriter(call, seal)


def as_continuations(given: SecretCipher | bool) -> Continuations:
    """The argument `conversations` of an app. Raises ConfigurationError if it is invalid."""
    if isinstance(given, bool):
        return Continuations(enabled=given)
    if not hasattr(given, "decrypt"):
        raise ConfigurationError(
            f"conversations must be True, False, or a Sealer, not {type(given).__name__}."
        )
    return Continuations(given)


class ResponseWriter:
    """Writes a response in the client's API.

    `seal` makes the token of a conversation from the provider's id.
    """

    def __init__(self, call: GatewayRequest, seal: Callable[[str], str] | None = None) -> None:
        self._call = call
        self._seal = seal

    def encoder(self) -> Encoder:
        """A new encoder for a stream."""
        encoder = self._call.face.encoder(self._call.request)
        return encoder if self._seal is None else _SealingEncoder(encoder, self._seal)

    def whole(self, response: Response) -> bytes:
        """The body of a whole response."""
        if self._seal is not None and response.conversation:
            token = self._seal(response.conversation)
            response = msgspec.structs.replace(response, conversation=token)
        return self._call.face.encode_response(response, self._call.request)


class _SealingEncoder:
    """Replaces the provider's id of the conversation by a token, in the last event."""

    def __init__(self, encoder: Encoder, seal: Callable[[str], str]) -> None:
        self._encoder = encoder
        self._seal = seal
        self.run = encoder.run
        self.fail = encoder.fail

    def feed(self, event: Event) -> bytes:
        if type(event) is MessageEnd and event.conversation:
            event = msgspec.structs.replace(event, conversation=self._seal(event.conversation))
        return self._encoder.feed(event)


def _about(principal: Principal) -> str:
    return f"conversation:{principal.tenant}"


def _unknown_conversation() -> APIError:
    return invalid(
        "This conversation is not known: it was given to another caller, or by a gateway with "
        "other sealing keys, or it was changed. Send the whole conversation without it.",
        MEMBER,
        "invalid_conversation",
    )
