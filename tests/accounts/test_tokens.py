"""Gateway tokens: issued once, accepted by all workers, and refused once they are revoked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.accounts import (
    Account,
    Group,
    NoSuchRowError,
    RowExistsError,
    StoredTokenVerifier,
    Token,
    Tokens,
    stored_tokens,
)
from asgi_aiproxy.accounts.token import new_secret, parse_token
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.stores import MemoryStore, StoreUnavailableError

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Counting(MemoryStore):
    """Counts reads, and can be unavailable."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.reads: list[str] = []
        self.away = False

    async def get(self, table: str, key: str) -> bytes | None:
        self.reads.append(table)
        if self.away:
            raise StoreUnavailableError("away")
        return await super().get(table, key)


def kit(**options: Any) -> tuple[Clock, Counting, Tokens, StoredTokenVerifier]:
    clock = Clock()
    store = Counting(clock)
    return (
        clock,
        store,
        Tokens(store, clock=clock),
        StoredTokenVerifier(store, clock=clock, **options),
    )


async def reported() -> None:
    """Wait until changes were reported, in the next turns of the loop."""
    for _ in range(3):
        await asyncio.sleep(0)


async def refusal(verify: StoredTokenVerifier, token: str) -> APIError:
    with pytest.raises(APIError) as caught:
        await verify(token)
    return caught.value


# ── issuing ──────────────────────────────────────────────────────────────────


async def test_a_token_is_shown_once_and_is_not_stored() -> None:
    _, store, tokens, _ = kit()
    secret, token = await tokens.issue(name="team-1")
    kept = b"".join((await store.rows("tokens")).values()).decode()
    assert secret not in kept
    assert secret[13:] not in kept + repr(token) + repr(tokens)
    assert token.id in secret


async def test_tokens_are_long_and_all_different() -> None:
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(secret) for secret in made} == {51}
    assert all(secret.startswith("sk-") and secret[3:].isalnum() for secret in made)
    assert len(set("".join(made))) >= 62


async def test_the_caller_with_a_token_is_the_one_it_was_issued_to() -> None:
    _, _, tokens, verify = kit()
    limits = Limits(rpm=60, budgets=(Budget.usd(25, "month"),))
    secret, token = await tokens.issue(
        name="team-1", models=("gpt-*",), networks=("10.0.0.0/8",), limits=limits, scopes=("read",)
    )
    assert await verify(secret) == Principal(
        token.id,
        "team-1",
        ("gpt-*",),
        limits=limits,
        networks=("10.0.0.0/8",),
        may_choose_key=False,
        scopes=("read",),
    )


async def test_text_similar_to_a_token_is_not_accepted() -> None:
    _, _, tokens, verify = kit()
    secret, token = await tokens.issue()
    other, _ = await tokens.issue()
    last = "a" if secret[-1] != "a" else "b"
    for wrong in (
        secret[:-1],
        secret[:-1] + last,
        secret + "a",
        secret.swapcase(),
        secret[:13] + other[13:],
        token.id,
        token.digest,
        new_secret(token.id),
        "sk-",
        "",
        "\ud800",
        "k" * 100_000,
    ):
        assert await verify(wrong) is None, wrong


async def test_tokens_of_another_system_can_be_used() -> None:
    _, _, tokens, verify = kit()
    mine = "my-own-secret-with-dashes-1234"
    shown, token = await tokens.issue(secret=mine, name="old")
    assert shown == mine
    assert (await verify(mine)) == Principal(token.id, "old", may_choose_key=False)
    assert await verify(mine + "5") is None
    with pytest.raises(RowExistsError):
        await tokens.issue(secret=mine)
    new, _ = await tokens.rotate(token.id, grace=10)
    assert (
        (await verify(new))
        == (await verify(mine))
        == Principal(token.id, "old", may_choose_key=False)
    )


BAD: list[tuple[Mapping[str, Any], str]] = [
    ({"colour": "red"}, "unknown field `colour`"),
    ({"expires": 12.0}, "in the future"),
    ({"expires": 1e14}, "in seconds"),
    ({"expires": "soon"}, "expires"),
    ({"enabled": "yes"}, "enabled"),
    ({"limits": {"rpm": 0}}, "rpm must be at least 1"),
    ({"limits": {"budgets": [{"limit": -5}]}}, "budget cannot be -5"),
    ({"limits": {"budgets": [{"limit": 5, "per": "year"}]}}, "year"),
    ({"limits": {"budgets": [{"limit": 5}, {"limit": 6}]}}, "two budgets"),
    ({"limits": {"budgets": [{"limit": 5, "shared": True}]}}, "the token's account"),
    ({"networks": ["10.0.0.0/99"]}, "10.0.0.0/99"),
    ({"models": [""]}, "empty"),
    ({"scopes": ["god"]}, "god"),
    ({"group": "unknown"}, "no group 'unknown'"),
    ({"account": "unknown"}, "no account 'unknown'"),
    ({"secret": "short"}, "at least 20"),
    ({"secret": "not printable \n" * 3}, "printable"),
]


@pytest.mark.parametrize(("fields", "words"), BAD)
async def test_an_invalid_token_is_reported_and_nothing_is_written(
    fields: Mapping[str, Any], words: str
) -> None:
    _, store, tokens, _ = kit()
    with pytest.raises(ConfigurationError, match=words):
        await tokens.issue(**fields)
    assert await store.rows("tokens") == {}
    _, token = await tokens.issue(name="before")
    if not {"secret", "account"} & set(fields):
        with pytest.raises(ConfigurationError, match=words):
            await tokens.edit(token.id, **fields)
    assert await tokens.get(token.id) == token


# ── changing ─────────────────────────────────────────────────────────────────


async def test_a_revoked_token_is_refused_at_once_and_everywhere() -> None:
    clock, store, tokens, verify = kit()
    elsewhere = StoredTokenVerifier(store, clock=clock)
    secret, token = await tokens.issue()
    assert (
        await verify(secret) == await elsewhere(secret) == Principal(token.id, may_choose_key=False)
    )
    await tokens.revoke(token.id)
    await reported()
    assert await verify(secret) is None
    assert await elsewhere(secret) is None
    with pytest.raises(NoSuchRowError):
        await tokens.revoke(token.id)


async def test_an_unknown_token_works_once_it_is_issued() -> None:
    _, _, tokens, verify = kit()
    secret = new_secret()
    assert await verify(secret) is None
    await tokens.issue(secret=secret)
    await reported()
    assert await verify(secret) is not None


async def test_edits_take_effect_and_fixed_fields_stay() -> None:
    _, _, tokens, verify = kit()
    secret, token = await tokens.issue(models=("a",))
    assert (await verify(secret)).models == ("a",)  # type: ignore[union-attr]
    edited = await tokens.edit(token.id, models=["b"], limits={"rpm": 5})
    assert (edited.models, edited.limits, edited.digest) == (("b",), Limits(rpm=5), token.digest)
    await reported()
    assert (await verify(secret)).models == ("b",)  # type: ignore[union-attr]
    for name in ("id", "digest", "created", "account", "old"):
        with pytest.raises(ConfigurationError, match=name):
            await tokens.edit(token.id, **{name: "x"})
    with pytest.raises(NoSuchRowError):
        await tokens.edit("unknown", name="x")


async def test_concurrent_edits_are_both_kept() -> None:
    _, _, tokens, _ = kit()
    _, token = await tokens.issue()
    await asyncio.gather(
        *(tokens.edit(token.id, **{name: value}) for name, value in EDITS.items()),
    )
    row = await tokens.get(token.id)
    assert {name: getattr(row, name) for name in EDITS} == EDITS


EDITS: dict[str, Any] = {
    "name": "n",
    "enabled": False,
    "models": ("a",),
    "networks": ("::1",),
    "limits": Limits(rpm=1),
    "may_choose_key": True,
}


async def test_disabled_expired_and_unknown_tokens_are_distinguished() -> None:
    clock, _, tokens, verify = kit()
    secret, token = await tokens.issue(expires=clock.now + 100)
    assert await verify(secret) is not None
    await tokens.edit(token.id, enabled=False)
    await reported()
    error = await refusal(verify, secret)
    assert (error.status, error.code) == (401, "api_key_disabled")
    assert "disabled" in error.message
    await tokens.edit(token.id, enabled=True)
    await reported()
    assert await verify(secret) is not None
    clock.now += 100  # known and cached, and still
    error = await refusal(verify, secret)
    assert (error.status, error.code) == (401, "api_key_expired")
    # Only who knows the secret learns how it is.
    assert await verify(new_secret(token.id)) is None


async def test_the_expiry_of_a_token_is_checked_with_every_request() -> None:
    clock, store, tokens, verify = kit()
    secret, _ = await tokens.issue(expires=clock.now + 1.5)
    for _ in range(3):
        assert await verify(secret) is not None
    reads = len(store.reads)
    clock.now += 1.5
    assert (await refusal(verify, secret)).code == "api_key_expired"
    assert len(store.reads) == reads


async def test_after_a_rotation_the_old_secret_is_accepted_for_the_grace_period_only() -> None:
    clock, _, tokens, verify = kit()
    first, token = await tokens.issue(name="t")
    second, _ = await tokens.rotate(token.id, grace=60)
    third, _ = await tokens.rotate(token.id, grace=60)
    for secret in (first, second, third):
        assert (await verify(secret)).id == token.id  # type: ignore[union-attr]
    assert len({first, second, third}) == 3
    clock.now += 60
    assert (await refusal(verify, first)).code == "api_key_expired"
    assert (await verify(third)).id == token.id  # type: ignore[union-attr]
    fourth, row = await tokens.rotate(token.id)
    await reported()
    assert row.retired_secrets == ()  # what is over is not kept
    assert await verify(third) is None
    assert await verify(fourth) is not None


async def test_tokens_are_listed_by_pages() -> None:
    _, _, tokens, _ = kit()
    made = sorted([(await tokens.issue())[1].id for _ in range(25)])
    seen: list[str] = []
    while page := await tokens.page(seen[-1] if seen else "", 10):
        assert len(page) <= 10
        seen += [token.id for token in page]
    assert seen == made


# ── pins, groups, accounts ───────────────────────────────────────────────────


async def test_a_token_with_permission_can_select_its_key() -> None:
    _, _, tokens, verify = kit()
    secret, token = await tokens.issue(may_choose_key=True)
    pinned = await verify(f"{secret}-team-a")
    assert pinned == Principal(token.id, key_id="team-a", may_choose_key=True)
    assert (await verify(secret)) == Principal(token.id, may_choose_key=True)
    other, _ = await tokens.issue()
    error = await refusal(verify, f"{other}-team-a")
    assert (error.kind, error.code) == (ErrorKind.FORBIDDEN, "key_not_allowed")
    foreign, row = await tokens.issue(secret="somebody-elses-secret-1", may_choose_key=True)
    assert await verify(f"{foreign}-key9") == Principal(row.id, key_id="key9", may_choose_key=True)


def test_a_token_with_several_readings_is_found_by_the_valid_one() -> None:
    secret = new_secret()
    assert [(at.id, at.key_id) for at in parse_token(secret)] == [(secret[3:13], "")]
    assert [(at.id, at.key_id) for at in parse_token(secret + "-k-1")] == [(secret[3:13], "k-1")]
    assert [at.key_id for at in parse_token("no-form-at-all")] == ["", "all"]
    assert [at.key_id for at in parse_token("plain")] == [""]


async def test_a_group_sets_prices_providers_and_keys() -> None:
    _, _, tokens, verify = kit()
    await tokens.groups.create(
        "vip", Group(name="vip", ratio=0.5, providers=("azure",), keys=("k-*",))
    )
    secret, _ = await tokens.issue(group="vip")
    found = await verify(secret)
    assert found is not None
    assert (found.group, found.price_ratio, found.keys) == ("vip", 0.5, ("k-*",))
    assert (found.may_use_provider("azure"), found.may_use_provider("openai")) == (True, False)
    await tokens.groups.edit("vip", lambda row: msgspec.structs.replace(row, ratio=2.0))
    await reported()
    assert (await verify(secret)).price_ratio == 2.0  # type: ignore[union-attr]
    await tokens.groups.drop("vip")
    await reported()
    assert (await refusal(verify, secret)).status == 401  # and not let in without its bounds


async def test_tokens_of_an_account_share_its_budgets() -> None:
    _, _, tokens, verify = kit()
    shared = Budget.usd(100, "month", shared=True)
    await tokens.accounts.create("acme", Account(id="acme", budgets=(shared,)))
    own = Budget.usd(5, "day")
    first, _ = await tokens.issue(account="acme", limits=Limits(budgets=(own,)))
    second, _ = await tokens.issue(account="acme")
    assert (await verify(first)).limits.budgets == (own, shared)  # type: ignore[union-attr]
    assert (await verify(second)).limits.budgets == (shared,)  # type: ignore[union-attr]
    await tokens.accounts.edit("acme", lambda row: msgspec.structs.replace(row, enabled=False))
    await reported()
    assert (await refusal(verify, first)).code == "account_disabled"


# ── what is remembered ───────────────────────────────────────────────────────


async def test_a_cached_caller_costs_no_call_of_the_store() -> None:
    clock, store, tokens, verify = kit(max_age=60)
    secret, _ = await tokens.issue()
    await verify(secret)
    store.reads.clear()
    for _ in range(100):
        await verify(secret)
    assert store.reads == []
    clock.now += 61
    await verify(secret)
    assert store.reads == ["tokens"]


async def test_while_the_store_is_unavailable_cached_callers_are_served() -> None:
    clock, store, tokens, verify = kit(max_age=60, stale=600)
    secret, token = await tokens.issue(expires=clock.now + 500)
    other, _ = await tokens.issue()
    await verify(secret)
    store.away = True
    clock.now += 300
    assert (await verify(secret)).id == token.id  # type: ignore[union-attr]
    error = await refusal(verify, other)
    assert (error.status, error.retry_after) == (503, 1.0)
    clock.now += 200
    assert (await refusal(verify, secret)).code == "api_key_expired"  # also now
    clock.now += 200
    assert (await refusal(verify, secret)).status == 503
    store.away = False
    assert await verify(other) is not None


async def test_the_cache_of_tokens_is_bounded() -> None:
    _, _, tokens, verify = kit()
    secret, _ = await tokens.issue()
    await verify(secret)
    for number in range(3000):
        assert await verify(f"wrong-{number}") is None
    assert len(verify._invalid) <= 1000
    assert len(verify._valid) == 1  # guessed tokens do not displace valid ones


async def test_stored_tokens_returns_a_verify_function_for_a_store() -> None:
    store = MemoryStore()
    secret, token = await Tokens(store).issue()
    found = await stored_tokens(store)(secret)
    assert found is not None
    assert found.id == token.id


def test_in_another_event_loop_changes_are_watched_again() -> None:
    store = MemoryStore()
    tokens, verify = Tokens(store), stored_tokens(store)

    async def issue() -> tuple[str, str]:
        secret, token = await tokens.issue()
        assert await verify(secret) is not None
        return secret, token.id

    async def revoke(secret: str, id: str) -> None:
        assert await verify(secret) is not None
        await tokens.revoke(id)
        await reported()
        assert await verify(secret) is None

    secret, id = asyncio.run(issue())
    asyncio.run(revoke(secret, id))


# ── addresses ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("networks", "address", "inside"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.1",), "10.0.0.1", True),
        (("10.0.0.1/8",), "10.9.9.9", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("fd00::/8",), "fd00::1%eth0", True),
        (("fd00::/8", "127.0.0.1"), "127.0.0.1", True),
        (("10.0.0.0/8",), None, False),
        (("0.0.0.0/0",), "unix:", False),
        (("0.0.0.0/0",), "::1", False),
    ],
)
def test_addresses_are_compared_with_ranges(
    networks: tuple[str, ...], address: str | None, inside: bool
) -> None:
    assert in_networks(networks, address) is inside


def test_a_token_is_unchanged_by_the_store() -> None:
    token = Token(id="a", digest="b")
    assert msgspec.json.encode(token) == b'{"id":"a","digest":"b"}'
    full = Token(id="a", digest="b", limits=Limits(rpm=1, budgets=(Budget.usd(1.5),)))
    assert msgspec.json.decode(msgspec.json.encode(full), type=Token) == full
    assert full.limits.budgets[0].limit == 1_500_000
