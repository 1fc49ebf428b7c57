"""Configuration: what loads, what is said about what does not, and the command line."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from asgi_aiproxy import AIShim, Authenticate, ConfigurationError, ProviderRouter
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.config.factory import Gateway
from asgi_aiproxy.config.settings import Settings, build, configuration_warnings, load
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.providers.catalog import ROWS
from tests import asgi

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


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AIPROXY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def said(tmp_path: Path) -> Any:
    """What is said of a configuration that is wrong."""

    def said(text: str) -> str:
        path = tmp_path / "aiproxy.toml"
        path.write_text(text, "utf-8")
        with pytest.raises(ConfigurationError) as caught:
            build(load(path))
        return str(caught.value).replace(str(path), "FILE")

    return said


def shim_of(app: Any) -> AIShim:
    """What is behind all middlewares."""
    while not isinstance(app, AIShim):
        app = app.app
    return app


def built(text: str) -> AIShim:
    return shim_of(build(Settings(**tomllib.loads(text))))


def router_of(text: str) -> ProviderRouter:
    router = built(text)._relay.router
    assert isinstance(router, ProviderRouter)
    return router


# ── what loads ───────────────────────────────────────────────────────────────


async def test_the_designs_own_example_builds_as_it_stands(
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
    keys = {slot.key.id: slot.key for slot in anthropic.keys.key_set.states.values()}
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
def test_every_row_of_the_catalogue_is_known_by_its_name(row: Any) -> None:
    router = router_of(f'[providers.{row.name}]\nkeys = ["sk-1"]')
    provider = router.providers[row.name]
    assert (provider.base_url, provider.dialect, provider.native_operations) == (
        row.base_url, row.dialect, row.native,
    )  # fmt: skip
    other = router_of(f'[providers.other]\nkind = "{row.name}"\nkeys = ["sk-1"]')
    assert other.providers["other"].base_url == row.base_url
    assert other.providers["other"].keys.name == "other"  # type: ignore[union-attr]


def test_azure_and_compatible_servers_have_an_address() -> None:
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
        exact = true
    """)
    assert router.providers["azure"].base_url == "https://a.openai.azure.com"
    assert router.providers["old"].base_url == "https://b.openai.azure.com"
    assert router.providers["mine"].strict_format is True


def test_everything_that_a_provider_and_a_key_can_have() -> None:
    app = built("""
        attempts = 7
        max_body = 1000
        keepalive = 0
        strict = true
        own_keys = true
        proxy = "http://user:pass@proxy:3128"
        log_usage = false
        [timeouts]
        first = 5
        [providers.openai]
        base_url = "https://mirror.example/v1/"
        strategy = "fill_first"
        cooldown = 5
        wait = 1.5
        models = ["gpt-4o"]
        proxy = "socks5://proxy:1080"
        exact = false
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
    assert (provider.proxy, provider.exact) == ("socks5://proxy:1080", False)
    (slot,) = provider.keys.key_set.states.values()
    key = slot.key
    assert (key.secret, key.id, key.weight, key.priority) == ("sk-1", "one", 2, 3)
    assert (key.models, key.rpm, key.tpm, key.concurrency) == (("gpt-*",), 4, 5, 6)
    assert (key.proxy, key.base_url) == ("http://other:1", "https://key.example/v1")
    assert (app._relay.attempts, app._relay.strict, app._max_body) == (7, True, 1000)
    assert (app._keepalive, app._own_keys, app._relay.timeouts.first) == (0, True, 5)


def test_one_provider_without_routes_answers_for_everything() -> None:
    router = router_of('[providers.openai]\nkeys = "sk-1"')
    assert [t.model for t in router.targets("any/thing")] == ["any/thing"]
    two = router_of('[providers.openai]\nkeys = "sk-1"\n[providers.groq]\nkeys = "sk-2"')
    assert two.targets("gpt-4o") == ()
    assert [t.provider.name for t in two.targets("groq/x")] == ["groq"]


def test_routes_are_an_order_or_share_the_load() -> None:
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


def test_a_row_that_another_package_brings_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = OPENAI.using(name="acme", base_url="https://acme.example/v1")

    class Entry:
        name, value = "acme", "acme_ai:ACME"

        def load(self) -> Any:
            return acme

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    router = router_of('[providers.acme]\nkeys = "sk-1"')
    assert router.providers["acme"].base_url == "https://acme.example/v1"


# ── the environment ──────────────────────────────────────────────────────────

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


def test_variables_go_before_the_file_and_leave_the_rest_of_it(loaded: Any) -> None:
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


def test_all_else_can_come_from_variables_too(loaded: Any) -> None:
    settings = loaded(
        AIPROXY_ROUTES='{"fast": ["openai/gpt-4o-mini"]}',
        AIPROXY_TOKENS='[{"token": "env:TEAM", "name": "team-1"}]',
        TEAM="tok-1",
        AIPROXY_STRICT="true",
    )
    assert [route.target for route in settings.routes["fast"]] == ["openai/gpt-4o-mini"]
    assert settings.tokens[0].token.get_secret_value() == "tok-1"
    assert settings.strict


def test_a_variable_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.toml"
    path.write_text(FILE, "utf-8-sig")  # also as Windows' editors write it
    monkeypatch.setenv("AIPROXY_CONFIG", str(path))
    assert load().attempts == 4
    assert isinstance(build(), AIShim)
    monkeypatch.setenv("AIPROXY_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigurationError, match="No such file"):
        build()


def test_an_env_name_stands_for_its_value(loaded: Any) -> None:
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


# ── what does not ────────────────────────────────────────────────────────────

OPEN = '[providers.openai]\nkeys = ["sk-secret"]\n'

WRONG = [
    # (what is written, where it is wrong, in which words)
    ("", "providers", "none is configured"),
    ("attempts = 2", "providers", "[providers.openai]"),
    ("typo = 1\n" + OPEN, "FILE: typo", "no such setting"),
    (OPEN + "rpms = 1", "FILE: providers.openai.rpms", "no such setting"),
    (OPEN + "[timeouts]\nfirts = 1", "FILE: timeouts.firts", "no such setting"),
    ('[providers.openai]\nkeys = [{ secret = "sk-secret", rmp = 5 }]',
     "FILE: providers.openai.keys[0].rmp", "no such setting"),
    ('[providers.openai]\nkeys = ["sk-secret", { id = "x" }]',
     "FILE: providers.openai.keys[1].secret", "missing"),
    ("providers = 5", "FILE: providers", "must be a table"),
    ('[providers]\nopenai = "sk-secret"', "FILE: providers.openai", "must be a table"),
    ("[providers.openai]\nkeys = 5", "FILE: providers.openai.keys", "must be a list"),
    ("[providers.openai]\nkeys = [5]", "FILE: providers.openai.keys[0]", "a key is a text"),
    ('[providers.openai]\nkeys = ["env:NOT_SET"]', "FILE: providers.openai.keys[0].secret",
     "the environment variable NOT_SET is not set"),
    ('[providers.openai]\nkeys = ["env:EMPTY"]', "FILE: providers.openai.keys[0].secret",
     "the environment variable EMPTY is not set"),
    ('admin_token = "env:NOT_SET"', "FILE: admin_token", "NOT_SET is not set"),
    ('[[tokens]]\nname = "x"\ntoken = "env:NOT_SET"', "FILE: tokens[0].token", "NOT_SET"),
    ('[providers.openai]\nkeys = [""]', "FILE: providers.openai.keys[0].secret", "it is empty"),
    ('[providers.openai]\nkeys = ["  "]', "FILE: providers.openai.keys[0].secret", "it is empty"),
    ('[providers.openai]\nkeys = ["sk-secret\\n"]', "providers.openai", "line break"),
    ('[providers.openai]\nkeys = ["sk-secret", "sk-secret"]', "providers.openai",
     "the same key is given twice"),
    ('[providers.openai]\nkeys = [{id = "a", secret = "1"}, {id = "a", secret = "2"}]',
     "providers.openai", "two keys have the same id: 'a'"),
    ('[providers.openai]\nkeys = [{secret = "sk-secret", rpm = 0}]',
     "FILE: providers.openai.keys[0].rpm", "greater than or equal to 1"),
    ('[providers.openai]\nkeys = [{secret = "sk-secret", weight = -1}]',
     "FILE: providers.openai.keys[0].weight", "greater than or equal to 1"),
    ('[providers.openai]\nkeys = [{secret = "s", concurrency = "many"}]',
     "FILE: providers.openai.keys[0].concurrency", "a whole number"),
    ('[providers.openai]\nkeys = [{secret = "s", base_url = "x"}]', "providers.openai",
     "base_url must begin with http"),
    (OPEN + 'strategy = "best"', "FILE: providers.openai.strategy", "'weighted', 'round_robin'"),
    (OPEN + "cooldown = -1", "FILE: providers.openai.cooldown", "greater than 0"),
    (OPEN + "wait = nan", "FILE: providers.openai.wait", "finite"),
    ('store_file = "/no/such/folder/x"\n' + OPEN, "FILE: store_file", "no folder /no/such/folder"),
    (OPEN + 'proxy = "proxy:3128"', "FILE: providers.openai.proxy", "begins with http://"),
    (OPEN + 'api_version = "1"', "providers.openai.api_version", "only azure"),
    (OPEN + 'base_url = "ftp://u:secret@x/v1"', "providers.openai", "base_url must begin with"),
    (OPEN + 'base_url = "api.openai.com"', "providers.openai", "base_url must begin with"),
    (OPEN + 'base_url = "https:///v1"', "providers.openai", "base_url must begin with"),
    (OPEN + 'base_url = "https://x:99999/v1"', "providers.openai", "Port out of range"),
    (OPEN + 'base_url = "https://[x/v1"', "providers.openai", "base_url"),
    (OPEN + 'base_url = "https://u:secret@x/v1?key=secret"', "providers.openai",
     "must end with its path: 'https://x/v1'"),
    ('[providers.foo]\nkeys = ["sk-secret"]', "providers.foo", "'foo' is no provider"),
    ('[providers.foo]\nkind = "bar"', "providers.foo.kind",
     "'bar' is not known. There are: anthropic, azure, cerebras"),
    ('[providers.azure]\nkeys = ["sk-secret"]', "providers.azure.base_url", "needs the address"),
    ('[providers.x]\nkind = "openai-compatible"', "providers.x.base_url", "needs the address"),
    ('[providers."a/b"]\nkind = "openai"', 'providers."a/b"', "holds no '/'"),
    (OPEN + '[routes]\n"gpt-4.1" = ["opnai"]', 'routes."gpt-4.1"',
     "there is no provider 'opnai'. There are: openai, openai-responses,"),
    (OPEN + '[routes]\n"gpt-4.1" = []', 'FILE: routes."gpt-4.1"', "leads nowhere"),
    (OPEN + '[routes]\n"gpt-4.1" = 5', 'FILE: routes."gpt-4.1"', "a list of targets"),
    (OPEN + '[routes]\na = [{ target = "openai", wieght = 3 }]', "FILE: routes.a[0].wieght",
     "no such setting"),
    (OPEN + '[routes]\na = [{ target = "openai", weight = 0 }]', "FILE: routes.a[0].weight",
     "greater than or equal to 1"),
    (OPEN + '[[tokens]]\ntoken = "tok-secret"', "FILE: tokens[0].name", "missing"),
    (OPEN + '[[tokens]]\ntoken = "tok-secret"\nname = ""', "FILE: tokens[0].name", "empty"),
    (OPEN + '[[tokens]]\ntoken = ""\nname = "x"', "FILE: tokens[0].token", "empty"),
    (OPEN + '[tokens]\ntok-secret = "team"', "FILE: tokens", "write [[tokens]]"),
    (OPEN + '[[tokens]]\ntoken = "tok-secret"\nname = "a"\n'
     '[[tokens]]\ntoken = "tok-secret"\nname = "b"', "tokens", "'a' and 'b' have the same token"),
    ("attempts = 0\n" + OPEN, "FILE: attempts", "greater than or equal to 1"),
    ("attempts = -3\n" + OPEN, "FILE: attempts", "greater than or equal to 1"),
    ('attempts = "many"\n' + OPEN, "FILE: attempts", "a whole number"),
    ("keepalive = -1\n" + OPEN, "FILE: keepalive", "greater than or equal to 0"),
    ("keepalive = inf\n" + OPEN, "FILE: keepalive", "finite"),
    ("max_body = 0\n" + OPEN, "FILE: max_body", "greater than or equal to 1"),
    ('strict = "perhaps"\n' + OPEN, "FILE: strict", "true or false"),
    ('ca = "/no/such/file.pem"\n' + OPEN, "ca", "there is no file"),
    (OPEN + "[timeouts]\nfirst = 0", "FILE: timeouts.first", "greater than 0"),
    ('[providers.openai]\nkeys = ["sk-secret"', "FILE", "is not valid TOML"),
    ("attempts = 1\nx = \n", "FILE", "line 2"),
    ("a = 1\na = 2\n", "FILE", "line 2"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "words"), WRONG)
def test_a_mistake_is_told_with_its_place_and_without_secrets(
    text: str, where: str, words: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    message = said(text)
    assert message.startswith(where + ":"), message
    assert words in message
    assert "secret" not in message.replace("[0].secret", "").replace("[1].secret", "").replace(
        "`secret`", ""
    )


def test_several_mistakes_are_told_at_once(said: Any) -> None:
    message = said('attempts = 0\ntypo = 1\n[providers.openai]\nkeys = ["env:NOT_SET"]\n')
    assert [line.split(":")[1].strip() for line in message.split("\n")] == [
        "providers.openai.keys[0].secret", "attempts", "typo",
    ]  # fmt: skip


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(ConfigurationError, match=f"^{re.escape(str(path))}: cannot be read"):
            load(path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is not valid TOML"):
        load(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AIPROXY_PROVIDERS", "[secret", "environment: AIPROXY_PROVIDERS is not valid JSON"),
        ("AIPROXY_TOKENS", "[{secret}]", "environment: AIPROXY_TOKENS is not valid JSON"),
        ("AIPROXY_PROVIDERS__OPENAI__KEYS", '["secret', "environment: providers.openai.keys: it"),
        ("AIPROXY_PROVIDERS__OPENAI__KEYZ", "secret", "environment: providers.openai.keyz: there"),
        ("AIPROXY_PROVIDERS__OPENAI", "secret", "environment: providers.openai: it must be a tab"),
        ("AIPROXY_ATTEMPTS", "secret", "environment: attempts: it must be a whole number"),
        ("AIPROXY_TIMEOUTS__FIRST", "secret", "environment: timeouts.first: it must be a number"),
        ("AIPROXY_TOKENS", '[{"token": "secret"}]', "environment: tokens[0].name: it is missing"),
    ],
)
def test_a_mistake_in_the_environment_is_not_blamed_on_the_file(
    name: str, value: str, words: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    message = said('[providers.openai]\nkeys = ["sk-1"]')
    assert message.startswith(words), message
    assert "secret" not in message


def test_what_another_package_brings_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "acme", "acme_ai:ACME"

        def load(self) -> Any:
            raise ImportError("no module named acme_ai")

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    with pytest.raises(ConfigurationError, match=r"'acme' \(acme_ai:ACME\) can not be loaded"):
        build(Settings(**tomllib.loads(OPEN)))


def test_secrets_are_masked_wherever_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "from-env-secret")
    settings = Settings(
        **tomllib.loads("""
        redis_url = "redis://:secret@host"
        admin_token = "secret"
        proxy = "http://u:secret@proxy:1"
        [providers.openai]
        keys = ["sk-secret", "env:KEY", { secret = "secret", proxy = "http://secret@p:1" }]
        proxy = "http://u:secret@proxy:1"
        [providers.openai.headers]
        authorization = "Bearer secret"
        [[tokens]]
        token = "secret"
        name = "team"
    """)
    )
    shown = repr(settings) + str(settings) + settings.model_dump_json() + repr(build(settings))
    assert "secret" not in shown.replace("secret=", "").replace('"secret":', "")


# ── what is no mistake, but may not be meant ─────────────────────────────────


def test_doubts_are_told_in_the_log_and_nothing_else_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    build(Settings(**tomllib.loads(OPEN + "[providers.ollama]\n[routes]\na = 'vllm'")))
    assert caplog.text == ""
    text = "[providers.openai]\n[providers.groq]\nkeys = 'k'\n[routes]\na = ['xai', 'groq']"
    settings = Settings(**tomllib.loads(text))
    build(settings)
    assert [line.split(":")[0] for line in configuration_warnings(settings)] == [
        "providers.xai", "providers.openai",
    ]  # fmt: skip
    assert "providers.openai: it has no keys" in caplog.text
    assert configuration_warnings(Settings(**tomllib.loads("own_keys = true\n" + text))) == []


DOUBTFUL = [
    ('admin_token = "t"\n' + OPEN, "admin_token: without redis_url or store_file"),
    ('redis_url = "redis://localhost"\n' + OPEN, "tokens: none is in the file"),
]


@pytest.mark.parametrize(("text", "doubt"), DOUBTFUL)
def test_what_may_surprise_of_a_store_is_told(text: str, doubt: str) -> None:
    (found,) = configuration_warnings(Settings(**tomllib.loads(text)))
    assert found.startswith(doubt)


def test_what_is_issued_without_prices_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'redis_url = "redis://localhost"\n[[tokens]]\nname = "a"\ntoken = "t"\n[providers.ollama]\n'
    )
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    (found,) = configuration_warnings(Settings(**tomllib.loads(text)))
    assert found.startswith("prices: no model has a price here")
    assert configuration_warnings(Settings(**tomllib.loads(text + "[prices.m]\ninput = 1\n"))) == []


# ── the command line ─────────────────────────────────────────────────────────


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIPROXY_")}
    done = subprocess.run(
        [sys.executable, "-m", "asgi_aiproxy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, **variables},
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "aiproxy.toml"
    path.write_text('[providers.openai]\nkeys = ["sk-secret"]\nmodels = ["gpt-4o"]\n')
    return str(path)


def test_version_and_help_say_what_they_should() -> None:
    from asgi_aiproxy import __version__

    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"asgi_aiproxy {__version__}\n")
    done = run("--help")
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert "check" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["serve", "--port", "x"], ["serve", "--port", "99999"], ["check", "-x"]],
)
def test_wrong_arguments_are_told_with_status_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_check_says_whether_a_configuration_is_right(config: str) -> None:
    done = run("check", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is right" in done.stdout
    assert "openai" in done.stdout
    done = run("check", AIPROXY_CONFIG=config)
    assert done.returncode == 0
    done = run("check", AIPROXY_PROVIDERS__OPENAI__KEYS="sk-1")
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_configuration_is_told_with_status_2(command: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("typo = 1\n[providers.openai]\nkeys = 5\n")
    done = run(command, "--config", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: typo: there is no such setting" in done.stderr
    done = run(command, "--config", str(tmp_path / "missing.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read" in done.stderr
    done = run(command)
    assert done.returncode == 2
    assert "none is configured" in done.stderr


def test_check_tells_doubts_and_is_content(tmp_path: Path) -> None:
    path = tmp_path / "doubtful.toml"
    path.write_text("[providers.openai]\n")
    done = run("check", "--config", str(path))
    assert done.returncode == 0
    assert done.stderr == (
        "asgi_aiproxy: providers.openai: it has no keys, so it is asked without one.\n"
    )


def test_a_port_in_use_is_told_without_a_traceback(config: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--config", config, "--port", str(port))
    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower()


class Served:
    """`serve` in a process of its own; `lines` is what it says."""

    def __init__(self, config: str) -> None:
        command = [sys.executable, "-m", "asgi_aiproxy", "serve", "--config", config]
        self.process = subprocess.Popen(
            [*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.said = ""
        threading.Thread(target=self._read, daemon=True).start()
        found = None
        while found is None:
            line = self.lines.get(timeout=60)
            found = re.search(r"running on (http://[\d.:]+)", line)
        self.url = found[1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            self.lines.put(line)
        self.lines.put("running on http://0 (it ended)")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture
def serving(config: str) -> Iterator[Served]:
    served = Served(config)
    yield served
    if served.process.poll() is None:
        served.process.kill()
    served.process.wait(timeout=30)


def test_serve_answers_health_and_readiness_to_everybody(serving: Served) -> None:
    assert serving.get("/health") == {"status": "ok"}
    assert serving.get("/ready")["status"] == "ready"


def test_serve_says_at_ready_that_it_leaves_for_as_long_as_it_drains(tmp_path: Path) -> None:
    path = tmp_path / "aiproxy.toml"
    path.write_text('drain = 60\nlog_format = "json"\n[providers.openai]\nkeys = ["sk-1"]\n')
    served = Served(str(path))
    try:
        served.process.send_signal(signal.SIGTERM)
        status = 200
        while status == 200:
            try:
                served.get("/ready")
            except urllib.error.HTTPError as error:
                status = error.code
        assert status == 503
        assert served.get("/health") == {"status": "ok"}
        served.process.send_signal(signal.SIGTERM)  # twice: now
        assert served.process.wait(timeout=30) == 0
    finally:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(timeout=30)
    lines = [json.loads(line) for line in served.said.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_serve_serves_until_it_is_told_to_stop(serving: Served, stop: signal.Signals) -> None:
    models = serving.get("/v1/models")
    assert [model["id"] for model in models["data"]] == ["gpt-4o"]
    serving.process.send_signal(stop)
    assert serving.process.wait(timeout=10) == 0
    assert "Traceback" not in serving.said
    assert "sk-secret" not in serving.said


def test_serve_logs_usage(serving: Served) -> None:
    request = urllib.request.Request(
        serving.url + "/v1/chat/completions",
        data=b'{"model":"openai/x","messages":[],"provider":"nobody"}',
        headers={"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=30)
    line = serving.lines.get(timeout=10)
    while "asgi_aiproxy.usage" not in line:
        line = serving.lines.get(timeout=10)
    assert "refused chat.completions" in line
