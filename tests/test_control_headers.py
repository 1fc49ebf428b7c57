"""The headers with which callers control the gateway: two names each, and never sent on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy import InjectKey, Key, KeyPool, OpenAIShim, PassthroughProxy, ProviderRouter
from asgi_aiproxy._control_headers import EARLIER_NAMES, KEY, PROVIDER, PROVIDER_KEY, SESSION
from asgi_aiproxy.providers import GROQ, OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
NAMES = [pytest.param(pair, id=pair[0]) for pair in EARLIER_NAMES.items()]


def keys() -> KeyPool:
    return KeyPool([Key(f"sk-{n}", id=str(n)) for n in range(1, 6)], name="openai")


def shim(upstream: Upstream) -> Any:
    router = ProviderRouter({"m": [OPENAI.using(keys()), GROQ.using("sk-groq")]})
    return OpenAIShim(router, transport=upstream.transport, allow_client_keys=True)


def proxy(upstream: Upstream) -> Any:
    return PassthroughProxy(
        OPENAI.using(keys()), transport=upstream.transport, allow_client_keys=True
    )


def injected(upstream: Upstream) -> Any:
    vendor = PassthroughProxy("https://vendor.example", transport=upstream.transport)
    return InjectKey(vendor, pool=keys())


APPS = [pytest.param(app, id=app.__name__) for app in (shim, proxy, injected)]
App = Callable[[Upstream], Any]


async def call(app: Any, **headers: str) -> asgi.Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent |= {"content-type": "application/json", "content-length": str(len(BODY))}
    return await asgi.request(app, "POST", "/v1/chat/completions", BODY, headers=sent)


@pytest.mark.parametrize("make", APPS)
@pytest.mark.parametrize("name", [KEY, EARLIER_NAMES[KEY]])
async def test_a_caller_names_the_key_by_either_name(make: App, name: str) -> None:
    upstream = Upstream(answers())
    app = make(upstream)
    for id in ("4", "2"):
        answer = await call(app, **{name: id})
        assert answer.status == 200
        assert upstream.keys[-1] == f"sk-{id}"
        assert [answer.header(each) for each in (KEY, EARLIER_NAMES[KEY])] == [id, id]


@pytest.mark.parametrize("make", APPS)
async def test_equal_sessions_get_the_same_key_by_either_name(make: App) -> None:
    upstream = Upstream(answers())
    app = make(upstream)
    for session in map(str, range(8)):
        await call(app, **{SESSION: session})
        await call(app, **{EARLIER_NAMES[SESSION]: session})
        assert upstream.keys[-1] == upstream.keys[-2]
    assert len(set(upstream.keys)) > 1


@pytest.mark.parametrize("name", [PROVIDER, EARLIER_NAMES[PROVIDER]])
async def test_a_caller_names_the_provider_by_either_name(name: str) -> None:
    upstream = Upstream(answers())
    answer = await call(shim(upstream), **{name: "groq"})
    assert answer.header("aiproxy-provider") == "groq"
    assert upstream.keys == ["sk-groq"]


@pytest.mark.parametrize("make", [shim, proxy])
@pytest.mark.parametrize("name", [PROVIDER_KEY, EARLIER_NAMES[PROVIDER_KEY]])
async def test_a_caller_brings_its_own_key_by_either_name(make: App, name: str) -> None:
    upstream = Upstream(answers())
    answer = await call(make(upstream), **{name: "sk-mine"})
    assert answer.status == 200
    assert upstream.keys == ["sk-mine"]


@pytest.mark.parametrize("make", APPS)
async def test_no_vendor_is_sent_a_control_header(make: App) -> None:
    upstream = Upstream(answers())
    app = make(upstream)
    values = {KEY: "1", SESSION: "s", PROVIDER: "openai", PROVIDER_KEY: "sk-mine"}
    for written in ({name: name for name in values}, EARLIER_NAMES):
        answer = await call(app, **{written[name]: value for name, value in values.items()})
        assert answer.status == 200
        sent = set(upstream.requests[-1].headers)
        assert not sent & {*EARLIER_NAMES, *EARLIER_NAMES.values()}


def reads(make: App, name: str) -> bool:
    """Whether an app uses the header at all."""
    return make is shim or name in (KEY, SESSION) or (make is proxy and name == PROVIDER_KEY)


@pytest.mark.parametrize("make", APPS)
@pytest.mark.parametrize("pair", NAMES)
async def test_two_values_are_refused_with_400_and_equal_ones_are_one(
    make: App, pair: tuple[str, str]
) -> None:
    name, earlier = pair
    if not reads(make, name):
        pytest.skip("this app does not read it")
    upstream = Upstream(answers())
    app = make(upstream)
    value = {KEY: "2", PROVIDER: "openai"}.get(name, "a-secret-value")
    answer = await call(app, **{name: value, earlier: f"{value}-other"})
    assert answer.status == 400
    error = answer.json["error"]
    assert error["code"] == "conflicting_headers"
    assert repr(name) in error["message"]
    assert repr(earlier) in error["message"]
    assert value not in error["message"] or len(value) == 1  # it may be a secret
    assert upstream.requests == []
    assert (await call(app, **{name: value, earlier: value})).status == 200
