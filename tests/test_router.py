"""The provider selected for a model, and the router as an app."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError, KeyPool, OpenAIShim, ProviderRouter, Target
from asgi_aiproxy.dialects.model_lists import ListedModel
from asgi_aiproxy.model_list import ModelCatalog
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, GROQ, OPENAI, OPENROUTER, ModelOffer, Provider
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio

openai, anthropic = OPENAI.using("sk-1"), ANTHROPIC.using("sk-2")
groq, openrouter = GROQ.using("sk-3"), OPENROUTER.using("sk-4")


def names(router: ProviderRouter, model: str, provider: str = "") -> list[str]:
    """The targets of a model, in order."""
    return [f"{t.provider.name}:{t.model}" for t in router.targets(model, provider)]


# ── names ────────────────────────────────────────────────────────────────────

ROUTER = ProviderRouter(
    {
        "gpt-4o": openai,
        "gpt-*": groq,
        "gpt-4*": anthropic,
        "*-mini": openrouter,
        "fast": (groq, "llama-3.3-70b"),
        "fast-*": (groq, "one-for-all"),
        "smart": [(anthropic, "claude-opus"), openai],
        "meta/llama": (groq, "llama-3.1"),
        "openai/*-turbo": openrouter,
        "sonnet[1m]": anthropic,
        "a?c": openai,
    }
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", ["openai:gpt-4o"]),  # an exact name goes before patterns
        ("gpt-4.1", ["anthropic:gpt-4.1"]),  # more literal characters go first
        ("gpt-5", ["groq:gpt-5"]),
        ("gpt-4o-mini", ["anthropic:gpt-4o-mini"]),  # as many: the one given first
        ("o4-mini", ["openrouter:o4-mini"]),
        ("gpt-", ["groq:gpt-"]),
        ("GPT-5", []),
        ("fast", ["groq:llama-3.3-70b"]),  # an alias
        ("fast-whatever", ["groq:one-for-all"]),  # a pattern with a name of its own
        ("smart", ["anthropic:claude-opus", "openai:smart"]),  # in order
        ("sonnet[1m]", ["anthropic:sonnet[1m]"]),
        ("sonnet1", []),
        ("abc", ["openai:abc"]),
        ("abbc", []),
        ("", []),
        # provider/model
        ("openai/gpt-5", ["openai:gpt-5"]),
        ("anthropic/claude", ["anthropic:claude"]),
        ("meta/llama", ["groq:llama-3.1"]),  # an exact name with a slash
        ("groq/meta/llama", ["groq:meta/llama"]),
        ("groq/groq/compound", ["groq:groq/compound"]),  # a vendor's own prefix, kept
        ("openrouter/openrouter/auto", ["openrouter:openrouter/auto"]),
        ("openai/gpt-4-turbo", ["openrouter:openai/gpt-4-turbo"]),  # a pattern spells out the slash
        ("openai/o4-mini", ["openai:o4-mini"]),  # a mere star does not mean a slash
        ("nobody/gpt-5", []),
        ("openai/", []),
        ("/gpt-5", []),
    ],
)
def test_targets_are_found_by_name(model: str, expected: list[str]) -> None:
    assert names(ROUTER, model) == expected


def test_a_single_star_matches_all_names_without_a_provider() -> None:
    router = ProviderRouter({"*": openai}, providers=[groq])
    assert names(router, "anything/at/all") == ["openai:anything/at/all"]
    assert names(router, "groq/llama") == ["groq:llama"]


def test_patterns_with_more_literal_characters_have_precedence() -> None:
    router = ProviderRouter({"*": openai, "*a*": groq, "?????????": anthropic, "*ab": openrouter})
    assert names(router, "xxab") == ["openrouter:xxab"]
    assert names(router, "xxa") == ["groq:xxa"]
    assert names(router, "x") == ["openai:x"]


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("gpt-4o", "groq", ["groq:gpt-4o"]),
        ("gpt-4o", "openai", ["openai:gpt-4o"]),
        ("smart", "anthropic", ["anthropic:claude-opus"]),  # the alias is the provider's own
        ("smart", "openai", ["openai:smart"]),
        ("smart", "groq", ["groq:smart"]),
        ("groq/compound", "groq", ["groq:compound"]),
        ("openai/gpt-5", "groq", ["groq:openai/gpt-5"]),
        ("unheard-of", "groq", ["groq:unheard-of"]),
        ("gpt-4o", "nobody", []),
    ],
)
def test_a_caller_may_select_a_provider(model: str, provider: str, expected: list[str]) -> None:
    assert names(ROUTER, model, provider) == expected


def test_a_provider_is_the_simplest_router() -> None:
    assert names(openai, "gpt-5") == ["openai:gpt-5"]  # type: ignore[arg-type]
    assert names(openai, "openai/gpt-5") == ["openai:gpt-5"]  # type: ignore[arg-type]
    assert names(openai, "gpt-5", "openai") == ["openai:gpt-5"]  # type: ignore[arg-type]
    assert names(openai, "gpt-5", "groq") == []  # type: ignore[arg-type]
    assert openai.models() == ()
    assert openai.model_offers() == (ModelOffer(openai),)


# ── order ────────────────────────────────────────────────────────────────────


def drawn(router: ProviderRouter, model: str, times: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(t.provider.name for t in router.targets(model)) for _ in range(times))


def test_targets_of_one_priority_share_the_load_by_weight() -> None:
    router = ProviderRouter(
        {"m": [Target(openai, "a", weight=6), Target(groq, "b", weight=3), Target(anthropic, "c")]},
        random=random.Random(1),
    )
    orders = drawn(router, "m", 10_000)
    firsts: Counter[str] = Counter()
    for order, count in orders.items():
        assert sorted(order) == ["anthropic", "groq", "openai"]
        firsts[order[0]] += count
    assert 5800 < firsts["openai"] < 6200
    assert 2800 < firsts["groq"] < 3200
    assert 850 < firsts["anthropic"] < 1150
    # The second target is drawn by weight, too.
    second = orders["openai", "groq", "anthropic"] / firsts["openai"]
    assert 0.7 < second < 0.8


def test_selecting_a_provider_keeps_the_order_of_its_targets() -> None:
    late, early = Target(openai, "late", priority=1), Target(openai, "early")
    router = ProviderRouter({"m": [late, Target(groq, "x"), early]})
    assert names(router, "m", "openai") == ["openai:early", "openai:late"]


def test_lower_priority_numbers_are_first_and_lists_are_ordered() -> None:
    mixed = [
        Target(openrouter, "x", priority=5),
        Target(openai, "x", weight=1),
        Target(anthropic, "x", weight=1),
        (groq, "x"),  # the fourth of a list
    ]
    router = ProviderRouter({"m": mixed}, random=random.Random(1))
    assert set(drawn(router, "m", 200)) == {
        ("openai", "anthropic", "groq", "openrouter"),
        ("anthropic", "openai", "groq", "openrouter"),
    }
    router = ProviderRouter({"m": [groq, openai, anthropic], "p*": (groq, openai)})
    assert set(drawn(router, "m", 50)) == {("groq", "openai", "anthropic")}
    assert set(drawn(router, "pq", 50)) == {("groq", "openai")}


@pytest.mark.parametrize("name", ["fast", "f*"])
@pytest.mark.parametrize("route", [Target(openai, ""), (openai, ""), openai])
def test_a_target_without_a_model_gets_the_requested_name(name: str, route: Any) -> None:
    assert names(ProviderRouter({name: route}), "fast") == ["openai:fast"]


GOOGLE = Provider(name="google", dialect=GEMINI.dialect, base_url="https://g.example")


@pytest.mark.parametrize(
    ("routes", "model", "expected"),
    [
        ({"gemini-*": GOOGLE}, "models/gemini-x", ["google:gemini-x"]),
        ({"gemini-*": GOOGLE, "*": openai}, "models/gemini-x", ["google:gemini-x"]),
        ({"*": GOOGLE}, "models/gemini-x", ["google:gemini-x"]),
        ({"*": GOOGLE}, "google/models/gemini-x", ["google:gemini-x"]),
        ({"fast": (GOOGLE, "gemini-x")}, "models/fast", ["google:gemini-x"]),
        # A name that others give their models stays as it is.
        ({"gemini-*": GOOGLE, "*": openai}, "models/7B.gguf", ["openai:models/7B.gguf"]),
        ({"models/*": openai, "7B*": groq}, "models/7B.gguf", ["openai:models/7B.gguf"]),
        ({"models/7B": openai, "7B": groq}, "models/7B", ["openai:models/7B"]),
        ({"gemini-*": GOOGLE}, "models/gpt", []),
        ({"gemini-*": GOOGLE}, "models/", []),
    ],
)
def test_a_model_may_be_requested_by_the_name_in_googles_lists(
    routes: Any, model: str, expected: list[str]
) -> None:
    assert names(ProviderRouter(routes), model) == expected


def test_a_provider_as_router_accepts_the_names_of_googles_lists() -> None:
    assert [target.model for target in GOOGLE.targets("models/gemini-x")] == ["gemini-x"]
    assert [target.model for target in openai.targets("models/7B.gguf")] == ["models/7B.gguf"]


async def test_the_next_target_serves_when_the_first_fails() -> None:
    upstream = Upstream(refuses(500), answers())
    router = ProviderRouter({"m": [(openai, "first"), (groq, "second")]})
    answer = await asgi.chat(OpenAIShim(router, transport=upstream.transport))
    assert answer.header("aiproxy-provider") == "groq"
    assert [body["model"] for body in upstream.bodies] == ["first", "second"]


# ── what there is ────────────────────────────────────────────────────────────


def test_exact_names_are_listed_and_patterns_are_offered() -> None:
    router = ProviderRouter(
        {"gpt-4o": openai, "fast": (groq, "llama"), "claude-*": anthropic, "x-*": (openai, "x")},
        providers=[openrouter],
    )
    assert router.models() == ["gpt-4o", "fast"]
    assert router.model_offers() == [
        ModelOffer(anthropic, "claude-*"),
        ModelOffer(openrouter, prefix="openrouter/"),
    ]
    assert list(router.providers) == ["openrouter", "openai", "groq", "anthropic"]


def listing(*ids: str) -> Any:
    return answers(json.dumps({"data": [{"id": id} for id in ids]}).encode())


async def listed(app: Any) -> list[str]:
    answer = await asgi.request(app, "GET", "/v1/models")
    return [model["id"] for model in answer.json["data"]]


async def test_every_listed_model_can_be_requested_by_that_name() -> None:
    upstream = Upstream(listing("auto", "openrouter/auto", "openai/gpt-4o", "plain"), answers())
    router = ProviderRouter({"*": openrouter}, providers=[openai])
    app = OpenAIShim(router, transport=upstream.transport)
    found = await listed(app)
    assert found[:4] == [
        "auto",
        "openrouter/openrouter/auto",
        "openrouter/openai/gpt-4o",
        "plain",
    ]
    requested = []
    for name in found[:4]:
        await asgi.chat(app, model=name)
        requested.append(upstream.bodies[-1]["model"])
    assert requested == ["auto", "openrouter/auto", "openai/gpt-4o", "plain"]
    assert all(request.url.host == "openrouter.ai" for request in upstream.requests[-4:])


async def test_the_model_list_is_requested_also_if_all_keys_are_for_some_models_only() -> None:
    from asgi_aiproxy.keys import Key

    upstream = Upstream(listing("gpt-4o"))
    provider = OPENAI.using(Key("sk", models=("gpt-*",)))
    assert await listed(OpenAIShim(provider, transport=upstream.transport)) == ["gpt-4o"]
    assert [key.in_flight for key in await provider.keys.status()] == [0]  # type: ignore[union-attr]


async def test_a_model_list_is_cached_and_requested_again_soon_after_a_failure() -> None:
    now = [0.0]
    upstream = Upstream(refuses(500), refuses(500), listing("a"), listing("b"))
    models = ModelCatalog(upstream.transport, clock=lambda: now[0])
    assert await models.models(openai) == []
    assert await models.models(openai) == []
    assert len(upstream.requests) == 1
    now[0] += 16
    assert await models.models(openai) == []
    now[0] += 16
    assert await models.models(openai) == [ListedModel("a", "openai")]
    now[0] += 290
    assert await models.models(openai) == [ListedModel("a", "openai")]
    assert len(upstream.requests) == 3
    now[0] += 11
    assert await models.models(openai) == [ListedModel("b", "openai")]


async def test_an_outdated_list_is_used_if_the_request_fails() -> None:
    now = [0.0]
    upstream = Upstream(listing("a"), refuses(500))
    models = ModelCatalog(upstream.transport, clock=lambda: now[0])
    await models.models(openai)
    now[0] += 1000
    assert await models.models(openai) == [ListedModel("a", "openai")]


async def test_a_catalogue_replaces_the_request_for_a_list() -> None:
    upstream = Upstream(refuses(500))
    provider = OPENAI.using("sk", catalogue=("x", "y"))
    assert await listed(OpenAIShim(provider, transport=upstream.transport)) == ["x", "y"]
    assert upstream.requests == []


# ── mistakes ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ProviderRouter({"m": []}), "'m' is empty"),
        (lambda: ProviderRouter({"m": ()}), "'m' is empty"),
        (lambda: ProviderRouter({"m": None}), "expected a provider.* got NoneType"),  # type: ignore[dict-item]
        (lambda: ProviderRouter({"m": "openai"}), "got str"),  # type: ignore[dict-item]
        (lambda: ProviderRouter({"m": [openai, "groq"]}), "got str"),  # type: ignore[list-item]
        (lambda: ProviderRouter({"m": (openai, 5)}), "got int"),  # type: ignore[dict-item]
        (lambda: ProviderRouter({"m": ("openai", "x")}), "got tuple"),  # type: ignore[dict-item]
        (lambda: ProviderRouter(openai), "takes a mapping .* not Provider"),  # type: ignore[arg-type]
        (lambda: ProviderRouter([openai]), "takes a mapping .* not list"),  # type: ignore[arg-type]
        (lambda: ProviderRouter(providers={"x": openai}), "got str"),  # type: ignore[arg-type]
        (lambda: ProviderRouter({"m": openai}, keepalife=3), "no option 'keepalife'.*keepalive"),
        (lambda: Target(openai, "m", weight=0), "weight must be at least 1"),
    ],
)
def test_a_mistake_is_reported_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_two_different_providers_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match=r"named 'openai'.*using\(\.\.\., name="):
        ProviderRouter({"a": OPENAI.using("sk-1"), "b": OPENAI.using("sk-2")})
    with pytest.raises(ConfigurationError, match="named 'openai'"):
        ProviderRouter({"a": openai}, providers=[OPENAI])
    second = OPENAI.using("sk-2", name="openai-2")
    router = ProviderRouter({"a": openai, "b": second, "c": openai}, providers=[openai])
    assert names(router, "openai-2/x") == ["openai-2:x"]


def test_a_repr_has_the_contents_and_no_secret() -> None:
    assert repr(ProviderRouter()) == "ProviderRouter(0 names, 0 patterns, providers: none)"
    assert repr(ROUTER).startswith("ProviderRouter(5 names, 6 patterns, providers: openai, groq,")
    assert "sk-" not in repr([ROUTER, *ROUTER.providers.values(), ROUTER.targets("smart")])


# ── as an app ────────────────────────────────────────────────────────────────

ANTHROPIC_ANSWER = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":'
    b'[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":'
    b'{"input_tokens":1,"output_tokens":1}}'
)
GEMINI_ANSWER = (
    b'{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}],'
    b'"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1,"totalTokenCount":2}}'
)


def served_by(upstream: Upstream) -> ProviderRouter:
    gemini = GEMINI.using("sk-5")
    routes = {"gpt-*": openai, "claude-*": anthropic, "gemini-*": gemini}
    named = OPENAI.using("sk-6", name="my own")
    return ProviderRouter(routes, providers=[groq, named], transport=upstream.transport)


async def test_below_its_name_each_provider_serves_openais_format() -> None:
    upstream = Upstream(answers())
    app = served_by(upstream)
    for name, host in [("openai", "api.openai.com"), ("groq", "api.groq.com")]:
        answer = await asgi.chat(app, f"/{name}/v1/chat/completions", model="any")
        assert answer.json["choices"][0]["message"]["content"] == "Hello"
        assert upstream.requests[-1].url.host == host
        assert upstream.bodies[-1]["model"] == "any"
    assert (await asgi.chat(app, "/my%20own/v1/chat/completions")).status == 200
    assert upstream.keys[-1] == "sk-6"


async def test_below_its_name_a_provider_serves_its_own_api_byte_for_byte() -> None:
    upstream = Upstream(answers(ANTHROPIC_ANSWER))
    app = served_by(upstream)
    body = {"model": "claude-x", "max_tokens": 5, "messages": [], "brand_new": {"a": 1}}
    headers = {"anthropic-version": "2099-01-01", "anthropic-beta": "b-1", "x-api-key": "caller"}
    answer = await asgi.request(app, "POST", "/anthropic/v1/messages", body, headers=headers)
    assert answer.body == ANTHROPIC_ANSWER
    (request,) = upstream.requests
    assert str(request.url) == "https://api.anthropic.com/v1/messages"
    assert upstream.bodies == [body]
    # The caller's version, once, and our key.
    assert request.headers.get_list("anthropic-version") == ["2099-01-01"]
    assert request.headers["anthropic-beta"] == "b-1"
    assert request.headers.get_list("x-api-key") == ["sk-2"]

    upstream = Upstream(answers(GEMINI_ANSWER))
    app = served_by(upstream)
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    path = "/gemini/v1beta/models/gemini-2.5-pro:generateContent"
    answer = await asgi.request(app, "POST", path, body)
    assert answer.body == GEMINI_ANSWER
    assert upstream.requests[0].url.path == "/v1beta/models/gemini-2.5-pro:generateContent"
    assert upstream.requests[0].headers["x-goog-api-key"] == "sk-5"


async def test_a_providers_own_api_also_streams() -> None:
    chunk = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},'
    upstream = Upstream(streams(chunk + b'"finishReason":"STOP"}]}\n\n'))
    path = "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    answer = await asgi.request(served_by(upstream), "POST", path, {"contents": []})
    assert answer.events[0]["candidates"][0]["content"]["parts"] == [{"text": "Hi"}]
    assert upstream.requests[0].url.params["alt"] == "sse"


@pytest.mark.parametrize(
    "path",
    ["/", "", "/nobody/v1/models", "/v1/models", "//openai/v1/models", "/OPENAI/v1/models", "*"],
)
async def test_a_path_without_a_provider_is_a_404_in_openais_format(path: str) -> None:
    upstream = Upstream(answers())
    scope = asgi.scope_of("GET", path)
    async with asgi.Exchange(served_by(upstream), scope) as exchange:
        answer = await exchange.answer()
    assert answer.status == 404
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    assert "/openai/" in error["message"]
    assert upstream.requests == []


async def test_an_unknown_path_below_a_provider_is_a_404_too() -> None:
    app = served_by(Upstream(answers()))
    for path in ("/openai", "/openai/", "/openai/v1/nothing", "/openai/openai/v1/models"):
        answer = await asgi.request(app, "GET", path)
        assert answer.status == 404
        assert answer.json["error"]["type"] == "invalid_request_error"


async def test_paths_of_no_client_api_are_the_providers_own_api() -> None:
    upstream = Upstream(answers(b'{"data":[]}'))
    app = served_by(upstream)
    for method, path, url in [
        (
            "GET",
            "/openai/v1/chat/completions?limit=1",
            "https://api.openai.com/v1/chat/completions?limit=1",
        ),
        ("GET", "/openai/v1/files", "https://api.openai.com/v1/files"),
        ("POST", "/anthropic/v1/messages/batches", "https://api.anthropic.com/v1/messages/batches"),
        (
            "GET",
            "/gemini/v1beta/files/x%2Fy",
            "https://generativelanguage.googleapis.com/v1beta/files/x%2Fy",
        ),
    ]:
        answer = await asgi.request(app, method, path, headers={"authorization": "Bearer caller"})
        assert answer.body == b'{"data":[]}'
        request = upstream.requests[-1]
        assert (request.method, str(request.url)) == (method, url)
        assert "caller" not in str(request.headers)
    answer = await asgi.request(app, "GET", "/openai/v1/organization/admin_api_keys")
    assert answer.status == 404
    assert len(upstream.requests) == 4


async def test_the_served_paths_of_the_providers_own_api_can_be_configured() -> None:
    upstream = Upstream(answers(b"{}"))
    router = ProviderRouter({"m": openai}, paths=(), transport=upstream.transport)
    assert (await asgi.request(router, "GET", "/openai/v1/files")).status == 404
    assert (await asgi.chat(router, "/openai/v1/chat/completions")).status != 404
    router = ProviderRouter({"m": openai}, paths="all", transport=upstream.transport)
    assert (await asgi.request(router, "GET", "/openai/v1/organization/x")).status == 200


@pytest.mark.parametrize("root_path", ["/ai", "/api/ai", "/ai/"])
async def test_a_router_works_below_a_mount(root_path: str) -> None:
    upstream = Upstream(answers())
    app = served_by(upstream)
    path = "/ai/openai/v1/chat/completions"
    assert (await asgi.chat(app, path, root_path=root_path)).status == 200
    # Litestar hides the mount, and adds a slash.
    scope = asgi.scope_of("POST", path)
    scope["path"] = "/openai/v1/chat/completions/"
    async with asgi.Exchange(app, scope) as exchange:
        exchange.send_body(b'{"model":"m","messages":[]}')
        assert (await exchange.answer()).status == 200
    answer = await asgi.chat(app, "/aix/openai/v1/chat/completions", root_path="/ai")
    assert answer.status == 404


async def test_a_websocket_without_a_route_is_refused_and_unknown_scopes_are_ignored() -> None:
    app = served_by(Upstream(answers()))
    scope = {"type": "websocket", "path": "/nobody/v1/realtime", "headers": []}
    async with asgi.Exchange(app, scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["type"] == "websocket.close"
        await exchange.ended()
    async with asgi.Exchange(app, {"type": "mystery"}) as exchange:
        await exchange.ended()


class Closable:
    """A transport that counts how often it is closed."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.closed = 0
        self.breaks = breaks

    async def aclose(self) -> None:
        self.closed += 1
        if self.breaks:
            raise OSError("no")


async def test_lifespan_closes_what_the_router_opened_even_if_one_fails() -> None:
    router = ProviderRouter({"a": openai, "b": groq, "c": anthropic})
    owned = []
    async with asgi.lifespan(router):
        for name in router.providers:
            shim = router._shim(name)
            shim._own_transport = Closable()  # type: ignore[assignment]
            owned.append(shim._own_transport)
        assert [each.closed for each in owned] == [0, 0, 0]  # type: ignore[union-attr]
    assert [each.closed for each in owned] == [1, 1, 1]  # type: ignore[union-attr]

    async def broken() -> None:
        async with router:
            owned[2].breaks = True  # type: ignore[union-attr]

    with pytest.raises(OSError, match="no"):
        await broken()
    assert [each.closed for each in owned] == [2, 2, 2]  # type: ignore[union-attr]


async def test_without_lifespan_it_serves_just_as_well() -> None:
    upstream = Upstream(answers())
    app = served_by(upstream)
    for _ in range(2):
        assert (await asgi.chat(app, "/openai/v1/chat/completions")).status == 200


async def test_one_router_serves_a_shim_and_itself_with_the_same_keys() -> None:
    upstream = Upstream(answers())
    keys = KeyPool(["sk-1", "sk-2"])
    provider: Provider = OPENAI.using(keys)
    router = ProviderRouter({"m": provider}, transport=upstream.transport)
    await asgi.chat(OpenAIShim(router, transport=upstream.transport))
    await asgi.chat(router, "/openai/v1/chat/completions")
    assert upstream.keys == ["sk-1", "sk-2"]
