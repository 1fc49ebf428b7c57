"""Find the resources of a vendor that a JSON body refers to. Pure.

Theory of operation. Vendors name resources by their ids: in members such as `file_id` and
`vector_store_ids`, and elsewhere as strings that begin with the kind of the resource, such as
`file-...`. Both are found, at any depth. What is searched is what a JSON parser reads: escaped
letters, and each value of a member that occurs twice, since the vendor may take either. A body is
only parsed if its bytes hold something that occurs in such members and ids, or an escaped letter,
or if it is not in UTF-8. JSON of a call that cannot be read here is refused: the vendor's parser
may read it. A file may be of any type; if it is not JSON, it is searched for strings that have the
form of ids.

Ids by https://platform.openai.com/docs/api-reference, https://platform.claude.com/docs/en/api and
https://ai.google.dev/api; Google's names include the path or the whole address, of which the last
part is the id here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from asgi_aiproxy.errors import invalid

_NAMES = frozenset(
    {"file_id", "file_ids", "input_file_id", "training_file", "validation_file", "part_ids"}
    | {"vector_store_id", "vector_store_ids", "container", "container_id", "skill_id"}
    | {"previous_response_id", "conversation", "conversation_id", "assistant_id", "thread_id"}
    | {"batch_id", "upload_id", "eval_id", "video_id"}
    | {"fileUri", "file_uri", "fileName", "file_name", "cachedContent", "cached_content"}
    | {"fileSearchStoreNames", "file_search_store_names"}
    | {"previous_interaction_id", "previousInteractionId"}
)
# Members of which an object names the resource by its `id`.
_OBJECTS = frozenset({"conversation", "container", "video"})
# How the ids of OpenAI and Anthropic begin. What follows is random, so it has a digit or a capital
# letter, unlike names in code such as "file_path", of which requests of coding agents are full.
_BEGINNINGS = [
    "asst_",
    "batch_",
    "cfile_",
    "chatcmpl-",
    "cntr_",
    "container_",
    "conv_",
    "eval_",
    "file-",
    "file_",
    "ftjob-",
    "msgbatch_",
    "part_",
    "resp_",
    "skill_",
    "thread_",
    "upload_",
    "video_",
    "vs_",
    "vsfb_",
]
_RANDOM = r"[\w\-]*?[A-Z0-9]"
# Google's ids are names in one of these collections.
_COLLECTIONS = ("batches/", "cachedContents/", "corpora/", "files/", "fileSearchStores/")
_ID_TEXT = (
    rf"(?:(?:{'|'.join(_BEGINNINGS)}){_RANDOM}[\w\-]*"
    rf'|(?:https://[^/" ]+/[^" ]*)?(?:{"|".join(_COLLECTIONS)})[\w\-]+/?(?:[?#][^" ]*)?)'
)
_ID = re.compile(_ID_TEXT, re.ASCII)
_QUOTED_ID = re.compile(f'"(?=({_ID_TEXT})")'.encode())


def _signs() -> re.Pattern[bytes]:
    """A string that is one of the names, begins like an id, or is an address of a file of Google's.

    Alternatives are grouped by their first letter: most strings are passed over after one of it.
    """
    endings: dict[str, list[str]] = {}
    names = [f'{name}"' for name in _NAMES | _OBJECTS]
    ids = [f"{beginning}{_RANDOM}" for beginning in _BEGINNINGS]
    for each in sorted([*names, *ids, *_COLLECTIONS, r'https:[^" ]*/files\\?/']):
        endings.setdefault(each[0], []).append(each[1:])
    groups = [f"{letter}(?:{'|'.join(rest)})" for letter, rest in endings.items()]
    return re.compile(f'"(?=[{"".join(endings)}])(?:{"|".join(groups)})'.encode())


_SIGNS = _signs().search
# The other signs are an escaped letter or slash of an id.
_ESCAPED = re.compile(
    rb"\\u00[2-7]|(?:batches|cachedContents|corpora|files|fileSearchStores)\\/"
).search
_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*[{\[]").match
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_ESCAPED_LETTER = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
_MAX_STRING = 2048  # bytes of a string with an id, if all of its letters are escaped
_OWN = frozenset({"id", "name", "thread_id"})  # a run may create its thread
_MAX_REFERENCES, _MAX_UPLOADED = 2000, 10_000


class _Members(list[tuple[str, Any]]):
    """The members of an object, also those that occur twice."""


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id of a resource."""
    return _ID.fullmatch(text) is not None


def may_refer(body: bytes) -> bool:
    """Return whether a body may refer to a resource; it is quick, and True for some others.

    (In this and other searches of all requests: `find` takes half the time of `in`, which first
    tries whether bytes are a number.)
    """
    if _SIGNS(body) is not None:
        return True
    escaped = body.find(b"\\u00") >= 0 or body.find(b"\\/") >= 0
    return escaped and _ESCAPED(body) is not None


def references(body: bytes, *, call: bool = True) -> dict[str, bool]:
    """Return the ids of the resources that a body refers to.

    The value says whether the string certainly is an id: it is in a member that holds ids, and has
    the form of one. `call`: the body is that of a call; else it may be a file of any type. Raises
    APIError for JSON of a call that cannot be read, and for too many ids.
    """
    refers = may_refer(body)
    if not refers and b"\0" not in body[:4]:  # as in UTF-16 and UTF-32, and in sound
        return {}
    try:
        document = json.loads(body, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        if not refers:
            return {}
        if call and _JSON_START(body):
            raise invalid("The request body is not valid JSON in UTF-8.") from None
        scanner = IdScanner()
        scanner.feed(body)
        scanner.check_complete()
        return scanner.ids
    found: dict[str, bool] = {}
    for name, text in _strings(document):
        named, formed = name in _NAMES, is_id(text)
        if named or formed:
            id = last_segment(text)
            found[id] = found.get(id, False) or (named and formed)
            if len(found) > _MAX_REFERENCES:
                raise invalid(f"The request refers to more than {_MAX_REFERENCES} resources.")
    return found


def _strings(document: Any) -> Iterator[tuple[str, str]]:
    """The strings of a document, each with the name of its member."""
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, _Members):
            inner = name if name in _OBJECTS else ""
            stack += [
                (inner if inner and member == "id" else member, each)
                for member, each in reversed(value)
            ]
        elif isinstance(value, list):
            stack += [(name, each) for each in reversed(value)]


class IdScanner:
    """Finds ids in the strings of bytes that arrive in pieces, such as the calls of a batch.

    `ids` are those found so far, up to a limit. What is not JSON may hold some by chance.
    """

    def __init__(self) -> None:
        self.ids: dict[str, bool] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Search the next piece."""
        data = self._rest + data
        self._rest = data[-_MAX_STRING:]
        if b"\\u00" in data:
            data = _ESCAPED_LETTER.sub(lambda found: bytes.fromhex(found[1].decode()), data)
        for found in _QUOTED_ID.finditer(data):
            if len(found[1]) <= _MAX_STRING and len(self.ids) <= _MAX_UPLOADED:
                self.ids[last_segment(found[1].decode("utf-8", "replace"))] = False

    def check_complete(self) -> None:
        """Raise APIError if more ids were found than `ids` holds."""
        if len(self.ids) > _MAX_UPLOADED:
            message = f"The file refers to more than {_MAX_UPLOADED} resources: divide it."
            raise invalid(message)


def created_ids(resource: Mapping[str, Any], *, known: bool = False) -> Iterator[str]:
    """Yield the ids that the JSON of a new resource names: its own, and those created with it.

    `known`: the resource is not new, only what was created with it may be. The file that a batch
    reads existed before.
    """
    for name, value in resource.items():
        created = name.endswith("_file_id") and name != "input_file_id"
        created = created or (not known and name in _OWN)
        if created and isinstance(value, str) and value:
            yield last_segment(value)
    file = resource.get("file")  # of an upload
    if isinstance(file, dict):
        yield from created_ids(file)


def last_segment(name: str) -> str:
    """Return the last part of a resource's name or address, as a server reads it: decoded, without
    a query.
    """
    return unquote(_QUERY.sub("", name.strip())).rstrip("/").rpartition("/")[2]
