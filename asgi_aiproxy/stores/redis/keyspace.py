"""The names of keys in Redis."""

from __future__ import annotations

from asgi_aiproxy.stores.base import BudgetReservation, ConcurrencySlot, Grant, NotOnHold, RateLimit


class Keyspace:
    """Keys consist of a prefix, the account in braces (the hash tag of a cluster), and a kind.

    ::

        aiproxy:{tokens}:t            rows of a table   :i order of its keys   :v its version
        aiproxy:{team-1}:w:rpm        rate limit   :s: slots   :b: and :e: budget   :h holds
        aiproxy:{team-1}:o:settle:42  mark of an operation done once
        aiproxy:{usage}:n             sums          :l a log
        aiproxy:{response:42}:x       an entry
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix + ":{"

    def tag(self, account: str) -> str:
        """The text between the braces for an account."""
        if "%" in account or "}" in account:
            return account.replace("%", "%25").replace("}", "%7D")
        return account

    def key(self, account: str, kind: str, name: str | None = None) -> str:
        """The key of one kind of state of an account."""
        key = f"{self._prefix}{self.tag(account)}}}:{kind}"
        return key if name is None else f"{key}:{name}"

    def of(self, grant: Grant) -> tuple[str, ...]:
        """The keys that a grant reads and writes."""
        match grant:
            case RateLimit():
                return (self.key(grant.account, "w", grant.name),)
            case ConcurrencySlot():
                return (self.key(grant.account, "s", grant.name),)
            case BudgetReservation():
                budget = self.key(grant.account, "b", grant.name)
                return budget, self.key(grant.account, "e", grant.name)
            case NotOnHold():
                return (self.key(grant.account, "h"),)

    def once(self, account: str, what: str, name: str) -> str:
        """The key of the mark that an operation was done."""
        return self.key(account, "o", f"{what}:{name}")


def milliseconds(seconds: float) -> int:
    """Seconds in milliseconds, at least 1."""
    return max(round(seconds * 1000), 1)
