"""Users: unique names and addresses, roles, passwords, one-time links."""

from __future__ import annotations

import asyncio
from typing import Any

import bcrypt
import msgspec
import pytest

from asgi_aiproxy import Budget, MemoryStore, Principal, Tokens
from asgi_aiproxy.accounts import NoSuchRowError
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.accounts.users import (
    EmailTakenError,
    InvalidLinkError,
    NameTakenError,
    User,
    Users,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.services.audit import AuditLog, AuditQuery
from asgi_aiproxy.services.base import CODE, Actor
from asgi_aiproxy.services.users import ROLE_NUMBERS, UserEdit, UserNew, UserService
from asgi_aiproxy.stores import Store
from tests.admin.conftest import store

__all__ = ["store"]
pytestmark = pytest.mark.anyio
CHEAP = Passwords(time_cost=1, memory_cost=64)


def named(name: str, **fields: Any) -> User:
    return User(id=0, username=name, **fields)


def changed(**fields: Any) -> Any:
    return lambda row: msgspec.structs.replace(row, **fields)


async def test_a_name_belongs_to_one_user_whatever_its_case(store: Store) -> None:
    users = Users(store)
    ann = await users.create(named("Ann"))
    for other in ("ann", "ANN", "\uff21nn"):
        with pytest.raises(NameTakenError):
            await users.create(named(other))
    assert await users.by_name("aNN") == ann
    ben = await users.create(named("ben"))
    with pytest.raises(NameTakenError):
        await users.edit(ben.id, changed(username="ann"))
    await users.edit(ann.id, changed(username="anna"))
    assert (await users.edit(ben.id, changed(username="ann")))[1].username == "ann"
    await users.delete(ben.id)
    assert (await users.create(named("ann"))).id > ben.id


async def test_of_concurrent_creations_with_one_name_one_succeeds(store: Store) -> None:
    users = Users(store)
    made = await asyncio.gather(
        *(users.create(named("ann")) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(one, User) for one in made) == 1
    assert sum(isinstance(one, NameTakenError) for one in made) == 7
    assert [user.username async for user in users.all()] == ["ann"]


async def test_an_address_belongs_to_the_user_that_has_verified_it(store: Store) -> None:
    users = Users(store)
    claims = await users.create(named("ann", email="x@example.com"))
    owner = await users.create(named("ben", email="X@example.com", email_verified=True))
    assert await users.by_email("x@EXAMPLE.com") == owner
    with pytest.raises(EmailTakenError):
        await users.edit(claims.id, changed(email_verified=True))


async def test_concurrent_changes_of_a_user_are_all_kept(store: Store) -> None:
    users = Users(store)
    ann = await users.create(named("ann"))

    def count(row: User) -> User:
        return msgspec.structs.replace(row, inviter_id=row.inviter_id + 1)

    await asyncio.gather(*(users.edit(ann.id, count) for _ in range(6)))
    assert (await users.get(ann.id)).inviter_id == 6


async def test_pages_hold_all_users_in_order(store: Store) -> None:
    users = Users(store)
    made = [await users.create(named(f"user-{n}", invite_code=f"code-{n}")) for n in range(7)]
    first = await users.page(0, 4)
    assert first + await users.page(first[-1].id, 100) == made
    assert await users.by_invite_code("code-3") == made[3]


async def test_a_disabled_user_has_no_working_tokens_and_a_removed_one_none(store: Store) -> None:
    users, tokens = Users(store), Tokens(store)
    ann = await users.create(named("ann"), (Budget.usd(1, shared=True),))
    await tokens.issue(name="hers", account=ann.account)
    await users.edit(ann.id, changed(enabled=False))
    assert not (await tokens.accounts.get(ann.account)).enabled
    await users.delete(ann.id)
    with pytest.raises(NoSuchRowError):
        await tokens.accounts.get(ann.account)
    with pytest.raises(NoSuchRowError):
        await users.edit(ann.id, changed(enabled=True))


async def test_a_link_is_used_once_and_replaced_by_a_newer_one(store: Store) -> None:
    now = [1000.0]
    users = Users(store, clock=lambda: now[0])
    ann = await users.create(named("ann"))
    older = await users.make_link(ann.id, "password", 60)
    link = await users.make_link(ann.id, "password", 60)
    for wrong in (older, "", "1", "x.y", f"{ann.id}.", "99999999999999.x", "\u00b2.x", link + "x"):
        with pytest.raises(InvalidLinkError):
            await users.use_link(wrong, "password", changed())
    with pytest.raises(InvalidLinkError):
        await users.use_link(link, "email", changed())
    used = await asyncio.gather(
        *(users.use_link(link, "password", changed(password="new")) for _ in range(3)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, User) for one in used) == 1
    late = await users.make_link(ann.id, "password", 60)
    now[0] += 61
    with pytest.raises(InvalidLinkError):
        await users.use_link(late, "password", changed())
    raw = b"".join((await store.rows("users")).values())
    assert link.partition(".")[2].encode() not in raw


@pytest.mark.parametrize("argon2", [True, False])
async def test_passwords_are_verified_whichever_hash_they_have(argon2: bool) -> None:
    makes, other = Passwords(time_cost=1, memory_cost=64), CHEAP
    makes._argon2 = argon2
    stored = await makes.hash("correct horse")
    assert stored.startswith("$argon2id$" if argon2 else "scrypt$")
    assert await other.verify("correct horse", stored)
    assert not await other.verify("correct horsf", stored)
    assert other.is_outdated(stored) is not argon2
    assert stored != await makes.hash("correct horse")
    for nothing in ("", "$argon2id$broken", "md5$1$2"):
        assert not await other.verify("", nothing)


async def test_imported_bcrypt_hashes_are_verified_within_bounds() -> None:
    stored = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
    assert await CHEAP.verify("correct horse", stored)
    assert CHEAP.is_outdated(stored)
    for wrong in ("correct horsf", "", "correct horse\0", "c" * 73):
        assert not await CHEAP.verify(wrong, stored)
    longest = bcrypt.hashpw(b"c" * 72, bcrypt.gensalt(4)).decode()
    assert await CHEAP.verify("c" * 72, longest)
    assert not await CHEAP.verify("c" * 73, longest)
    slow = stored.replace("$04$", "$31$")  # would take days
    assert not await CHEAP.verify("correct horse", slow)


# roles

CALLERS = {
    "user": Principal("user-7", scopes=()),
    "reader": Principal("r", scopes=("read",)),
    "operator": Principal("o", scopes=("write",)),
    "root": Principal("t", scopes=("root",)),
    "host": CODE.principal,
}
RANKS = {"user": 0, "reader": 0, "operator": 10, "root": 100, "host": 101}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("role", ROLE_NUMBERS)
async def test_a_caller_manages_only_users_with_a_role_below_its_own(
    caller: str, role: Any
) -> None:
    store = MemoryStore()
    service, by = UserService(store, passwords=CHEAP), Actor(CALLERS[caller])
    target = (await service.create(UserNew(username="target", role=role))).user
    allowed = RANKS[caller] > ROLE_NUMBERS[role]
    before = await service.users.get(target.id)
    actions = {
        "create": lambda: service.create(UserNew(username="another", role=role), by),
        "edit": lambda: service.edit(target.id, UserEdit(display_name="x"), by),
        "disable": lambda: service.edit(target.id, UserEdit(enabled=False), by),
        "email": lambda: service.edit(target.id, UserEdit(email="me@example.com"), by),
        "link": lambda: service.make_password_link(target.id, by),
        "remove": lambda: service.drop(target.id, by),
    }
    for action in actions.values():
        if allowed:
            await action()
            continue
        with pytest.raises(APIError, match="role") as refused:
            await action()
        assert refused.value.status == 403
        assert await service.users.get(target.id) == before


@pytest.mark.parametrize("caller", ["operator", "root"])
@pytest.mark.parametrize("role", ROLE_NUMBERS)
async def test_a_role_is_given_only_below_ones_own(caller: str, role: Any) -> None:
    service, by = UserService(MemoryStore(), passwords=CHEAP), Actor(CALLERS[caller])
    target = (await service.create(UserNew(username="target"))).user
    if RANKS[caller] > ROLE_NUMBERS[role]:
        assert (await service.edit(target.id, UserEdit(role=role), by)).role == role
    else:
        with pytest.raises(APIError, match="role"):
            await service.edit(target.id, UserEdit(role=role), by)


async def test_new_users_have_nothing_to_spend_unless_credit_is_given() -> None:
    store = MemoryStore()
    service = UserService(store, passwords=CHEAP)
    plain = (await service.create(UserNew(username="ann"))).user
    rich = (await service.create(UserNew(username="ben", budgets=("5",)))).user
    accounts = Tokens(store).accounts
    assert (await accounts.get(plain.account)).budgets == (Budget.usd(0, shared=True),)
    assert (await accounts.get(rich.account)).budgets == (Budget.usd(5, shared=True),)


@pytest.mark.parametrize(
    "name", ["", "a", "a b", "<b>x</b>", "x\r\ny", "\u0430nn", "-ann", "a" * 51, "ann\n", "a@b.c"]
)
async def test_a_name_that_could_deceive_or_inject_is_refused(name: str) -> None:
    service = UserService(MemoryStore(), passwords=CHEAP)
    with pytest.raises(APIError, match="username"):
        await service.create(UserNew(username=name))


@pytest.mark.parametrize(
    "email",
    ["x", "x@y", "x@y.z\r\nbcc: all@example.com", "a b@example.com", '"a"@example.com',
     "x@example.com,y@example.com", "<x@example.com>", "x@example.com\n"],
)  # fmt: skip
async def test_an_address_that_could_inject_a_header_is_refused(email: str) -> None:
    service = UserService(MemoryStore(), passwords=CHEAP)
    with pytest.raises(APIError, match="email"):
        await service.create(UserNew(username="ann", email=email))


async def test_changes_are_in_the_audit_log_without_secrets() -> None:
    store = MemoryStore()
    audit = AuditLog(store)
    service = UserService(store, passwords=CHEAP, audit=audit)
    made = await service.create(UserNew(username="ann", password="a long password"))
    link = (await service.make_password_link(made.user.id)).link
    await service.edit(made.user.id, UserEdit(role="operator"))
    await service.drop(made.user.id)
    entries = (await audit.page(AuditQuery(target=f"user/{made.user.id}"))).data
    assert [entry.action for entry in entries] == [
        "user.remove", "user.edit", "user.link", "user.create",
    ]  # fmt: skip
    assert entries[1].after == {"role": "operator"}
    text = msgspec.json.encode(entries).decode()
    assert "argon2" not in text
    assert link.partition(".")[2] not in text


@pytest.mark.parametrize(
    "password", ["short", "a" * 201, "aaaaaaaaaaaaaa", "A-LONG-name-of-a-user"]
)
async def test_a_weak_password_is_refused(password: str) -> None:
    service = UserService(MemoryStore(), passwords=CHEAP)
    with pytest.raises(APIError, match="password"):
        await service.create(UserNew(username="A-long-name-of-a-user", password=password))
