"""The app that results from a configuration file and the environment."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from asgi_aiproxy import AIShim, Authenticate, ConfigurationError, ProviderRouter
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.config.factory import Gateway
from asgi_aiproxy.config.settings import Settings, build, load
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.providers.catalog import ROWS
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

DESIGN = """
# aiproxy.toml
redis_url = "redis://127.0.0.1:6379/0"      # absent: memory
admin_token = "env:AIPROXY_ADMIN"

[providers.anthropic]                        # a row of the catalogue by its name, or kind = "..."
base_url = "http://127.0.0.1:9100"           # optional: a mirror, a mock
keys = [{ id = "1001", secret = "env:ANTHROPIC_KEY", weight = 2, rpm = 50 }, "sk-plain"]

[providers.my-vllm]
kind = "openai-compatible"
base_url = "http://127.0.0.1:8000/v1"

[routes]                                     # model pattern -> targets in order
"claude-*" = ["anthropic"]
"gpt-4o" = ["openai", "anthropic/claude-sonnet-4-5"]

[[tokens]]
token = "env:TEAM_TOKEN"
name = "team-1"
models = ["claude-*"]
budget_usd = 25.0
"""


def shim_of(app: Any) -> AIShim:
    """Return the shim inside all middlewares."""
    while not isinstance(app, AIShim):
        app = app.app
    return app


def built(text: str) -> AIShim:
    return shim_of(build(Settings(**tomllib.loads(text))))


def router_of(text: str) -> ProviderRouter:
    router = built(text)._relay.router
    assert isinstance(router, ProviderRouter)
    return router


async def test_a_configuration_with_everything_common_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIPROXY_ADMIN", "ANTHROPIC_KEY", "TEAM_TOKEN"):
        monkeypatch.setenv(name, f"value-of-{name}")
    path = tmp_path / "aiproxy.toml"
    path.write_text(DESIGN, "utf-8")
    app = build(load(path))
    assert isinstance(app, Gateway)
    assert isinstance(app.app, Authenticate)
    assert isinstance(app.admin, AdminApp)
    router = shim_of(app)._relay.router
    assert isinstance(router, ProviderRouter)
    anthropic = router.providers["anthropic"]
    assert anthropic.base_url == "http://127.0.0.1:9100"
    assert anthropic.auth is not OPENAI.auth
    keys = dict(anthropic.keys.keys)
    assert (keys["1001"].secret, keys["1001"].weight, keys["1001"].rpm) == (
        "value-of-ANTHROPIC_KEY", 2, 50,
    )  # fmt: skip
    assert len(keys) == 2
    assert router.providers["my-vllm"].strict_format is False
    wanted = [f"{t.provider.name}:{t.model}" for t in router.targets("gpt-4o")]
    assert wanted == ["openai:gpt-4o", "anthropic:claude-sonnet-4-5"]
    headers = {"authorization": "Bearer value-of-TEAM_TOKEN"}
    assert (await asgi.request(app, "GET", "/v1/models")).status == 401
    answer = await asgi.chat(app, model="gpt-4o", headers=headers)
    assert answer.status == 403


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_provider_of_the_catalogue_is_found_by_its_name(row: Any) -> None:
    router = router_of(f'[providers.{row.name}]\nkeys = ["sk-1"]')
    provider = router.providers[row.name]
    assert (provider.base_url, provider.dialect, provider.native_operations) == (
        row.base_url, row.dialect, row.native_operations,
    )  # fmt: skip
    other = router_of(f'[providers.other]\nkind = "{row.name}"\nkeys = ["sk-1"]')
    assert other.providers["other"].base_url == row.base_url
    assert other.providers["other"].keys.name == "other"  # type: ignore[union-attr]


def test_azure_and_compatible_servers_take_their_base_url() -> None:
    router = router_of("""
        [providers.azure]
        base_url = "https://a.openai.azure.com/openai/v1/"
        keys = ["k"]
        [providers.old]
        kind = "azure"
        base_url = "https://b.openai.azure.com"
        api_version = "2024-10-21"
        [providers.mine]
        kind = "openai-compatible"
        base_url = "http://127.0.0.1:1/v1"
        strict_format = true
    """)
    assert router.providers["azure"].base_url == "https://a.openai.azure.com"
    assert router.providers["old"].base_url == "https://b.openai.azure.com"
    assert router.providers["mine"].strict_format is True


def test_platforms_take_their_region_and_project(tmp_path: Path) -> None:
    account = tmp_path / "account.json"
    account.write_text('{\n  "type": "service_account"\n}\n')
    router = router_of(f"""
        [providers.bedrock]
        region = "eu-west-1"
        keys = ["credential-chain"]
        [providers.claude]
        kind = "bedrock-anthropic"
        base_url = "https://bedrock-runtime.us-east-1.amazonaws.com"
        [providers.vertex]
        project = "p"
        region = "europe-west1"
        keys = ["file:{account}"]
    """)
    found = {name: provider.base_url for name, provider in router.providers.items()}
    assert found == {
        "bedrock": "https://bedrock-runtime.eu-west-1.amazonaws.com",
        "claude": "https://bedrock-runtime.us-east-1.amazonaws.com",
        "vertex": "https://europe-west1-aiplatform.googleapis.com",
    }
    assert router.providers["vertex"].keys is not None


def test_every_setting_of_a_provider_and_a_key_takes_effect() -> None:
    app = built("""
        attempts = 7
        max_body = 1000
        keepalive = 0
        strict = true
        allow_client_keys = true
        proxy = "http://user:pass@proxy:3128"
        log_usage = false
        [timeouts]
        first = 5
        [providers.openai]
        base_url = "https://mirror.example/v1/"
        strategy = "fill_first"
        cooldown = 5
        max_key_wait = 1.5
        models = ["gpt-4o"]
        proxy = "socks5://proxy:1080"
        strict_format = false
        [providers.openai.headers]
        OpenAI-Organization = "org-1"
        [[providers.openai.keys]]
        secret = "sk-1"
        id = "one"
        weight = 2
        priority = 3
        models = ["gpt-*"]
        rpm = 4
        tpm = 5
        concurrency = 6
        proxy = "http://other:1"
        base_url = "https://key.example/v1"
    """)
    provider = app._relay.router.providers["openai"]  # type: ignore[attr-defined]
    assert provider.catalogue == ("gpt-4o",)
    assert provider.headers == {"OpenAI-Organization": "org-1"}
    assert (provider.proxy, provider.strict_format) == ("socks5://proxy:1080", False)
    (key,) = provider.keys.keys.values()
    assert (key.secret, key.id, key.weight, key.priority) == ("sk-1", "one", 2, 3)
    assert (key.models, key.rpm, key.tpm, key.concurrency) == (("gpt-*",), 4, 5, 6)
    assert (key.proxy, key.base_url) == ("http://other:1", "https://key.example/v1")
    assert (app._relay.attempts, app._relay.strict, app._max_body) == (7, True, 1000)
    assert (app._keepalive, app._allow_client_keys, app._relay.timeouts.first) == (0, True, 5)


def test_a_single_provider_without_routes_serves_every_model() -> None:
    router = router_of('[providers.openai]\nkeys = "sk-1"')
    assert [t.model for t in router.targets("any/thing")] == ["any/thing"]
    two = router_of('[providers.openai]\nkeys = "sk-1"\n[providers.groq]\nkeys = "sk-2"')
    assert two.targets("gpt-4o") == ()
    assert [t.provider.name for t in two.targets("groq/x")] == ["groq"]


def test_routes_give_an_order_or_share_the_load() -> None:
    router = router_of("""
        [providers.openai]
        [providers.groq]
        [routes]
        "one" = "openai"
        "order" = ["groq/llama", "openai"]
        "share" = [{ target = "openai/a", weight = 3 }, { target = "groq/b" }]
        "last" = [{ target = "openai", priority = 9 }, "groq"]
        "p-*" = [{ target = "groq" }]
        "q-*" = ["groq/fixed"]
    """)

    def of(model: str) -> list[tuple[str, str, int, int]]:
        return sorted(
            (t.provider.name, t.model, t.weight, t.priority) for t in router.targets(model)
        )

    assert of("one") == [("openai", "one", 1, 0)]
    assert of("order") == [("groq", "llama", 1, 0), ("openai", "order", 1, 1)]
    assert of("share") == [("groq", "b", 1, 0), ("openai", "a", 3, 0)]
    assert of("last") == [("groq", "last", 1, 1), ("openai", "last", 1, 9)]
    assert of("p-1") == [("groq", "p-1", 1, 0)]
    assert of("q-1") == [("groq", "fixed", 1, 0)]


def test_a_provider_of_another_package_is_found_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acme = OPENAI.using(name="acme", base_url="https://acme.example/v1")

    class Entry:
        name, value = "acme", "acme_ai:ACME"

        def load(self) -> Any:
            return acme

    registered = {"asgi_aiproxy.providers": [Entry()]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: registered.get(group, []))
    router = router_of('[providers.acme]\nkeys = "sk-1"')
    assert router.providers["acme"].base_url == "https://acme.example/v1"


FILE = """
attempts = 4
keepalive = 9
[timeouts]
first = 50
idle = 60
[providers.openai]
keys = ["from-file"]
cooldown = 11
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def loaded(text: str = FILE, **variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        path = tmp_path / "aiproxy.toml"
        path.write_text(text, "utf-8")
        return load(path)

    return loaded


def secrets(settings: Settings, provider: str = "openai") -> list[str]:
    return [key.secret.get_secret_value() for key in settings.providers[provider].keys]


def test_variables_override_single_settings_of_the_file(loaded: Any) -> None:
    settings = loaded(
        AIPROXY_ATTEMPTS="2",
        AIPROXY_TIMEOUTS__FIRST="5",
        AIPROXY_PROVIDERS__OPENAI__KEYS='["sk-1", {"secret": "sk-2", "rpm": 3}]',
        AIPROXY_PROVIDERS__GROQ__KEYS="sk-3",
    )
    assert (settings.attempts, settings.keepalive) == (2, 9)
    assert (settings.timeouts.first, settings.timeouts.idle) == (5, 60)
    assert secrets(settings) == ["sk-1", "sk-2"]
    assert settings.providers["openai"].cooldown == 11
    assert secrets(settings, "groq") == ["sk-3"]


@pytest.mark.parametrize(
    "variables",
    [
        {"AIPROXY_PROVIDERS__OPENAI__KEYS": "sk-1"},
        {"AIPROXY_PROVIDERS__openai__KEYS": '["sk-1"]'},
        {"AIPROXY_PROVIDERS__OPENAI__KEYS": '{"secret": "sk-1"}'},
        {"AIPROXY_PROVIDERS__OPENAI__KEYS": "env:OPENAI_API_KEY", "OPENAI_API_KEY": "sk-1"},
        {"AIPROXY_PROVIDERS": '{"openai": {"keys": ["sk-1"]}}'},
    ],
)
def test_the_environment_alone_is_enough(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert secrets(settings) == ["sk-1"]
    assert isinstance(build(), AIShim)


def test_routes_and_tokens_can_come_from_variables(loaded: Any) -> None:
    settings = loaded(
        AIPROXY_ROUTES='{"fast": ["openai/gpt-4o-mini"]}',
        AIPROXY_TOKENS='[{"token": "env:TEAM", "name": "team-1"}]',
        TEAM="tok-1",
        AIPROXY_STRICT="true",
    )
    assert [route.target for route in settings.routes["fast"]] == ["openai/gpt-4o-mini"]
    assert settings.tokens[0].token.get_secret_value() == "tok-1"
    assert settings.strict


def test_a_variable_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.toml"
    path.write_text(FILE, "utf-8-sig")  # also as Windows' editors write it
    monkeypatch.setenv("AIPROXY_CONFIG", str(path))
    assert load().attempts == 4
    assert isinstance(build(), AIShim)
    monkeypatch.setenv("AIPROXY_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigurationError, match="No such file"):
        build()


def test_an_env_reference_is_replaced_by_the_value_of_its_variable(loaded: Any) -> None:
    settings = loaded(
        """
        [providers.openai]
        keys = ["env:KEY"]
        base_url = "env:BASE"
        proxy = "env:PROXY"
        [providers.openai.headers]
        x-team = "env:HEADER"
        """,
        KEY="sk-1", BASE="https://x.example/v1", PROXY="http://p:1", HEADER="h",
    )  # fmt: skip
    provider = settings.providers["openai"]
    assert secrets(settings) == ["sk-1"]
    assert provider.base_url == "https://x.example/v1"
    assert (provider.proxy, provider.headers["x-team"]) == (SecretStr("http://p:1"), SecretStr("h"))
