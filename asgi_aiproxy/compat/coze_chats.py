"""Coze's bots for `AIProxyRoutes`: which bot, with which key, and in which conversation.

Where anyone may use the keys, as in aiproxy, clients see and send Coze's own ids of
conversations. Callers with tokens of this gateway get sealed tokens in their place, so that none of
them can continue the conversation of another.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.compat.callers import Caller
from asgi_aiproxy.compat.routing import CompatCall
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.exchange.continuation import CONVERSATION_PREFIX
from asgi_aiproxy.keys import Key, NoEncryption
from asgi_aiproxy.providers import Provider

COZE_API_MODEL = "coze-api"


class CozeChats:
    """Chooses bots and names conversations.

    Arguments:

    - `provider`: Coze, with keys whose attributes name a bot and a user.
    - `sealed`: whether callers get tokens in place of ids of conversations.
    """

    def __init__(self, provider: Provider, *, sealed: bool) -> None:
        self._provider = provider
        self._sealed = sealed

    @property
    def conversations(self) -> NoEncryption | bool:
        """The option `conversations` of the shim."""
        return True if self._sealed else NoEncryption()

    def bot(
        self, call: CompatCall, caller: Caller, conversation: Mapping[str, Any]
    ) -> tuple[str, str, str]:
        """Return the bot, the user and the id of the key: by the headers, else by the body, else
        any configured pair. Raises APIError.
        """
        bot, user = call.header("x-bot-id"), call.header("x-auth-id")
        if caller.secret and bot and user:
            return bot, user, ""
        bot, user = str(conversation.get("bot_id") or ""), str(conversation.get("user") or "")
        if caller.secret and bot:
            return bot, user or "user", ""
        pairs = self._pairs()
        if bot or user:
            fits = [p for p in pairs if p[0] == bot and (not user or p[1] == user)]
            if not fits:
                raise invalid(
                    "coze.conversation: the gateway has no token for this bot_id and user. Send "
                    "your own token in Authorization, or the pair of a configured token.",
                    "coze.conversation",
                    "unknown_bot",
                )
            return fits[0]
        if not pairs:
            raise invalid(
                "coze.conversation: bot_id and user are required: no bot is configured.",
                "coze.conversation.bot_id",
            )
        return random.choice(pairs)  # noqa: S311 (it spreads load)

    def _pairs(self) -> list[tuple[str, str, str]]:
        """Return the bot, the user and the id of each configured key that names a bot."""
        pool = self._provider.keys
        keys: Mapping[str, Key] = pool.keys if pool is not None else {}
        return [
            (str(key.attributes["bot_id"]), str(key.attributes.get("user", id)), id)
            for id, key in keys.items()
            if "bot_id" in key.attributes
        ]

    def member(self, id: str) -> dict[str, str]:
        """Return the member of a request that continues the conversation of a client's id."""
        if not id:
            return {}
        if self._sealed or id.startswith(CONVERSATION_PREFIX):
            return {"conversation": id}
        kept = _json.dumps([self._provider.name, "", id])
        return {"conversation": CONVERSATION_PREFIX + NoEncryption().encrypt(kept, "")}

    def extension(
        self, answer: Mapping[str, Any], bot: str, user: str, known: str
    ) -> dict[str, Any]:
        """Return the extension object of an answer or a chunk."""
        token = answer.get("conversation")
        ids = {"type": "api", "bot_id": bot, "user": user}
        ids["conversation_id"] = self._id(token) if isinstance(token, str) else known
        found = answer.get("coze")
        return {**ids, **(found if isinstance(found, dict) else {})}

    def _id(self, token: str) -> str:
        """Return the id for the client of the conversation that a token names."""
        if self._sealed:
            return token
        kept = _json.loads(NoEncryption().decrypt(token.removeprefix(CONVERSATION_PREFIX), ""))
        return str(kept[2])
