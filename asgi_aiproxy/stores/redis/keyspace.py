"""What things are called inside Redis."""

from __future__ import annotations

from asgi_aiproxy.stores.base import BudgetReservation, ConcurrencySlot, Grant, NotOnHold, RateLimit


class Keyspace:
    """Keys: a prefix, the account in braces so that a cluster keeps it together, what it is.

    ::

        aiproxy:{tokens}:t            a table, with :i its order and :v its version
        aiproxy:{team-1}:w:rpm        a window   :s: slots   :b: and :e: a budget   :h holds
        aiproxy:{team-1}:o:settle:42  something done once
        aiproxy:{usage}:n             sums       :l a log
    """

    def __init__(self, prefix: str) -> None:
        self._open = prefix + ":{"

    def tag(self, account: str) -> str:
        """An account as it stands between the braces."""
        if "%" in account or "}" in account:
            return account.replace("%", "%25").replace("}", "%7D")
        return account

    def key(self, account: str, kind: str, name: str | None = None) -> str:
        """The key of something."""
        key = f"{self._open}{self.tag(account)}}}:{kind}"
        return key if name is None else f"{key}:{name}"

    def of(self, grant: Grant) -> tuple[str, ...]:
        """The keys of what a grant is about."""
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
        """The key of the mark that something was done."""
        return self.key(account, "o", f"{what}:{name}")


def milliseconds(seconds: float) -> int:
    """Seconds as Redis counts them; never none at all."""
    return max(round(seconds * 1000), 1)
