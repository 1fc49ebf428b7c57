"""Likely mistakes in a configuration: references to secrets, misspelt names, unusual addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, configuration_warnings, load


def configured(folder: Path, text: str) -> Settings:
    path = folder / "aiproxy.toml"
    path.write_text(text)
    return load(path)


def test_a_secret_can_be_read_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-a-file\n")
    settings = configured(tmp_path, f'[providers.openai]\nkeys = ["file:{secret}"]\n')
    assert settings.providers["openai"].keys[0].secret.get_secret_value() == "sk-from-a-file"
    with pytest.raises(ConfigurationError, match=r"the file .*none cannot be read"):
        configured(tmp_path, f'[providers.openai]\nkeys = ["file:{tmp_path}/none"]\n')


@pytest.mark.parametrize(
    "reference", ["${OPENAI_KEY}", "$OPENAI_KEY", "os.environ/OPENAI_KEY", "%OPENAI_KEY%"]
)
def test_references_in_the_syntax_of_other_tools_are_refused_with_a_hint(
    tmp_path: Path, reference: str
) -> None:
    with pytest.raises(ConfigurationError, match='write "env:OPENAI_KEY"'):
        configured(tmp_path, f'[providers.openai]\nkeys = ["{reference}"]\n')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[provider.openai]\nkeys = ["k"]\n', "did you mean 'providers'"),
        ('[providers.openai]\nkey = ["k"]\n', "did you mean 'keys'"),
        ('[providers.openai]\nkeys = [{secret = "k", wieght = 2}]\n', "did you mean 'weight'"),
        ('[[tokens]]\ntoken = "t"\nname = "n"\nmodel = ["x"]\n', "did you mean 'models'"),
        ('[providers.openai]\napi_key = "k"\n', "did you mean 'keys'"),
        ('[providers.x]\napi_base = "http://x"\n', "did you mean 'base_url'"),
        ('[providers.x]\ntype = "openai"\n', "did you mean 'kind'"),
        ('[[providers]]\nname = "openai"\n', r"write \[providers.NAME\]"),
        ('[[routes]]\nmodel = "x"\n', r"write \[routes\]"),
        ("[timeouts]\nfrist = 3\n", "did you mean 'first'"),
        ('[tokens]\ntoken = "t"\nname = "n"\n', r"write \[\[tokens\]\]"),
    ],
)
def test_a_misspelt_setting_gets_a_suggestion(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configured(tmp_path, text)


def test_a_misspelt_variable_gets_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIPROXY_REDIS_ULR", "redis://localhost")
    (warning,) = configuration_warnings(configured(tmp_path, '[providers.openai]\nkeys = ["k"]\n'))
    assert warning.startswith("environment: AIPROXY_REDIS_ULR is ignored")
    assert "did you mean 'AIPROXY_REDIS_URL'" in warning


@pytest.mark.parametrize(
    ("kind", "address", "said"),
    [
        ("openai", "http://host", "should probably end with '/v1': http://host/v1."),
        ("openai-compatible", "http://host:8000/", "should probably end with '/v1'"),
        ("openai", "http://host/v1/v1", "contains the version twice"),
        ("openai", "http://host/v1/chat/completions", "remove '/chat/completions'"),
        ("anthropic", "http://host/v1", "remove '/v1'"),
        ("gemini", "http://host/v1beta", "remove '/v1beta'"),
        ("anthropic", "http://host", None),
        ("openai", "http://host/v1", None),
        ("openai", "http://host/openai/v1/", None),
        ("openai", "http://host/some/path", None),
    ],
)
def test_a_base_url_that_is_probably_wrong_causes_a_warning(
    tmp_path: Path, kind: str, address: str, said: str | None
) -> None:
    text = f'[providers.p]\nkind = "{kind}"\nbase_url = "{address}"\nkeys = ["k"]\n'
    found = configuration_warnings(configured(tmp_path, text))
    assert (said is None and found == []) or (said is not None and said in found[0])
