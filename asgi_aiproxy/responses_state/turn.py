"""One request of the Responses API that may refer to earlier ones. Theory of operation.

`begin_turn` decides, before the request is routed, how the conversation reaches the provider:

* *Natively*. The provider keeps the earlier response: the request goes to that provider, with the
  key that made the response, and refers to it there.
* *Expanded*. The content is at hand, in the memory of a WebSocket or in the stash: it goes before
  the new items into `input`, and the reference is removed. Any provider can be sent such a request,
  and whatever judges it (size, price, budget, models) judges the whole of it.
* *Unchanged*. The request refers to nothing; or it refers to a response that the gateway does not
  know, and the caller may ask the provider for it: there is only one caller, or it brought its own
  key.

Everything else is refused: as not found, or with the option that would have kept the response.

The response is read along by a `ResponseCapture`, which calls `finish` with its last form, before
the client sees that. Then it is remembered: in the memory of the WebSocket, which needs no stash;
and, unless the request says `"store": false`, as a record of its caller (see `records`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import RESPONSES
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.targets import allowed_targets
from asgi_aiproxy.providers.base import Provider, Router, Target
from asgi_aiproxy.responses_state.conversations import Conversations, conversation_not_found
from asgi_aiproxy.responses_state.history import (
    History,
    Segment,
    expanded_input,
    input_items,
    origin,
    output_items,
    reasoning_origin,
)
from asgi_aiproxy.responses_state.item_references import resolve_item_references
from asgi_aiproxy.responses_state.memory import ConnectionMemory
from asgi_aiproxy.responses_state.records import ResponseState, StoredResponse

logger = logging.getLogger("asgi_aiproxy")

_REFERENCES = ("previous_response_id", "conversation")
_NO_HISTORY = History("", segments=())
_FINAL = frozenset({"completed", "incomplete"})
_PENDING = frozenset({"queued", "in_progress"})


class ResponseTurn:
    """A request and what is done with its response; made by `begin_turn`."""

    def __init__(
        self,
        call: GatewayRequest,
        *,
        state: ResponseState,
        memory: ConnectionMemory | None,
        store: bool,
        before: tuple[Segment, ...] | None,
        items: tuple[msgspec.Raw, ...],
        previous: str = "",
        conversation: tuple[Conversations, str] | None = None,
    ) -> None:
        self.call = call
        self._state = state
        self._memory = memory
        self._store = store
        self._before = before
        self._items = items
        self._previous = previous  # the response that the expanded request continues
        self._conversation = conversation
        self._recorded = False

    @property
    def adjusts_all(self) -> bool:
        """Whether every form of the response matters, not just the last one."""
        return (
            self._previous != ""
            or self._conversation is not None
            or (self._store and self._state.stash)
            or "background" in self.call.fields
        )

    def reads(self, provider: Provider) -> bool:
        """Whether a response of this provider is remembered or adjusted."""
        kept = self._store and (self._state.stash or _is_native(provider))
        return kept or self._memory is not None or self.adjusts_all

    def adjust(self, response: dict[str, Any], *, native: bool) -> bool:
        """Make a response say what the client requested; returns whether it was changed."""
        changed = False
        if self._previous and response.get("previous_response_id") != self._previous:
            response["previous_response_id"] = self._previous
            changed = True
        if self._conversation is not None:
            response["conversation"] = {"id": self._conversation[1]}
            changed = True
        if self._store and self._state.stash and not native and not response.get("store"):
            response["store"] = changed = True
        return changed

    def warm_up(self, response: dict[str, Any]) -> None:
        """Remember a request without a response."""
        self.adjust(response, native=True)
        if self._memory is not None and self._before is not None:
            history = History("", segments=(*self._before, Segment(self._items)))
            self._memory.put(response["id"], history)

    async def finish(self, response: dict[str, Any], exchange: Exchange) -> bool:
        """Remember a response, once it is complete or runs in the background.

        Returns whether its content is not kept, though the response says so: it is too large.
        """
        target, id, status = exchange.target, response.get("id"), response.get("status")
        if target is None or not isinstance(id, str) or not id:
            return False
        complete = status in _FINAL
        if not complete and not (status in _PENDING and response.get("background") is True):
            return False
        if not complete and self._recorded:
            return False
        self._recorded = True
        history = self._history(response, target, exchange.key_id)
        if self._memory is not None and complete:
            self._memory.put(id, history)
        if self._conversation is not None and complete:
            await self._add_to_conversation(history)
        if not self._store:
            return False
        encoded = msgspec.Raw(_json.dumps(response)) if self._state.stash else None
        if not complete:  # the content is known to the provider, and later to it alone
            history = msgspec.structs.replace(history, segments=None)
        stored = StoredResponse(history, encoded, self._context())
        kept = await self._state.put(self.call.principal, id, stored)
        return self._state.stash and not kept and not history.kept

    async def _add_to_conversation(self, history: History) -> None:
        assert self._conversation is not None  # noqa: S101 (for the type checker)
        conversations, id = self._conversation
        added = (history.segments or ())[len(self._before or ()) :]
        try:
            await conversations.append(self.call.principal, id, *added)
        except APIError as error:
            logger.warning(
                "request %s: a response is missing in its conversation: %s",
                self.call.request_id,
                error.message,
            )

    def _history(self, response: dict[str, Any], target: Target, key_id: str) -> History:
        account = origin(target.provider.name, key_id)
        segments = None
        if self._before is not None:
            own = Segment(self._items, account)
            segments = (*self._before, own, Segment(output_items(response), account))
        return History(
            provider=target.provider.name,
            key_id=key_id,
            model=self.call.model,
            kept=self._store and _is_native(target.provider),
            tokens=_total_tokens(response),
            segments=segments,
        )

    def _context(self) -> tuple[msgspec.Raw, ...]:
        """The items that the response was made from."""
        before = [item for segment in self._before or () for item in segment.items]
        return (*before, *self._items)


async def begin_turn(
    call: GatewayRequest,
    router: Router,
    state: ResponseState,
    conversations: Conversations,
    memory: ConnectionMemory | None,
    *,
    limit: int,
) -> ResponseTurn | None:
    """Prepare a request; None if it neither refers to a response nor is to be remembered.

    `limit` is that of an expanded `input` in bytes. Raises APIError if the request refers to what
    does not exist, or is not available.
    """
    fields = call.fields
    previous, conversation = (_reference(fields, name) for name in _REFERENCES)
    if previous and conversation:
        raise invalid(
            "'previous_response_id' cannot be combined with 'conversation'.",
            "previous_response_id",
            "mutually_exclusive_parameters",
        )
    store = _parsing.member(fields, "store", _parsing.flag) is not False
    store = store and call.operation.name == RESPONSES
    if not (store or previous or conversation) and memory is None:
        return None
    call = await resolve_item_references(call, state, limit=min(limit, state.max_bytes))
    fields = call.fields
    keeps_content = memory is not None or (store and state.stash)
    items = input_items(fields) if keeps_content or previous or conversation else ()
    turn = partial(ResponseTurn, state=state, memory=memory, store=store, items=items)
    if store and state.stash and "store" in fields:
        call = _without(call, "store")  # the gateway stores it, and OpenAI does by default
    if conversation:
        return await _in_conversation(call, router, state, conversations, conversation, turn, limit)
    if not previous:
        return turn(call, before=())
    found = memory.get(previous) if memory is not None else None
    if found is None:
        stored = await state.get(call.principal, previous)
        found = stored.history if stored is not None else None
    targets = find_targets(call, router)
    if found is None:
        if not may_refer_to_unknown(call, targets):
            known_here = state.stash or memory is not None
            raise _unknown_response(call, previous, targets, known_here=known_here)
        return turn(call, before=None)
    if keeps_response(found, call, targets):
        pinned = msgspec.structs.replace(
            call,
            provider=found.provider,
            key_id=call.key_id or found.key_id,
            history_tokens=found.tokens,
        )
        return turn(pinned, before=found.segments)
    if found.segments is None:
        if not targets:
            return None  # what is wrong with the model is said later
        raise _not_at_this_provider(found, previous, targets)
    expanded = _expanded(call, found, items, targets, limit)
    return turn(expanded, before=found.segments, previous=previous)


async def _in_conversation(
    call: GatewayRequest,
    router: Router,
    state: ResponseState,
    conversations: Conversations,
    id: str,
    turn: partial[ResponseTurn],
    limit: int,
) -> ResponseTurn:
    """Prepare a request that belongs to a conversation. Raises APIError."""
    found = await conversations.get(call.principal, id) if state.stash else None
    targets = find_targets(call, router)
    if found is None:
        if targets and not may_refer_to_unknown(call, targets):
            raise _unknown_conversation(id, state)
        return turn(call, before=None)
    limit = min(limit, state.max_bytes)
    expanded = _expanded(call, found.history, turn.keywords["items"], targets, limit)
    return turn(expanded, before=found.history.segments, conversation=(conversations, id))


def _expanded(
    call: GatewayRequest,
    history: History,
    items: tuple[msgspec.Raw, ...],
    targets: Sequence[Target],
    limit: int,
) -> GatewayRequest:
    """The request with its whole history in `input`."""
    native = any(_is_native(target.provider) for target in targets)
    reader, pin = "", call
    if native and (account := reasoning_origin(history)):
        provider, _, key_id = account.partition("/")
        if _reaches(provider, key_id, call, targets):
            reader = account
            pin = msgspec.structs.replace(call, provider=provider, key_id=call.key_id or key_id)
    said = expanded_input(history, items, native=native, reader=reader, limit=limit)
    return _without(pin, *_REFERENCES, input=said)


def _without(call: GatewayRequest, *names: str, **more: msgspec.Raw) -> GatewayRequest:
    """A request without some members, and with others."""
    fields = {name: value for name, value in call.fields.items() if name not in names} | more
    return msgspec.structs.replace(call, fields=fields, body=_json.dumps(fields))


def keeps_response(history: History, call: GatewayRequest, targets: Sequence[Target]) -> bool:
    """Whether the provider that keeps a response can serve this request."""
    return history.kept and _reaches(history.provider, history.key_id, call, targets, native=True)


def _reaches(
    provider: str,
    key_id: str,
    call: GatewayRequest,
    targets: Sequence[Target],
    *,
    native: bool = False,
) -> bool:
    """Whether a target leads to this provider, which still has the key."""
    if call.own_key or (call.key_id and key_id and call.key_id != key_id):
        return False
    for target in targets:
        if target.provider.name == provider and (not native or _is_native(target.provider)):
            keys = target.provider.keys
            return not key_id or (keys is not None and key_id in keys.keys)
    return False


def may_refer_to_unknown(call: GatewayRequest, targets: Sequence[Target]) -> bool:
    """Whether a provider may be asked for a response that the gateway does not know.

    Not if several callers share its keys: one could continue the conversation of another.
    """
    alone = not call.principal.id and not call.principal.account
    return (alone or bool(call.own_key)) and any(_is_native(t.provider) for t in targets)


def _unknown_conversation(id: str, state: ResponseState) -> APIError:
    if state.stash:
        return conversation_not_found(id, "conversation")
    return invalid(
        "'conversation' is not available here: send the whole conversation in 'input'; or the "
        "operator sets the option responses.stash (ResponseState(stash=True)).",
        "conversation",
        "unsupported_parameter",
    )


def _unknown_response(
    call: GatewayRequest, id: str, targets: Sequence[Target], *, known_here: bool
) -> APIError:
    if known_here or not targets or any(_is_native(target.provider) for target in targets):
        return not_found_error(id, "previous_response_id", "previous_response_not_found")
    return invalid(
        f"'previous_response_id' is not available for the model {call.model!r}: its provider keeps "
        "no responses, and the gateway does not either. Send the whole conversation in 'input', "
        "with the items of earlier responses unchanged; or the operator sets the option "
        "responses.stash (ResponseState(stash=True)).",
        "previous_response_id",
        "unsupported_parameter",
    )


def _not_at_this_provider(history: History, id: str, targets: Sequence[Target]) -> APIError:
    if any(target.provider.name == history.provider for target in targets):
        return not_found_error(id, "previous_response_id", "previous_response_not_found")
    return invalid(
        f"The earlier response is kept by {history.provider}, which does not serve this model. "
        "Send the whole conversation in 'input'; or the operator sets the option responses.stash "
        "(ResponseState(stash=True)).",
        "previous_response_id",
        "unsupported_parameter",
    )


def not_found_error(id: str, param: str | None = None, code: str | None = None) -> APIError:
    """The error for a response that does not exist, or is another caller's."""
    what = "Previous response" if param else "Response"
    shown = id if len(id) <= 100 else id[:100] + "..."
    return APIError(
        ErrorKind.NOT_FOUND, f"{what} with id {shown!r} not found.", param=param, code=code
    )


def find_targets(call: GatewayRequest, router: Router) -> Sequence[Target]:
    """The targets that may serve the request; none where that is an error, which is raised later,
    when the exchange has a usage record."""
    try:
        return allowed_targets(router, call)
    except APIError:
        return ()


def _is_native(provider: Provider) -> bool:
    return RESPONSES in provider.native_operations


def _reference(fields: Any, name: str) -> str:
    """The id that a member refers to; empty if it is absent or null. Raises APIError."""
    if name != "conversation" or bytes(fields.get(name, b""))[:1] != b"{":
        return _parsing.member(fields, name, _parsing.text) or ""
    found = _json.loads(bytes(fields[name]))
    id = found.get("id")
    if not isinstance(id, str):
        raise invalid("Invalid type for 'conversation.id': expected a string.", "conversation.id")
    return id


def _total_tokens(response: dict[str, Any]) -> int:
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return 0
    counts = (usage.get("input_tokens"), usage.get("output_tokens"))
    return sum(count for count in counts if isinstance(count, int) and 0 <= count < 2**31)
