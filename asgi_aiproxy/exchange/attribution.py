"""What an exchange is attributed to in usage records: a session of the client, and tags.

Theory of operation. The session is the value of the first of these that the request has: the
control header `aiproxy-session`, the session headers of coding agents, `metadata.session_id`, the
session within `metadata.user_id` (coding agents write it there), `user`. It is a claim of the
caller: it is recorded, and decides nothing.

Tags are names with values, such as `team=search`. The operator lists the request headers and the
members of `metadata` that become tags; other ones are ignored. Tags of the principal come from the
operator, and replace those of the request. Headers are read together with those that are read
anyway; the body only if it has a member of these names. Nothing is read if no record is written.

Names and values are bounded, because they become keys of sums in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy._control_headers import SESSION
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import MAX_TAG_LENGTH, MAX_TAGS, Principal, tag_error
from asgi_aiproxy.providers.vendor_headers import SESSION_HEADERS

LABEL_MEMBERS = frozenset({"metadata", "user"})  # members of bodies that are read
_MAX_SESSION_LENGTH = 128
_MAX_METADATA_BYTES = 16 * 1024
_SESSION_MARK = "session_"  # in `metadata.user_id`, before the id of the session


class Labels(msgspec.Struct, frozen=True, gc=False):
    """The session and the tags of an exchange."""

    session: str = ""
    tags: dict[str, str] = {}


NO_LABELS = Labels()


class Attribution:
    """Finds the session and the tags of requests.

    `tag_headers` are the request headers that become tags, with the name of the tag, or a sequence
    of headers whose tags have their names. `tag_metadata` are members of the request's `metadata`.
    Raises ConfigurationError if a name is invalid.
    """

    def __init__(
        self,
        *,
        tag_headers: Mapping[str, str] | Sequence[str] = (),
        tag_metadata: Sequence[str] = (),
    ) -> None:
        if isinstance(tag_headers, str) or isinstance(tag_metadata, str):
            raise ConfigurationError("Attribution: write lists: tag_metadata=['team'].")
        if not isinstance(tag_headers, Mapping):
            tag_headers = {name: name for name in tag_headers}
        self._tag_headers = {name.lower(): tag.lower() for name, tag in tag_headers.items()}
        self._tag_metadata = tuple(tag_metadata)
        for name in (*self._tag_headers, *self._tag_headers.values(), *self._tag_metadata):
            if error := tag_error(name):
                raise ConfigurationError(f"Attribution: {name!r} cannot be a tag: {error}.")
        if len(self._tag_headers) + len(self._tag_metadata) > MAX_TAGS:
            raise ConfigurationError(f"Attribution: there can be {MAX_TAGS} tags at most.")
        self.headers = frozenset({*SESSION_HEADERS, *self._tag_headers})
        self._read_headers = self.headers | {SESSION}

    def labels(
        self,
        headers: Mapping[str, str],
        members: Mapping[str, msgspec.Raw],
        principal: Principal,
    ) -> Labels:
        """Return the labels of a request by its headers (names in lower case) and its members."""
        if not (members or principal.tags) and self._read_headers.isdisjoint(headers):
            return NO_LABELS
        session = headers.get(SESSION, "")
        if not session:
            for name in SESSION_HEADERS:
                if name in headers:
                    session = headers[name]
                    break
        metadata: dict[str, Any] = {}
        if "metadata" in members and (not session or self._tag_metadata):
            metadata = _object(members["metadata"])
            session = session or _session_in(metadata)
        if not session and "user" in members:
            session = _text(members["user"])
        tags = self._tags(headers, metadata)
        if principal.tags:
            tags.update(principal.tags)
        if not session and not tags:
            return NO_LABELS
        return Labels(_clean(session)[:_MAX_SESSION_LENGTH], tags)

    def _tags(self, headers: Mapping[str, str], metadata: Mapping[str, Any]) -> dict[str, str]:
        tags: dict[str, str] = {}
        for name, tag in self._tag_headers.items():
            if name in headers:
                _add(tags, tag, headers[name])
        for name in self._tag_metadata:
            if name in metadata:
                _add(tags, name, metadata[name])
        return tags


def attribution_for(given: Attribution | None, *, recorded: bool) -> Attribution | None:
    """The attribution of an app: `given`, or else of sessions only; None without records."""
    if not recorded:
        return None
    return given if given is not None else Attribution()


def _session_in(metadata: Mapping[str, Any]) -> str:
    session = metadata.get("session_id")
    if isinstance(session, str) and session:
        return session
    user = metadata.get("user_id")
    if not isinstance(user, str):
        return ""
    if user.startswith("{"):  # newer clients write an object
        inner = _object(user.encode("utf-8", "replace")).get("session_id")
        return inner if isinstance(inner, str) else ""
    _, mark, found = user.rpartition(_SESSION_MARK)
    return found if mark else ""


def _object(data: msgspec.Raw | bytes) -> dict[str, Any]:
    """Decode an object; empty if it is something else, or large."""
    if len(memoryview(data)) > _MAX_METADATA_BYTES:
        return {}
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}


def _text(data: msgspec.Raw) -> str:
    if len(memoryview(data)) > _MAX_METADATA_BYTES:
        return ""
    try:
        return msgspec.json.decode(data, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _add(tags: dict[str, str], name: str, value: object) -> None:
    if isinstance(value, str | int | float | bool):
        text = _clean(str(value))[:MAX_TAG_LENGTH]
        if text:
            tags[name] = text


def _clean(text: str) -> str:
    """The text without white space around it, and without control characters."""
    text = text.strip()
    return text if text.isprintable() else "".join(c for c in text if c.isprintable())
