"""Common parts of the services: pages of a list, the answer without content, the root caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.principal import Principal

T = TypeVar("T")

# The caller with all rights: presents the administrator's token, or uses the shell.
ROOT = Principal("admin", "admin", scopes=("root",))


class Actor(msgspec.Struct, frozen=True):
    """The caller of an operation, as it is recorded in the audit log.

    `principal` is the caller, whose scopes decide what it may do. `source` is how the operation was
    requested: `admin` (the admin API), `cli`, `console`, `code`. `address` is the IP address or the
    host that it came from, `request_id` the id of its HTTP request.
    """

    principal: Principal = ROOT
    source: str = "code"
    address: str = ""
    request_id: str = ""


CODE = Actor()  # code of the host application, with all rights

MAX_PAGE_ROWS = 1000

# The format of the ids in a log, which is the same in all stores.
LogId = Annotated[str, Meta(pattern=r"^(\d{1,15}(-\d{1,15})?)?\Z")]


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a list: at most `limit` rows that follow the row `after`.

    Raises APIError if `limit` is out of range.
    """

    after: str = ""
    limit: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_PAGE_ROWS:
            message = f"limit: must be an integer from 1 to {MAX_PAGE_ROWS}, got {self.limit}."
            raise APIError(ErrorKind.INVALID, message, param="limit")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some rows, and `next`: the `after` of the next page, null on the last page."""

    data: list[T]
    next: str | None = None


def paginate(rows: list[T], limit: int, name: Callable[[T], str]) -> Page[T]:
    """Build a page from up to `limit` + 1 rows: the additional row means that there is a next page.

    `name` returns the name by which a row is found as `after`.
    """
    return Page(rows[:limit], name(rows[limit - 1]) if len(rows) > limit else None)


class Ok(msgspec.Struct, frozen=True):
    """The operation succeeded; nothing is returned."""

    ok: bool = True
