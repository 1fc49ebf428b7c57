"""Record changes of keys in the audit log, without their secrets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from asgi_aiproxy.keys import Key, KeyPool, fingerprint
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import Actor

_MAX_IDS = 100  # that an entry about an import lists


class KeyAudit:
    """Records changes of keys in `audit`, by default in the store that shares the keys of a pool;
    without either they are not recorded."""

    def __init__(self, audit: AuditLog | None) -> None:
        self._audit = audit

    async def changed(
        self,
        by: Actor,
        action: str,
        pool: KeyPool,
        id: str,
        *,
        before: Key | None = None,
        after: Key | None = None,
    ) -> None:
        """Record the change of one key."""
        audit = self._audit_of(pool)
        if audit is not None:
            values = [None if key is None else _audited(key) for key in (before, after)]
            target = f"key/{pool.name}/{id}"
            await audit.record(by, action, target, before=values[0], after=values[1])

    async def imported(self, by: Actor, pool: KeyPool, ids: list[str], *, replace: bool) -> None:
        """Record an import."""
        audit = self._audit_of(pool)
        if audit is not None:
            values = {"count": len(ids), "ids": ids[:_MAX_IDS], "replace": replace}
            await audit.record(by, "key.import", f"key/{pool.name}", after=values)

    def _audit_of(self, pool: KeyPool) -> AuditLog | None:
        if self._audit is None and pool.table is not None:
            return AuditLog(pool.table.store)
        return self._audit


def url_without_credentials(url: str) -> str:
    """Return a URL without user and password."""
    scheme, _, authority_and_path = url.partition("://")
    host, slash, path = authority_and_path.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _audited(key: Key) -> dict[str, Any]:
    """The members of a key for the audit log: the fingerprint of its secret, addresses without
    credentials, and only the names of its attributes, which may be secrets.
    """
    return asdict(key) | {
        "secret": fingerprint(key.secret),
        "proxy": key.proxy and url_without_credentials(key.proxy),
        "base_url": key.base_url and url_without_credentials(key.base_url),
        "attributes": sorted(key.attributes),
    }
