"""Conversations that a provider keeps, continued by an opaque token. Theory of operation.

Some providers keep conversations: Coze always, OpenAI's Responses API on request. Where such a
provider answers a client of another API, the last chunk and the whole response have a member
`conversation`: a token. A request with this token continues that conversation, and only what is
new needs to be sent. `"conversation": "new"` begins a conversation that is kept.

A token is the provider, the id of its API key, and the provider's own id of the conversation,
encrypted and authenticated for the caller's account. So it cannot be read, changed, or used by
another caller, and nothing is stored. A request with a token is pinned to its provider and key.
Workers that share a key for this encryption accept each other's tokens.

The member is taken out of the request before anything else reads it. A value that is neither
"new" nor a token belongs to the API or the vendor that the client speaks, and stays.

A tool call may belong to such a conversation, too: Coze waits for its result within one chat. What
identifies that chat is in the `extra` of the call, under the name of the dialect. The client gets
an id that is a token of the same kind, so that a result finds its chat through any client API, is
sent to the same provider and key, and cannot reach the chat of another caller. Only the results
that a request ends with are looked at; one whose id was not made for the caller is refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.base import Encoder, OutboundDialect
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys.encryption import Sealer, SealError, SecretCipher
from asgi_aiproxy.messages import (
    Block,
    BlockStart,
    Event,
    MessageEnd,
    Response,
    ToolCall,
    ToolResult,
    new_messages,
)
from asgi_aiproxy.principal import Principal

MEMBER = "conversation"
NEW = "new"
CONVERSATION_PREFIX = "aiproxy-conversation-"
CALL_PREFIX = "aiproxy-call-"  # (Anthropic's ids have letters, digits, "_" and "-" only)
CALL_MARK = CALL_PREFIX.encode()
_MAX_TOKEN = 4096


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    provider: str
    key_id: str
    id: str


class _KeptCall(msgspec.Struct, frozen=True, array_like=True):
    provider: str
    key_id: str
    dialect: str
    id: str
    place: Mapping[str, Any]  # what identifies where the provider waits for the result


class _Object(msgspec.Struct):
    """The member as an object, as in the Responses API."""

    id: str = ""


_kept = msgspec.json.Decoder(_Kept).decode
_kept_call = msgspec.json.Decoder(_KeptCall).decode
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
        """Find what the conversation of a request, and the results of its tool calls, refer to.

        Raises APIError for an invalid token.
        """
        if not call.operation.chat:
            return call
        if MEMBER in call.fields:
            call = await self._open_conversation(call)
        if CALL_MARK in call.body:
            # (In a thread: with a passphrase the first use takes a tenth of a second.)
            call = await asyncio.to_thread(self._open_calls, call)
        return call

    async def _open_conversation(self, call: GatewayRequest) -> GatewayRequest:
        """Take the member `conversation` out of a request."""
        try:
            given = _member.decode(call.fields[MEMBER])
        except msgspec.DecodeError:
            return call
        token = given.id if isinstance(given, _Object) else given or ""
        if not (token == NEW or token.startswith(CONVERSATION_PREFIX)):
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
            text = await asyncio.to_thread(
                cipher.decrypt, token.removeprefix(CONVERSATION_PREFIX), _about(call.principal)
            )
            kept = _kept(text)
        except (SealError, msgspec.MsgspecError):
            raise _unknown_conversation() from None
        call = _pinned(call, kept.provider, kept.key_id)
        return msgspec.structs.replace(call, conversation=kept.id, **changes)

    def _open_calls(self, call: GatewayRequest) -> GatewayRequest:
        """Find the calls that the results at the end of a request belong to."""
        cipher = self._usable_cipher()
        results = {
            part.id
            for message in new_messages(call.request.messages)
            for part in message.parts
            if isinstance(part, ToolResult) and part.id.startswith(CALL_PREFIX)
        }
        opened: dict[str, ToolResult] = {}
        for id in results:
            if cipher is None:
                raise _unknown_call()
            try:
                kept = _kept_call(_open_id(cipher, id, call.principal))
            except (SealError, ValueError):
                raise _unknown_call() from None
            call = _pinned(call, kept.provider, kept.key_id)
            opened[id] = ToolResult(kept.id, extra={kept.dialect: kept.place})
        return msgspec.structs.replace(call, results=opened)

    def writer(
        self, call: GatewayRequest, provider: str, key_id: str, dialect: OutboundDialect
    ) -> ResponseWriter:
        """What writes a response for the client, with a token if `provider` keeps a conversation.

        `key_id` is the key that the response came by.
        """
        if not dialect.keeps_conversations:
            return ResponseWriter(call)
        cipher = None if call.face.name == dialect.name else self._usable_cipher()
        return ResponseWriter(call, _Tokens(cipher, call.principal, provider, key_id, dialect.name))


def as_continuations(given: SecretCipher | bool) -> Continuations:
    """The argument `conversations` of an app. Raises ConfigurationError if it is invalid."""
    if isinstance(given, bool):
        return Continuations(enabled=given)
    if not hasattr(given, "decrypt"):
        raise ConfigurationError(
            f"conversations must be True, False, or a Sealer, not {type(given).__name__}."
        )
    return Continuations(given)


class _Tokens:
    """Makes the tokens of a response; without a cipher, none."""

    def __init__(
        self,
        cipher: SecretCipher | None,
        principal: Principal,
        provider: str,
        key_id: str,
        dialect: str,
    ) -> None:
        self._cipher = cipher
        self._principal = principal
        self._provider = provider
        self._key_id = key_id
        self._dialect = dialect

    def conversation(self, id: str) -> str:
        """The token of a conversation."""
        if self._cipher is None:
            return ""
        data = _json.dumps(_Kept(self._provider, self._key_id, id))
        return CONVERSATION_PREFIX + self._cipher.encrypt(data, _about(self._principal))

    def block(self, block: Block) -> Block:
        """The block; a tool call whose result the provider waits for gets an id that is a token."""
        if type(block) is not ToolCall or self._cipher is None:
            return block
        place = block.extra.get(self._dialect)
        if not place:
            return block
        kept = _KeptCall(self._provider, self._key_id, self._dialect, block.id, place)
        sealed = self._cipher.encrypt(_json.dumps(kept), _about_call(self._principal))
        id = base64.urlsafe_b64encode(sealed.encode()).decode().rstrip("=")
        return msgspec.structs.replace(block, id=CALL_PREFIX + id)


def _open_id(cipher: SecretCipher, id: str, principal: Principal) -> bytes:
    """What an id of a tool call was made of. Raises SealError or ValueError."""
    if len(id) > _MAX_TOKEN:
        raise SealError("The token is too long.")
    text = id.removeprefix(CALL_PREFIX)
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise SealError("The token is damaged.") from error
    return cipher.decrypt(sealed, _about_call(principal))


class ResponseWriter:
    """Writes a response in the client's API; `tokens` makes its tokens, if it may have any."""

    def __init__(self, call: GatewayRequest, tokens: _Tokens | None = None) -> None:
        self._call = call
        self._tokens = tokens

    def encoder(self) -> Encoder:
        """A new encoder for a stream."""
        encoder = self._call.face.encoder(self._call.request)
        return encoder if self._tokens is None else _SealingEncoder(encoder, self._tokens)

    def whole(self, response: Response) -> bytes:
        """The body of a whole response."""
        tokens = self._tokens
        if tokens is not None:
            kept = response.conversation
            response = msgspec.structs.replace(
                response,
                blocks=tuple(tokens.block(block) for block in response.blocks),
                conversation=tokens.conversation(kept) if kept else "",
            )
        return self._call.face.encode_response(response, self._call.request)


class _SealingEncoder:
    """Replaces the provider's ids of a conversation and its tool calls by tokens."""

    def __init__(self, encoder: Encoder, tokens: _Tokens) -> None:
        self._encoder = encoder
        self._tokens = tokens
        self.run = encoder.run
        self.fail = encoder.fail

    def feed(self, event: Event) -> bytes:
        if type(event) is MessageEnd and event.conversation:
            token = self._tokens.conversation(event.conversation)
            event = msgspec.structs.replace(event, conversation=token)
        elif type(event) is BlockStart:
            event = BlockStart(event.index, self._tokens.block(event.block))
        return self._encoder.feed(event)


def _pinned(call: GatewayRequest, provider: str, key_id: str) -> GatewayRequest:
    """The request for one provider and key. Raises APIError if it names others."""
    if (call.provider or provider) != provider or (
        call.key_id and key_id and call.key_id != key_id
    ):
        raise invalid(
            "The conversation is kept by another provider, or with another key, than the "
            "request names.",
            MEMBER,
            "invalid_conversation",
        )
    return msgspec.structs.replace(call, provider=provider, key_id=call.key_id or key_id)


def _about(principal: Principal) -> str:
    return f"conversation:{principal.tenant}"


def _about_call(principal: Principal) -> str:
    return f"call:{principal.tenant}"


def _unknown_call() -> APIError:
    return APIError(
        ErrorKind.NOT_FOUND,
        "No tool call waits for this result: its id was given to another caller, or by a gateway "
        "with other sealing keys, or it was changed. Send the whole conversation without the call.",
        param="messages",
        code="unknown_tool_call",
    )


def _unknown_conversation() -> APIError:
    return invalid(
        "This conversation is not known: it was given to another caller, or by a gateway with "
        "other sealing keys, or it was changed. Send the whole conversation without it.",
        MEMBER,
        "invalid_conversation",
    )
