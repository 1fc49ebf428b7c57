"""Configuration from a file and the environment, and the app it describes.

The only module that reads the environment. `Settings` describes; `build` composes, with the same
constructors that are there for everybody::

    uvicorn --factory asgi_aiproxy.settings:build        # AIPROXY_CONFIG=aiproxy.toml
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
    SettingsError,
)

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.identity import Principal
from asgi_aiproxy.keys import Key, KeyPool, Strategy
from asgi_aiproxy.middleware import Authenticate, static_tokens
from asgi_aiproxy.providers import Provider, Target, azure, openai_compatible
from asgi_aiproxy.providers.catalog import ROWS
from asgi_aiproxy.providers.discovery import discover
from asgi_aiproxy.router import ProviderRouter, Route
from asgi_aiproxy.shim import OpenAIShim
from asgi_aiproxy.upstream import Timeouts, default_transport
from asgi_aiproxy.usage import ignore, log_usage

logger = logging.getLogger("asgi_aiproxy")

_PREFIX = "AIPROXY_"


def _from_environment(value: Any) -> Any:
    """`env:NAME` stands for what the environment variable NAME holds."""
    if isinstance(value, str) and value.startswith("env:"):
        name = value.removeprefix("env:")
        found = os.environ.get(name)
        if not found:
            raise ValueError(f"the environment variable {name} is not set")
        return found
    return value


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("it is empty")
    return value


def _proxy(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("a proxy's address begins with http://, https:// or socks5://")
    return value


def _one_key(value: Any) -> Any:
    """A key may be its secret alone."""
    if isinstance(value, str):
        return {"secret": value}
    if not isinstance(value, dict | BaseModel):
        raise ValueError("a key is a text, or a table with the key as its `secret`")
    return value


def _keys(value: Any) -> Any:
    """One key needs no list; a variable may hold one, or JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"it is not valid JSON: {error}") from None
    return [value] if isinstance(value, str | dict) else value


def _targets(value: Any) -> Any:
    """Targets in order; one needs no list, and its name may be all there is to say."""
    given = [value] if isinstance(value, str | dict) else value
    if not isinstance(given, list):
        raise ValueError('a route is a list of targets, like ["openai", "groq/llama-3.3-70b"]')
    if not given:
        raise ValueError("it leads nowhere: name a provider")
    return [
        {"target": t, "priority": at} if isinstance(t, str) else t for at, t in enumerate(given)
    ]


Text = Annotated[str, BeforeValidator(_from_environment)]
Secret = Annotated[SecretStr, BeforeValidator(_from_environment), AfterValidator(_not_empty)]
Proxy = Annotated[Secret, AfterValidator(_proxy)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class KeySettings(_Model):
    """A provider's key with its limits."""

    secret: Secret
    id: str = ""
    weight: int = Field(default=1, ge=1)
    priority: int = 0
    models: list[str] = []
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    proxy: Proxy | None = None
    base_url: Text | None = None


class ProviderSettings(_Model):
    """A provider: a row of the catalogue by the table's name, or by `kind`."""

    kind: str | None = None
    base_url: Text | None = None
    keys: Annotated[
        list[Annotated[KeySettings, BeforeValidator(_one_key)]], BeforeValidator(_keys), NoDecode
    ] = []
    strategy: Strategy = "weighted"
    cooldown: float = Field(default=30.0, gt=0)
    wait: float = Field(default=0.0, ge=0)
    headers: dict[str, Secret] = {}
    models: list[str] = []
    proxy: Proxy | None = None
    api_version: str | None = None
    exact: bool | None = None


class TokenSettings(_Model):
    """A token for callers of the gateway."""

    token: Secret
    name: str = Field(min_length=1)
    models: list[str] = []
    budget_usd: float | None = Field(default=None, ge=0)


class TargetSettings(_Model):
    """A route's target (`provider`, or `provider/model`) with its share of the load."""

    target: str
    weight: int = Field(default=1, ge=1)
    priority: int = 0


class TimeoutSettings(_Model):
    """Five limits in seconds, see `asgi_aiproxy.upstream.Timeouts`."""

    pool: float = Field(default=10.0, gt=0)
    connect: float = Field(default=10.0, gt=0)
    first: float | None = Field(default=600.0, gt=0)
    idle: float | None = Field(default=180.0, gt=0)
    total: float | None = Field(default=None, gt=0)


class Settings(BaseSettings):
    """The whole configuration. `load` reads it; environment variables go before the file."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    providers: dict[str, ProviderSettings] = {}
    routes: dict[str, Annotated[list[TargetSettings], BeforeValidator(_targets)]] = {}
    tokens: list[TokenSettings] = []
    redis_url: Secret | None = None
    admin_token: Secret | None = None
    timeouts: TimeoutSettings = TimeoutSettings()
    attempts: int = Field(default=3, ge=1)
    max_body: int = Field(default=32 * 1024 * 1024, ge=1)
    keepalive: float = Field(default=15.0, ge=0)
    strict: bool = False
    own_keys: bool = False
    proxy: Proxy | None = None
    ca: str | None = None
    http2: bool = False
    log_usage: bool = True


def load(path: str | Path | None = None) -> Settings:
    """Read a TOML file (by default that of AIPROXY_CONFIG) and the environment.

    Raises ConfigurationError in plain words.
    """
    path = path or os.environ.get(f"{_PREFIX}CONFIG") or None
    file: dict[str, Any] = {}
    if path is not None:
        try:
            file = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except OSError as error:
            raise ConfigurationError(f"{path}: can not be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: is not valid TOML: {error}.") from error
    variables = _environment()
    try:
        return Settings(**_over(file, variables))
    except ValidationError as error:
        raise ConfigurationError(_explained(error, path, variables)) from None


def build(settings: Settings | None = None) -> ASGIApp:
    """Compose the app that `settings` describe; by default those of AIPROXY_CONFIG."""
    if settings is None:
        settings = load()
    rows = {row.name: row for row in ROWS} | discover()
    providers = _providers(settings, rows)
    routes = {name: _route(name, given, providers, rows) for name, given in settings.routes.items()}
    if not routes and len(providers) == 1:
        routes = {"*": list(providers.values())}
    router = ProviderRouter(routes, providers=providers.values())
    timeouts = Timeouts(**settings.timeouts.model_dump())
    if settings.ca is not None and not Path(settings.ca).is_file():
        raise ConfigurationError(f"ca: there is no file {settings.ca!r}.")
    app: ASGIApp = OpenAIShim(
        router,
        transport=default_transport(
            timeouts=timeouts, proxy=_told(settings.proxy), ca=settings.ca, http2=settings.http2
        ),
        timeouts=timeouts,
        attempts=settings.attempts,
        max_body=settings.max_body,
        keepalive=settings.keepalive,
        strict=settings.strict,
        own_keys=settings.own_keys,
        record=log_usage if settings.log_usage else ignore,
    )
    if settings.tokens:
        app = Authenticate(app, verify=static_tokens(_tokens(settings.tokens)))
    for doubt in doubts(settings):
        logger.warning("%s", doubt)
    return app


def doubts(settings: Settings) -> list[str]:
    """What is no mistake, but may not be what was meant."""
    found = []
    routed = {
        route.target.partition("/")[0] for given in settings.routes.values() for route in given
    }
    used = {name: ProviderSettings() for name in sorted(routed)} | settings.providers
    for name, given in used.items():
        remote = given.base_url is None and given.kind != "openai-compatible"
        local = any(row.name == (given.kind or name) and _local(row) for row in ROWS)
        if remote and not local and not given.keys and not settings.own_keys:
            found.append(f"providers.{name}: it has no keys, so it is asked without one.")
    later = {
        "redis_url": settings.redis_url is not None,
        "admin_token": settings.admin_token is not None,
        "tokens.budget_usd": any(token.budget_usd is not None for token in settings.tokens),
    }
    ignored = [name for name, is_set in later.items() if is_set]
    if ignored:
        found.append(f"{', '.join(ignored)}: this version does not heed it yet.")
    return found


def _providers(settings: Settings, rows: Mapping[str, Provider]) -> dict[str, Provider]:
    if not settings.providers and not settings.routes:
        raise ConfigurationError(
            "providers: none is configured. Add one, for example:\n\n"
            '    [providers.openai]\n    keys = ["env:OPENAI_API_KEY"]\n\n'
            f"to the file of --config (or {_PREFIX}CONFIG)."
        )
    return {name: _provider(name, given, rows) for name, given in settings.providers.items()}


def _provider(name: str, given: ProviderSettings, rows: Mapping[str, Provider]) -> Provider:
    where = _place(("providers", name))
    try:
        provider = _row(where, name, given, rows)
        changes: dict[str, Any] = {"name": name}
        if given.headers:
            own = {header: value.get_secret_value() for header, value in given.headers.items()}
            changes["headers"] = {**provider.headers, **own}
        if given.models:
            changes["catalogue"] = tuple(given.models)
        if given.proxy is not None:
            changes["proxy"] = _told(given.proxy)
        if given.exact is not None:
            changes["exact"] = given.exact
        keys = [_key(key) for key in given.keys]
        pool = KeyPool(
            keys,
            name=name,
            strategy=given.strategy,
            cooldown=given.cooldown,
            wait=given.wait,
        )
        return provider.using(pool if keys else (), **changes)
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith(where) else f"{where}: {text}") from None


def _row(where: str, name: str, given: ProviderSettings, rows: Mapping[str, Provider]) -> Provider:
    """The provider that a table is about, at its own address."""
    kind = given.kind or name
    if given.api_version is not None and kind != "azure":
        raise ConfigurationError(f"{where}.api_version: only azure has one.")
    if kind in ("azure", "openai-compatible"):
        if given.base_url is None:
            raise ConfigurationError(f"{where}.base_url: {kind} needs the address of its server.")
        if kind == "azure":
            return azure(given.base_url, name=name, api_version=given.api_version)
        return openai_compatible(given.base_url, name=name)
    if kind not in rows:
        known = ", ".join(sorted({*rows, "azure", "openai-compatible"}))
        if given.kind:
            raise ConfigurationError(f"{where}.kind: {kind!r} is not known. There are: {known}.")
        raise ConfigurationError(
            f"{where}: {name!r} is no provider that is known. Give the table the name of one, or "
            f"say with `kind` what it is. There are: {known}."
        )
    row = rows[kind]
    return row if given.base_url is None else row.using(base_url=given.base_url)


def _key(given: KeySettings) -> Key:
    return Key(
        given.secret.get_secret_value(),
        **given.model_dump(exclude={"secret", "models", "proxy"}),
        models=tuple(given.models),
        proxy=_told(given.proxy),
    )


def _route(
    name: str,
    given: list[TargetSettings],
    providers: dict[str, Provider],
    rows: Mapping[str, Provider],
) -> list[Route]:
    routes: list[Route] = []
    for wanted in given:
        provider, _, model = wanted.target.partition("/")
        if provider not in providers:
            if provider not in rows:
                known = ", ".join(dict.fromkeys([*providers, *rows]))
                where = _place(("routes", name))
                raise ConfigurationError(
                    f"{where}: there is no provider {provider!r}. There are: {known}."
                )
            providers[provider] = rows[provider]  # with no table of its own: without keys
        routes.append(Target(providers[provider], model, wanted.weight, wanted.priority))
    return routes


def _tokens(given: list[TokenSettings]) -> dict[str, Principal]:
    tokens: dict[str, Principal] = {}
    for each in given:
        token = each.token.get_secret_value()
        if token in tokens:
            raise ConfigurationError(
                f"tokens: {tokens[token].name!r} and {each.name!r} have the same token."
            )
        tokens[token] = Principal(each.name, each.name, tuple(each.models))
    return tokens


def _told(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _local(row: Provider) -> bool:
    return urlsplit(row.base_url).hostname in ("127.0.0.1", "localhost")


def _environment() -> dict[str, Any]:
    """What the variables `AIPROXY_...` say, as a file would."""
    try:
        return EnvSettingsSource(Settings)()
    except ValueError as error:
        cause = error.__cause__ if isinstance(error, SettingsError) else error
        found = re.search(r'field "(\w+)"', str(error))
        begins = _PREFIX + (found[1].upper() if found else "")
        names = sorted(name for name in os.environ if name.upper().startswith(begins))
        raise ConfigurationError(
            f"environment: {' or '.join(names)} is not valid JSON: {cause}."
        ) from None


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, where tables are put together and all else of `above` goes first."""
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            both[name] = _over(below[name], above[name])
    return both


def _explained(error: ValidationError, path: object, variables: Mapping[str, Any]) -> str:
    """A validation error in plain words, one line a mistake."""
    lines = []
    for mistake in error.errors(include_url=False, include_input=False):
        message = mistake["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "it must be")
        message = _WORDS.get(mistake["type"], message)
        source = "environment" if path is None or _holds(variables, mistake["loc"]) else path
        line = f"{source}: {_place(mistake['loc'])}: {message}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


_WORDS = {
    "extra_forbidden": "there is no such setting",
    "missing": "it is missing",
    "dict_type": "it must be a table",
    "model_type": "it must be a table",
    "list_type": "it must be a list",
    "string_type": "it must be a text",
    "string_too_short": "it is empty",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "float_parsing": "it must be a number",
    "bool_parsing": "it must be true or false",
}


def _holds(data: Any, place: Sequence[str | int]) -> bool:
    """Whether the last known step on the way to a place is in `data`."""
    for at, step in enumerate(place):
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return 0 < at == len(place) - 1
    return True


def _place(steps: Sequence[str | int]) -> str:
    """A place as a TOML file would spell it."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." + (step if re.fullmatch(r"[\w-]+", step) else f'"{step}"')
    return text.removeprefix(".")
