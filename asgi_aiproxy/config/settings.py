"""Read the configuration from a TOML file and the environment, and build the app it describes.

The only module that reads the environment. Three steps, each usable alone:

1. `load` merges the TOML file and the variables `AIPROXY_...` (variables override the file, table
   by table) and validates the result as `Settings`. Secrets may be references: `env:NAME`, or
   `file:PATH`. Every error names its place as TOML would spell it, and its source.
2. `build` turns `Settings` into an ASGI app, by `config.factory`, with the public constructors.
3. `configuration_warnings` lists what is valid but probably not intended.

::

    uvicorn --factory asgi_aiproxy.config.settings:build        # AIPROXY_CONFIG=aiproxy.toml
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
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
from asgi_aiproxy.config.accounting_settings import AuditSettings
from asgi_aiproxy.config.console_settings import SelfServiceSettings
from asgi_aiproxy.config.error_messages import describe_errors, did_you_mean
from asgi_aiproxy.config.factory import build_app, has_prices
from asgi_aiproxy.config.jwt_settings import BudgetText, JWTSettings
from asgi_aiproxy.config.limit_settings import (
    RequestLimitSettings,
    ResponsesSettings,
    TimeoutSettings,
)
from asgi_aiproxy.config.providers import is_local
from asgi_aiproxy.config.url_warnings import base_url_warnings
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.keys import Strategy
from asgi_aiproxy.logs import LogFormat, LogLevel
from asgi_aiproxy.principal import Period
from asgi_aiproxy.providers.catalog import ROWS
from asgi_aiproxy.services.settings import Origin

logger = logging.getLogger("asgi_aiproxy")

_PREFIX = "AIPROXY_"


# How other tools refer to a variable; here the text would be taken for the secret itself.
_FOREIGN_REFERENCE = re.compile(r"\$\{?(\w+)\}?|os\.environ/(\w+)|%(\w+)%|\{\{\s*(\w+)\s*\}\}")


def _dereferenced(value: Any) -> Any:
    """Replace `env:NAME` by the value of the environment variable NAME, and `file:PATH` by the
    contents of a file without its final line break."""
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


def resolve_reference(value: str) -> str:
    """The secret that `env:NAME` or `file:PATH` refers to, or the value. Raises ValueError."""
    return str(_dereferenced(value))


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("must not be empty")
    return value


def _check_proxy(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("must be a URL that begins with http://, https:// or socks5://")
    return value


def _check_parent_folder(value: str) -> str:
    folder = Path(value).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} does not exist; create it first")
    return value


def _check_network(value: str) -> str:
    try:
        check_networks((value,))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


def _key_table(value: Any) -> Any:
    """Accept a string in place of a key's table: the secret alone."""
    if isinstance(value, str):
        return {"secret": value}
    if not isinstance(value, dict | BaseModel):
        raise ValueError("must be a string (the API key), or a table with a `secret`")
    return value


def _key_list(value: Any) -> Any:
    """Accept one key in place of a list; a variable may hold one key, or JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not valid JSON: {error}") from None
    return [value] if isinstance(value, str | dict) else value


def _target_list(value: Any) -> Any:
    """Accept one target in place of a list, and a string in place of a target's table.

    Strings get their position as priority: the first is tried first."""
    given = [value] if isinstance(value, str | dict) else value
    if not isinstance(given, list):
        raise ValueError('must be a list of targets, like ["openai", "groq/llama-3.3-70b"]')
    if not given:
        raise ValueError("must name at least one provider")
    return [
        {"target": target, "priority": position} if isinstance(target, str) else target
        for position, target in enumerate(given)
    ]


Text = Annotated[str, BeforeValidator(_dereferenced)]
Secret = Annotated[SecretStr, BeforeValidator(_dereferenced), AfterValidator(_not_empty)]
Proxy = Annotated[Secret, AfterValidator(_check_proxy)]
Network = Annotated[str, AfterValidator(_check_network)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class KeySettings(_Model):
    """One API key of a provider. `rpm` and `tpm` are limits per minute."""

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


# Features that the gateway emulates for models without them (`asgi_aiproxy.emulation`).
Features = list[Literal["tools", "json_schema", "leaked_calls"]]


class ProviderSettings(_Model):
    """A provider: a row of the catalogue, named by the table or by `kind`.

    `cooldown`, `max_key_wait` and `health_check_interval` are in seconds.
    """

    kind: str | None = None
    base_url: Text | None = None
    keys: Annotated[
        list[Annotated[KeySettings, BeforeValidator(_key_table)]],
        BeforeValidator(_key_list),
        NoDecode,
    ] = []
    strategy: Strategy = "weighted"
    cooldown: float = Field(default=30.0, gt=0)
    max_key_wait: float = Field(default=0.0, ge=0)
    headers: dict[str, Secret] = {}
    models: list[str] = []
    proxy: Proxy | None = None
    api_version: str | None = None
    region: Text | None = None
    project: Text | None = None
    account: Text | None = None
    strict_format: bool | None = None
    emulate: Features = []
    health_check_interval: float | None = Field(default=None, gt=0)


class TokenSettings(_Model):
    """A token for callers of the gateway. Tokens of the same name share their limits."""

    token: Secret
    name: str = Field(min_length=1)
    models: list[str] = []
    networks: list[Network] = []
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, ge=0, le=1e9)
    budget_per: Period = "total"
    budgets: list[BudgetText] = []
    tags: dict[str, str] = {}


class TargetSettings(_Model):
    """A route's target (`provider`, or `provider/model`) with its share of the load."""

    target: str
    weight: int = Field(default=1, ge=1)
    priority: int = 0
    emulate: Features = []


class Settings(BaseSettings):
    """The whole configuration. `load` reads it; environment variables override the file.

    `keepalive` and `drain` are in seconds, `max_body` in bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    providers: dict[str, ProviderSettings] = {}
    routes: dict[str, Annotated[list[TargetSettings], BeforeValidator(_target_list)]] = {}
    display_names: dict[str, str] = {}
    tokens: list[TokenSettings] = []
    jwt: JWTSettings | None = None
    redis_url: Secret | None = None
    redis_prefix: str = Field(default="aiproxy", min_length=1)
    store_file: Annotated[str, AfterValidator(_check_parent_folder)] | None = None
    sealing_keys: Annotated[list[Secret], BeforeValidator(_key_list), NoDecode] = []
    anonymous: bool = False
    ledger: bool = True
    ledger_max_records: int | None = Field(default=None, ge=1)
    ledger_retention_days: float | None = Field(default=None, gt=0)
    ledger_sums_days: float = Field(default=400.0, gt=0)
    prices: dict[str, dict[str, Any]] = {}
    ratios: dict[str, float | dict[str, Any]] = {}
    units_per_usd: int = Field(default=500_000, ge=1)
    audit: AuditSettings = AuditSettings()
    tag_headers: dict[str, str] = {}
    tag_metadata: list[str] = []
    admin_token: Secret | None = None
    admin_private_networks: list[str] = []
    console: bool = False
    console_name: str = Field(default="AI gateway", min_length=1)
    self_service: SelfServiceSettings = SelfServiceSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    request_limits: RequestLimitSettings = RequestLimitSettings()
    responses: ResponsesSettings = ResponsesSettings()
    attempts: int = Field(default=3, ge=1)
    max_body: int = Field(default=32 * 1024 * 1024, ge=1)
    keepalive: float = Field(default=15.0, ge=0)
    strict: bool = False
    allow_client_keys: bool = False
    proxy: Proxy | None = None
    ca_file: str | None = None
    http2: bool = False
    metrics: bool = False
    metrics_token: Secret | None = None
    otel: bool = False
    log_usage: bool = True
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    drain: float = Field(default=0.0, ge=0)
    _from_environment: frozenset[str] = frozenset()

    def origin(self, name: str) -> Origin:
        """Where the value of a setting is from."""
        if name in self._from_environment:
            return "environment"
        return "file" if name in self.model_fields_set else "default"

    def all_providers(self) -> dict[str, ProviderSettings]:
        """The providers by name, including those that are named only in routes."""
        routed = {
            wanted.target.partition("/")[0] for given in self.routes.values() for wanted in given
        }
        missing = {name: ProviderSettings() for name in sorted(routed - self.providers.keys())}
        return missing | self.providers


def load(path: str | Path | None = None) -> Settings:
    """Read a TOML file (by default the one that AIPROXY_CONFIG names) and the environment.

    `path` overrides AIPROXY_CONFIG. Raises ConfigurationError, with one line for each mistake.
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
        settings = Settings(**_merged(file, variables))
    except ValidationError as error:
        raise ConfigurationError(describe_errors(error, path, variables, _names_at)) from None
    settings._from_environment = frozenset(variables)
    return settings


def build(settings: Settings | None = None) -> ASGIApp:
    """Build the app that `settings` describe; by default, what `load()` returns.

    Warnings are logged. Raises ConfigurationError.
    """
    if settings is None:
        settings = load()
    app = build_app(settings)
    for warning in configuration_warnings(settings):
        logger.warning("%s", warning)
    return app


def set_metrics_folder(folder: str) -> None:
    """Have the worker processes that are started from now on write their metrics into `folder`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # which prometheus-client reads


def configuration_warnings(settings: Settings) -> list[str]:
    """What is valid, but probably not intended; one message each, which says what to do."""
    warnings = list(_misspelt_variables())
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
                warnings += base_url_warnings(f"providers.{name}", given.base_url, usual)
        if (
            remote
            and not local
            and not given.keys
            and not settings.allow_client_keys
            and not stored
        ):
            warnings.append(
                f"providers.{name}: it has no keys, so requests are sent without an API key."
            )
    if settings.admin_token is not None and not durable:
        warnings.append(
            "admin_token: without redis_url or store_file, tokens and keys created over the admin "
            "API are lost when the process ends, and unknown to other processes."
        )
    issues = durable or settings.admin_token is not None
    if issues and not settings.anonymous and not has_prices(settings):
        warnings.append(
            "prices: no model has a price, so every request within a budget in dollars will be "
            "refused: pip install 'asgi-aiproxy[prices]', or set your own prices in [prices]."
        )
    if settings.metrics and settings.metrics_token is None:
        warnings.append(
            "metrics: everybody who reaches the server can read /metrics (models, traffic and "
            "cost). Set metrics_token to require it as a bearer token."
        )
    closed = durable and not settings.anonymous and settings.admin_token is None
    if closed and not settings.tokens and settings.jwt is None:
        warnings.append(
            "tokens: the configuration has no [[tokens]], so only tokens that were issued by the "
            "command line or the admin API are accepted. (anonymous = true accepts every request.)"
        )
    return warnings


def _misspelt_variables() -> Iterator[str]:
    """Warn of variables `AIPROXY_...` that are no setting."""
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(_PREFIX)
        if variable.upper().startswith(_PREFIX) and name.partition("__")[0] not in known:
            hint = did_you_mean(name.partition("__")[0], known)
            hint = hint.replace("mean '", f"mean '{_PREFIX}")
            yield f"environment: {variable} is ignored: unknown setting{hint}."


def _environment() -> dict[str, Any]:
    """The values of the variables `AIPROXY_...`, in the shape of the file."""
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


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two configurations: tables are merged, all other values of `above` override."""
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            both[name] = _merged(below[name], above[name])
    return both


def _names_at(place: Sequence[str | int]) -> list[str]:
    """The names of the settings that are allowed at a place in the configuration."""
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
    "jwt": JWTSettings,
    "audit": AuditSettings,
    "timeouts": TimeoutSettings,
    "self_service": SelfServiceSettings,
    "responses": ResponsesSettings,
    "routes": TargetSettings,
}
