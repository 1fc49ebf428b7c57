"""Which callers may manage which users and accounts.

The rule is that of One API: a caller manages only users whose role is below its own, and gives only
roles below its own. It covers what belongs to a user as well: the account `user-N`, its budgets and
its tokens, except that all callers manage their own tokens, and `root` every account. Above all
roles are the command line and the administrator's token, which therefore make the first user with
the role `root`.
"""

from __future__ import annotations

from asgi_aiproxy.accounts.users import ROLE_NAMES, ROOT_USER, Users
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.principal import Principal, user_number
from asgi_aiproxy.services.base import ROOT, Actor
from asgi_aiproxy.stores.base import Store

ROLE_NUMBERS = {name: number for number, name in ROLE_NAMES.items()}
_ABOVE_ALL = ROOT_USER + 1


def rank(caller: Principal) -> int:
    """Return the number of a caller's role, by its scopes."""
    if caller == ROOT:
        return _ABOVE_ALL
    found = {"root": ROLE_NUMBERS["root"], "write": ROLE_NUMBERS["operator"]}
    return max((found.get(scope, 0) for scope in caller.scopes), default=0)


def check_role(by: Actor, role: int) -> None:
    """Raise APIError (403) unless a role is below that of the caller."""
    if rank(by.principal) <= role:
        message = "role: you can manage only users with a role below your own."
        raise APIError(ErrorKind.FORBIDDEN, message, param="role", code="role")


async def check_account(store: Store, by: Actor, account: str, *, own: bool = False) -> None:
    """Raise APIError (403) if an account is that of a user whose role is not below the caller's.

    `own`: the caller may manage what belongs to its own account.
    """
    number = user_number(account)
    if number is None or rank(by.principal) >= ROOT_USER:
        return
    if own and account == by.principal.account:
        return
    user = await Users(store).find(number)
    if user is not None and rank(by.principal) <= user.role:
        message = f"account: {account!r} belongs to a user with a role that is not below your own."
        raise APIError(ErrorKind.FORBIDDEN, message, param="account", code="role")


def check_new_account(by: Actor, account: str) -> None:
    """Raise APIError for the id of an account that is reserved for a user."""
    if user_number(account) is not None and by.principal != ROOT:
        raise invalid("id: accounts named user-N belong to users; create a user.", "id")
