"""Configuration from a file and the environment, and the app it describes.

The only module that reads the environment. `Settings` describes; `build` composes, with the same
constructors that are there for everybody::

    uvicorn --factory asgi_aiproxy.config.settings:build        # AIPROXY_CONFIG=aiproxy.toml
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from asgi_aiproxy.config.factory import build_app, has_prices, is_local, toml_path
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.keys import Strategy
from asgi_aiproxy.logs import LogFormat, LogLevel
from asgi_aiproxy.principal import Budget, Period
from asgi_aiproxy.providers.catalog import ROWS

logger = logging.getLogger("asgi_aiproxy")

_PREFIX = "AIPROXY_"


# How other tools refer to a variable, which here would be taken for the secret itself.
_FOREIGN_REFERENCE = re.compile(r"\$\{?(\w+)\}?|os\.environ/(\w+)|%(\w+)%|\{\{\s*(\w+)\s*\}\}")


def _dereferenced(value: Any) -> Any:
    """`env:NAME` stands for what the environment variable NAME holds, `file:PATH` for what is in a
    file, without the line end."""
    if not isinstance(value, str):
        return value
    if value.startswith("env:"):
        name = value.removeprefix("env:")
        found = os.environ.get(name)
        if not found:
            raise ValueError(f"the environment variable {name} is not set")
        return found
    if value.startswith("file:"):
        path = value.removeprefix("file:")
        try:
            return Path(path).read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {path} is not UTF-8 text") from None
    if foreign := _FOREIGN_REFERENCE.fullmatch(value.strip()):
        name = next(group for group in foreign.groups() if group)
        raise ValueError(f'write "env:{name}" to take the value of an environment variable')
    return value


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("it is empty")
    return value


def _proxy(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("a proxy's address begins with http://, https:// or socks5://")
    return value


def _in_a_folder(value: str) -> str:
    folder = Path(value).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    return value


def _network(value: str) -> str:
    try:
        check_networks((value,))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
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


Text = Annotated[str, BeforeValidator(_dereferenced)]
Secret = Annotated[SecretStr, BeforeValidator(_dereferenced), AfterValidator(_not_empty)]
Proxy = Annotated[Secret, AfterValidator(_proxy)]
Network = Annotated[str, AfterValidator(_network)]


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
    max_key_wait: float = Field(default=0.0, ge=0)
    headers: dict[str, Secret] = {}
    models: list[str] = []
    proxy: Proxy | None = None
    api_version: str | None = None
    strict_format: bool | None = None
    health_check_interval: float | None = Field(default=None, gt=0)


def _budget(text: str) -> str:
    try:
        Budget.parse(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return text


class TokenSettings(_Model):
    """A token for callers of the gateway. Those of one name share their limits."""

    token: Secret
    name: str = Field(min_length=1)
    models: list[str] = []
    networks: list[Network] = []
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, ge=0, le=1e9)
    budget_per: Period = "total"
    budgets: list[Annotated[str, AfterValidator(_budget)]] = []


class TargetSettings(_Model):
    """A route's target (`provider`, or `provider/model`) with its share of the load."""

    target: str
    weight: int = Field(default=1, ge=1)
    priority: int = 0


class TimeoutSettings(_Model):
    """Six limits in seconds, see `asgi_aiproxy.upstream.Timeouts`."""

    pool: float = Field(default=10.0, gt=0)
    connect: float = Field(default=10.0, gt=0)
    first: float | None = Field(default=600.0, gt=0)
    idle: float | None = Field(default=180.0, gt=0)
    total: float | None = Field(default=None, gt=0)
    body: float | None = Field(default=60.0, gt=0)


class RequestLimitSettings(_Model):
    """How large a request may be that is translated, see `asgi_aiproxy.RequestLimits`."""

    messages: int = Field(default=10_000, ge=1)
    parts: int = Field(default=20_000, ge=1)
    tools: int = Field(default=2_000, ge=1)
    depth: int = Field(default=200, ge=1)


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
    redis_prefix: str = Field(default="aiproxy", min_length=1)
    store_file: Annotated[str, AfterValidator(_in_a_folder)] | None = None
    sealing_keys: Annotated[list[Secret], BeforeValidator(_keys), NoDecode] = []
    anonymous: bool = False
    ledger: bool = True
    ledger_most: int | None = Field(default=None, ge=1)
    prices: dict[str, dict[str, Any]] = {}
    ratios: dict[str, float | dict[str, Any]] = {}
    units_per_usd: int = Field(default=500_000, ge=1)
    admin_token: Secret | None = None
    admin_private_networks: list[str] = []
    timeouts: TimeoutSettings = TimeoutSettings()
    request_limits: RequestLimitSettings = RequestLimitSettings()
    attempts: int = Field(default=3, ge=1)
    max_body: int = Field(default=32 * 1024 * 1024, ge=1)
    keepalive: float = Field(default=15.0, ge=0)
    strict: bool = False
    allow_client_keys: bool = False
    proxy: Proxy | None = None
    ca_file: str | None = None
    http2: bool = False
    log_usage: bool = True
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    drain: float = Field(default=0.0, ge=0)

    def all_providers(self) -> dict[str, ProviderSettings]:
        """The providers by name, those that only routes name too."""
        routed = {
            wanted.target.partition("/")[0] for given in self.routes.values() for wanted in given
        }
        missing = {name: ProviderSettings() for name in sorted(routed - self.providers.keys())}
        return missing | self.providers


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
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: is not valid TOML: {error}.") from error
        except RecursionError:
            raise ConfigurationError(f"{path}: is nested too deeply.") from None
    variables = _environment()
    try:
        return Settings(**_over(file, variables))
    except ValidationError as error:
        raise ConfigurationError(_explained(error, path, variables)) from None


def build(settings: Settings | None = None) -> ASGIApp:
    """Compose the app that `settings` describe; by default those of AIPROXY_CONFIG."""
    if settings is None:
        settings = load()
    app = build_app(settings)
    for doubt in configuration_warnings(settings):
        logger.warning("%s", doubt)
    return app


def configuration_warnings(settings: Settings) -> list[str]:
    """What is no mistake, but may not be what was meant."""
    found = list(_misspelt_variables())
    durable = settings.redis_url is not None or settings.store_file is not None
    for name, given in settings.all_providers().items():
        remote = given.base_url is None and given.kind != "openai-compatible"
        local = any(row.name == (given.kind or name) and is_local(row) for row in ROWS)
        stored = durable or settings.admin_token is not None
        if given.base_url is not None:
            kind = given.kind or name
            usual = next((row.base_url for row in ROWS if row.name == kind), None)
            if kind == "openai-compatible":
                usual = "http://localhost/v1"
            if usual is not None:
                found += _doubtful_address(f"providers.{name}", given.base_url, usual)
        if (
            remote
            and not local
            and not given.keys
            and not settings.allow_client_keys
            and not stored
        ):
            found.append(f"providers.{name}: it has no keys, so it is asked without one.")
    if settings.admin_token is not None and not durable:
        found.append(
            "admin_token: without redis_url or store_file, what is issued and changed there ends "
            "with the process, and is unknown to others."
        )
    issues = durable or settings.admin_token is not None
    if issues and not settings.anonymous and not has_prices(settings):
        found.append(
            "prices: no model has a price here, so whoever is issued a budget in dollars is "
            "refused every call: pip install 'asgi-aiproxy[prices]', or give your own in [prices]."
        )
    closed = durable and not settings.anonymous and settings.admin_token is None
    if closed and not settings.tokens:
        found.append(
            "tokens: none is in the file: only who was issued one may call. (anonymous = true "
            "lets everybody in.)"
        )
    return found


def _misspelt_variables() -> Iterator[str]:
    """The variables `AIPROXY_...` that no setting is read from."""
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(_PREFIX)
        if variable.upper().startswith(_PREFIX) and name.partition("__")[0] not in known:
            hint = _did_you_mean(name.partition("__")[0], known)
            hint = hint.replace("mean '", f"mean '{_PREFIX}")
            yield f"environment: {variable} is not read: there is no such setting{hint}."


def _doubtful_address(where: str, address: str, usual: str) -> Iterator[str]:
    """What may be wrong with a provider's address, where `usual` is one that is right."""
    path = urlsplit(address).path.rstrip("/")
    end = urlsplit(usual).path.rstrip("/")
    for tail in ("/chat/completions", "/responses", "/messages", "/embeddings"):
        if path.endswith(tail):
            yield f"{where}.base_url: leave out {tail!r}: it is added to the address."
            return
    versions = [part for part in path.split("/") if part in ("v1", "v1beta")]
    if len(versions) > 1:
        yield f"{where}.base_url: the path {path!r} has a version twice."
    elif end.endswith("/v1") and not path:
        yield f"{where}.base_url: it probably must end with '/v1', as in {address.rstrip('/')}/v1."
    elif not end and versions:
        yield f"{where}.base_url: leave out '/{versions[0]}': it is added to the address."


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
        if mistake["type"] == "extra_forbidden":
            message += _did_you_mean(str(mistake["loc"][-1]), _names_at(mistake["loc"][:-1]))
        if mistake["type"] == "list_type" and mistake["loc"] == ("tokens",):
            message = "write [[tokens]], with double brackets, before each token"
        source = "environment" if path is None or _holds(variables, mistake["loc"]) else path
        line = f"{source}: {toml_path(mistake['loc'])}: {message}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _names_at(place: Sequence[str | int]) -> list[str]:
    """The settings that there are at a place in the configuration."""
    model: Any = Settings
    for at, step in enumerate(place):
        if isinstance(step, int) or model is None:
            continue
        if step in getattr(model, "model_fields", {}):
            model = _TABLES.get(step, model)
        elif at != 1:  # the second step names a provider
            return []
    return list(getattr(model, "model_fields", ()))


_TABLES: dict[str | int, type[BaseModel]] = {
    "providers": ProviderSettings,
    "keys": KeySettings,
    "tokens": TokenSettings,
    "timeouts": TimeoutSettings,
    "routes": TargetSettings,
}


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


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
