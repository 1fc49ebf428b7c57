"""Invalid settings are named with place, reason and remedy, and never with a secret."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, build, configuration_warnings, load


@pytest.fixture
def error_of(tmp_path: Path) -> Any:
    """The message for an invalid configuration."""

    def error_of(text: str) -> str:
        path = tmp_path / "aiproxy.toml"
        path.write_text(text, "utf-8")
        with pytest.raises(ConfigurationError) as caught:
            build(load(path))
        return str(caught.value).replace(str(path), "FILE")

    return error_of


OPEN = '[providers.openai]\nkeys = ["sk-secret"]\n'

WRONG = [
    # (configuration, start of the message, part of the message)
    ("", "providers", "no provider is configured"),
    ("attempts = 2", "providers", "[providers.openai]"),
    ("typo = 1\n" + OPEN, "FILE: typo", "unknown setting"),
    (OPEN + "rpms = 1", "FILE: providers.openai.rpms", "unknown setting"),
    (OPEN + "[timeouts]\nfirts = 1", "FILE: timeouts.firts", "unknown setting"),
    ('[providers.openai]\nkeys = [{ secret = "sk-secret", rmp = 5 }]',
     "FILE: providers.openai.keys[0].rmp", "unknown setting"),
    ('[providers.openai]\nkeys = ["sk-secret", { id = "x" }]',
     "FILE: providers.openai.keys[1].secret", "missing"),
    ("providers = 5", "FILE: providers", "write [providers.NAME]"),
    ('[providers]\nopenai = "sk-secret"', "FILE: providers.openai", "must be a table"),
    ("[providers.openai]\nkeys = 5", "FILE: providers.openai.keys", "must be a list"),
    ("[providers.openai]\nkeys = [5]", "FILE: providers.openai.keys[0]",
     "must be a string (the API key)"),
    ('[providers.openai]\nkeys = ["env:NOT_SET"]', "FILE: providers.openai.keys[0].secret",
     "the environment variable NOT_SET is not set"),
    ('[providers.openai]\nkeys = ["env:EMPTY"]', "FILE: providers.openai.keys[0].secret",
     "the environment variable EMPTY is not set"),
    ('admin_token = "env:NOT_SET"', "FILE: admin_token", "NOT_SET is not set"),
    ('[[tokens]]\nname = "x"\ntoken = "env:NOT_SET"', "FILE: tokens[0].token", "NOT_SET"),
    ('[providers.openai]\nkeys = [""]', "FILE: providers.openai.keys[0].secret",
     "must not be empty"),
    ('[providers.openai]\nkeys = ["  "]', "FILE: providers.openai.keys[0].secret",
     "must not be empty"),
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
     "FILE: providers.openai.keys[0].concurrency", "must be an integer"),
    ('[providers.openai]\nkeys = [{secret = "s", base_url = "x"}]', "providers.openai",
     "base_url must begin with http"),
    (OPEN + 'strategy = "best"', "FILE: providers.openai.strategy", "'weighted', 'round_robin'"),
    (OPEN + "cooldown = -1", "FILE: providers.openai.cooldown", "greater than 0"),
    (OPEN + "max_key_wait = nan", "FILE: providers.openai.max_key_wait", "finite"),
    ('store_file = "/no/such/folder/x"\n' + OPEN, "FILE: store_file",
     "the folder /no/such/folder does not exist"),
    (OPEN + 'proxy = "proxy:3128"', "FILE: providers.openai.proxy", "must be a URL that begins with http://"),
    (OPEN + 'api_version = "1"', "providers.openai.api_version", "only the kind 'azure' takes it"),
    (OPEN + 'region = "eu-west-1"', "providers.openai.region", "only the kinds 'bedrock'"),
    (OPEN + 'project = "p"', "providers.openai.project", "'vertex', 'vertex-anthropic' take it"),
    ('[providers.vertex]\nkeys = ["k"]', "providers.vertex", "project is required"),
    ('[providers.bedrock]\nkeys = ["k"]', "providers.bedrock", "region is required"),
    (OPEN + 'base_url = "ftp://u:secret@x/v1"', "providers.openai", "base_url must begin with"),
    (OPEN + 'base_url = "api.openai.com"', "providers.openai", "base_url must begin with"),
    (OPEN + 'base_url = "https:///v1"', "providers.openai", "base_url must begin with"),
    (OPEN + 'base_url = "https://x:99999/v1"', "providers.openai", "Port out of range"),
    (OPEN + 'base_url = "https://[x/v1"', "providers.openai", "base_url"),
    (OPEN + 'base_url = "https://u:secret@x/v1?key=secret"', "providers.openai",
     "must not have a query or fragment: 'https://x/v1'"),
    ('[providers.foo]\nkeys = ["sk-secret"]', "providers.foo", "there is no provider 'foo'"),
    ('[providers.foo]\nkind = "bar"', "providers.foo.kind",
     "there is no kind 'bar'. There are: anthropic, azure, baichuan, baseten, bedrock"),
    ('[providers.azure]\nkeys = ["sk-secret"]', "providers.azure.base_url", "is required"),
    ('[providers.x]\nkind = "openai-compatible"', "providers.x.base_url", "is required"),
    ('[providers."a/b"]\nkind = "openai"', 'providers."a/b"', "contain '/'"),
    (OPEN + '[routes]\n"gpt-4.1" = ["opnai"]', 'routes."gpt-4.1"',
     "(did you mean 'openai'?). There are: openai, openai-responses,"),
    (OPEN + '[routes]\n"gpt-4.1" = []', 'FILE: routes."gpt-4.1"',
     "must name at least one provider"),
    (OPEN + '[routes]\n"gpt-4.1" = 5', 'FILE: routes."gpt-4.1"', "must be a list of targets"),
    (OPEN + '[routes]\na = [{ target = "openai", wieght = 3 }]', "FILE: routes.a[0].wieght",
     "unknown setting"),
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
    ('attempts = "many"\n' + OPEN, "FILE: attempts", "must be an integer"),
    ("keepalive = -1\n" + OPEN, "FILE: keepalive", "greater than or equal to 0"),
    ("keepalive = inf\n" + OPEN, "FILE: keepalive", "finite"),
    ("max_body = 0\n" + OPEN, "FILE: max_body", "greater than or equal to 1"),
    ('strict = "perhaps"\n' + OPEN, "FILE: strict", "true or false"),
    ('ca_file = "/no/such/file.pem"\n' + OPEN, "ca_file", "does not exist"),
    (OPEN + "[timeouts]\nfirst = 0", "FILE: timeouts.first", "greater than 0"),
    ('[providers.openai]\nkeys = ["sk-secret"', "FILE", "is not valid TOML"),
    ("attempts = 1\nx = \n", "FILE", "line 2"),
    ("a = 1\na = 2\n", "FILE", "line 2"),
    (OPEN + OPEN, "FILE", "the table [providers.openai] is given twice (at line 3"),
    ("[providers.openai]\nkeys = [sk-secret]", "FILE", 'Strings are written in quotes: "text".'),
    ('{"providers": {"openai": {"keys": ["sk-secret"]}}}', "FILE", "it looks like JSON"),
    ("# ours\nproviders:\n  openai:\n    keys: [sk-secret]\n", "FILE", "it looks like YAML"),
    ("[timeouts]\nread = 3\n" + OPEN, "FILE: timeouts.read",
     "there are: pool, connect, first, idle, total, body"),
    (OPEN + "[request_limits]\nbodies = 3", "FILE: request_limits.bodies", "there are: messages"),
    (OPEN + "[compat]\nlitellm = '/x'", "FILE: compat.litellm", "there are: aiproxy, oneapi"),
    (OPEN + '[routes]\n"gpt-4.1" = [3]', 'FILE: routes."gpt-4.1"', 'text like "openai/gpt-4o"'),
    ('[providers.opanai]\nkeys = ["sk-secret"]', "providers.opanai", "(did you mean 'openai'?)"),
    ('[providers.azure]\nkeys = ["sk-secret"]', "providers.azure.base_url", "openai.azure.com"),
    (OPEN + "[prices.m]\ninptu = 1", "prices.m.inptu", "(did you mean 'input'?)"),
    (OPEN + "[prices.m]\ninput = -1", "prices.m", "input: a price must be a number >= 0, got -1"),
    (OPEN + "[prices.m]\ninput = 'x'", "prices.m.input", "Expected `float`, got `str`"),
    (OPEN + "[ratios]\nm = 'x'", "FILE: ratios.m", "a table such as { model = 1.5"),
    (OPEN + "[ratios]\nm = { model = -1 }", "ratios.m", "model: a ratio must be a number >= 0"),
    (OPEN + "[ratios]\nm = { prompt = 1 }", "ratios.m.prompt", "there are: model, completion"),
    ('store_file = "/"\n' + OPEN, "FILE: store_file", "/ is a folder; write the path of a file"),
    ('redis_url = "redis://x"\nsealing_keys = ["secret"]\n' + OPEN, "sealing_keys", "at least 16"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "words"), WRONG)
def test_an_invalid_setting_is_reported_with_its_place_and_without_secrets(
    text: str, where: str, words: str, error_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    message = error_of(text)
    assert message.startswith(where + ":"), message
    assert words in message
    assert "secret" not in message.replace("[0].secret", "").replace("[1].secret", "").replace(
        "`secret`", ""
    )


def test_several_mistakes_are_reported_at_once(error_of: Any) -> None:
    message = error_of('attempts = 0\ntypo = 1\n[providers.openai]\nkeys = ["env:NOT_SET"]\n')
    assert [line.split(":")[1].strip() for line in message.split("\n")] == [
        "providers.openai.keys[0].secret", "attempts", "typo",
    ]  # fmt: skip


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(ConfigurationError, match=f"^{re.escape(str(path))}: cannot be read"):
            load(path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        load(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AIPROXY_PROVIDERS", "[secret", "environment: AIPROXY_PROVIDERS is not valid JSON"),
        ("AIPROXY_TOKENS", "[{secret}]", "environment: AIPROXY_TOKENS is not valid JSON"),
        (
            "AIPROXY_PROVIDERS__OPENAI__KEYS",
            '["secret',
            "environment: providers.openai.keys: is not",
        ),
        (
            "AIPROXY_PROVIDERS__OPENAI__KEYZ",
            "secret",
            "environment: providers.openai.keyz: unknown",
        ),
        ("AIPROXY_PROVIDERS__OPENAI", "secret", "environment: providers.openai: must be a table"),
        ("AIPROXY_ATTEMPTS", "secret", "environment: attempts: must be an integer"),
        ("AIPROXY_TIMEOUTS__FIRST", "secret", "environment: timeouts.first: must be a number"),
        ("AIPROXY_TOKENS", '[{"token": "secret"}]', "environment: tokens[0].name: is missing"),
    ],
)
def test_a_mistake_in_the_environment_is_not_attributed_to_the_file(
    name: str, value: str, words: str, error_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    message = error_of('[providers.openai]\nkeys = ["sk-1"]')
    assert message.startswith(words), message
    assert "secret" not in message


def test_a_provider_of_another_package_that_cannot_be_loaded_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Entry:
        name, value = "acme", "acme_ai:ACME"

        def load(self) -> Any:
            raise ImportError("no module named acme_ai")

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    with pytest.raises(ConfigurationError, match=r"'acme' \(acme_ai:ACME\) cannot be loaded"):
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


def test_warnings_are_logged_and_a_sound_configuration_has_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    assert (
        configuration_warnings(Settings(**tomllib.loads("allow_client_keys = true\n" + text))) == []
    )


SURPRISING = [
    ('admin_token = "t"\n' + OPEN, "admin_token: without redis_url or store_file"),
    ('redis_url = "redis://localhost"\n' + OPEN, "tokens: the configuration has no [[tokens]]"),
    (OPEN + '[providers.groq]\nkeys = ["k"]', "routes: without any, callers must name the provider "
     "with the model: openai/MODEL or groq/MODEL."),
    ('[providers.openai]\nkeys_file = "/none"', "providers.openai.keys_file: the file '/none'"),
    ('[providers.openai]\nkeys_command = ["/none"]', "providers.openai.keys_command: the command"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "warning"), SURPRISING)
def test_surprising_settings_cause_a_warning(text: str, warning: str) -> None:
    (found,) = configuration_warnings(Settings(**tomllib.loads(text)))
    assert found.startswith(warning)


def test_budgets_without_prices_cause_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'redis_url = "redis://localhost"\n[[tokens]]\nname = "a"\ntoken = "t"\n[providers.ollama]\n'
    )
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    (found,) = configuration_warnings(Settings(**tomllib.loads(text)))
    assert found.startswith("prices: no model has a price")
    assert configuration_warnings(Settings(**tomllib.loads(text + "[prices.m]\ninput = 1\n"))) == []
