"""What a root user adds to the pages of the console: name, logo, texts and links, in the store.

What is stored replaces what is configured, in all workers; null is as configured. Texts are
Markdown, of which the console makes HTML that contains no code (`console/site.py`).
"""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy.accounts.table import RowExistsError, Table
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor
from asgi_aiproxy.services.validation import set_fields
from asgi_aiproxy.stores.base import Store

SITE, _ROW = "site", "texts"
MAX_LOGO = 64 * 1024  # bytes
_LOGO_TYPES = {
    b"\x89PNG\r\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"GIF8": "image/gif",
}

SiteName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Markdown = Annotated[str, Meta(max_length=20_000)]
Link = Annotated[str, Meta(max_length=1000)]
Logo = Annotated[str, Meta(max_length=90_000)]


class SiteTexts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored; null is as configured.

    - `name`: in the titles of pages; `logo`: a PNG, JPEG, WebP or GIF file in base64.
    - `home`, `about`, `footer`: Markdown: above the sign-in, as a page of its own, below all pages.
    - `top_up_url`, `chat_url`: links for users.
    """

    name: str | None = None
    logo: str | None = None
    home: str | None = None
    about: str | None = None
    footer: str | None = None
    top_up_url: str | None = None
    chat_url: str | None = None


class SiteEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members to change; omitted ones stay unchanged, null is as configured."""

    name: SiteName | UnsetType | None = UNSET
    logo: Logo | UnsetType | None = UNSET
    home: Markdown | UnsetType | None = UNSET
    about: Markdown | UnsetType | None = UNSET
    footer: Markdown | UnsetType | None = UNSET
    top_up_url: Link | UnsetType | None = UNSET
    chat_url: Link | UnsetType | None = UNSET


class SiteService:
    """Reads and changes what is stored. Raises the same errors as `TokenService`."""

    def __init__(self, store: Store, *, audit: AuditLog | None = None) -> None:
        self._table = Table(store, SITE, SiteTexts)
        self._audit = audit if audit is not None else AuditLog(store)

    async def get(self) -> SiteTexts:
        """Return what is stored."""
        return await self._table.find(_ROW) or SiteTexts()

    async def edit(self, change: SiteEdit, by: Actor = CODE) -> SiteTexts:
        """Change what is stored."""
        fields = set_fields(change)
        for name in ("top_up_url", "chat_url"):
            if fields.get(name) and not is_web_url(fields[name]):
                raise invalid(f"{name}: must be a URL with http:// or https://.", name)
        if fields.get("logo"):
            _check_logo(fields["logo"])
        with suppress(RowExistsError):
            await self._table.create(_ROW, SiteTexts())
        before, after = await self._table.change(
            _ROW, lambda row: msgspec.structs.replace(row, **fields)
        )
        await self._audit.record(
            by, "site.edit", "site", before=_audited(before), after=_audited(after)
        )
        return after


def logo_type(content: bytes) -> str:
    """Return the media type of a logo; empty if it is none of those that are allowed."""
    return next((kind for start, kind in _LOGO_TYPES.items() if content.startswith(start)), "")


def is_web_url(url: str) -> bool:
    """Whether a text is a URL with http:// or https://."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _check_logo(text: str) -> None:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) > MAX_LOGO or not logo_type(content):
        message = "logo: must be a PNG, JPEG, WebP or GIF file of at most 64 KiB, in base64."
        raise invalid(message, "logo")


def _audited(row: SiteTexts) -> dict[str, Any]:
    """The members for the audit log; of the logo only how long it is."""
    plain = msgspec.structs.asdict(row)
    return {**plain, "logo": None if row.logo is None else f"{len(row.logo)} characters"}
