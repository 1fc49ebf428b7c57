"""Read the configuration from a TOML file and the environment, and build the app it describes.

Only this module and `values` read the environment. Three steps, each usable alone:

1. `load` merges the TOML file and the variables `AIPROXY_...` (variables override the file, table
   by table) and validates the result as `Settings`. Secrets may be references: `env:NAME`, or
   `file:PATH`. Every error names its place as TOML would spell it, and its source.
2. `build` turns `Settings` into an ASGI app, by `config.factory`, with the public constructors.
3. `configuration_warnings` lists what is valid but probably not intended.

::

    uvicorn --factory asgi_aiproxy.config.settings:build        # AIPROXY_CONFIG=aiproxy.toml
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
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
from asgi_aiproxy.config.accounting_settings import AuditSettings, BudgetAlertSettings
from asgi_aiproxy.config.accounts_settings import AccountsSettings
from asgi_aiproxy.config.compat_settings import CompatSettings
from asgi_aiproxy.config.console_settings import SelfServiceSettings, SiteSettings
from asgi_aiproxy.config.error_messages import (
    describe_errors,
    describe_syntax_error,
    did_you_mean,
)
from asgi_aiproxy.config.factory import build_app, has_prices
from asgi_aiproxy.config.jwt_settings import JWTSettings
from asgi_aiproxy.config.limit_settings import (
    LoadSheddingSettings,
    MatcherSettings,
    RequestLimitSettings,
    ResponsesSettings,
    TimeoutSettings,
)
from asgi_aiproxy.config.provider_settings import (
    ProviderSettings,
    TargetSettings,
    TokenSettings,
    as_key_list,
    as_target_list,
)
from asgi_aiproxy.config.providers import is_local, missing_key_sources
from asgi_aiproxy.config.url_warnings import base_url_warnings
from asgi_aiproxy.config.values import Proxy, Secret
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.resource_records import OwnerCheck
from asgi_aiproxy.logs import LogFormat, LogLevel
from asgi_aiproxy.providers.catalog import ROWS
from asgi_aiproxy.services.settings import Origin

logger = logging.getLogger("asgi_aiproxy")

_PREFIX = "AIPROXY_"


def _as_ratio(value: Any) -> Any:
    """Accept a number in place of a ratio's table: the ratio of the model."""
    if isinstance(value, dict):
        return value
    try:
        return {"model": float(value)}
    except (TypeError, ValueError):
        example = "{ model = 1.5, completion = 5 }"
        raise ValueError(f"must be a number, or a table such as {example}") from None


def _check_parent_folder(value: str) -> str:
    folder = Path(value).absolute().parent
    if Path(value).is_dir():
        raise ValueError(f"{value} is a folder; write the path of a file")
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} does not exist; create it first")
    return value


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
    routes: dict[str, Annotated[list[TargetSettings], BeforeValidator(as_target_list)]] = {}
    display_names: dict[str, str] = {}
    tokens: list[TokenSettings] = []
    jwt: JWTSettings | None = None
    compat: CompatSettings = CompatSettings()
    redis_url: Secret | None = None
    redis_prefix: str = Field(default="aiproxy", min_length=1)
    store_file: Annotated[str, AfterValidator(_check_parent_folder)] | None = None
    sealing_keys: Annotated[list[Secret], BeforeValidator(as_key_list), NoDecode] = []
    anonymous: bool = False
    ledger: bool = True
    ledger_max_records: int | None = Field(default=None, ge=1)
    ledger_retention_days: float | None = Field(default=None, gt=0)
    ledger_sums_days: float = Field(default=400.0, gt=0)
    prices: dict[str, dict[str, Any]] = {}
    ratios: dict[str, Annotated[dict[str, Any], BeforeValidator(_as_ratio)]] = {}
    units_per_usd: int = Field(default=500_000, ge=1)
    audit: AuditSettings = AuditSettings()
    budget_alerts: BudgetAlertSettings = BudgetAlertSettings()
    cost_header: bool = True
    cost_comment: bool = False
    tag_headers: dict[str, str] = {}
    tag_metadata: list[str] = []
    admin_token: Secret | None = None
    admin_private_networks: list[str] = []
    console: bool = False
    console_name: str = Field(default="AI gateway", min_length=1)
    self_service: SelfServiceSettings = SelfServiceSettings()
    accounts: AccountsSettings = AccountsSettings()
    site: SiteSettings = SiteSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    request_limits: RequestLimitSettings = RequestLimitSettings()
    load_shedding: LoadSheddingSettings | None = None
    responses: ResponsesSettings = ResponsesSettings()
    attempts: int = Field(default=3, ge=1)
    max_body: int = Field(default=32 * 1024 * 1024, ge=1)
    keepalive: float = Field(default=15.0, ge=0)
    strict: bool = False
    conversations: bool = True
    price_updates: bool = False
    allow_client_keys: bool = False
    resource_owners: OwnerCheck = "recorded"
    shared_resources: list[str] = []
    proxy: Proxy | None = None
    ca_file: str | None = None
    http2: bool = False
    metrics: bool = False
    metrics_token: Secret | None = None
    otel: bool = False
    otel_sampling_ratio: float = Field(default=1.0, ge=0, le=1)
    markers: bool = False
    matchers: list[MatcherSettings] = []
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
    file = _read_toml(path) if path is not None else {}
    variables = _environment()
    try:
        settings = Settings(**_merged(file, variables))
    except ValidationError as error:
        raise ConfigurationError(describe_errors(error, path, variables, Settings)) from None
    settings._from_environment = frozenset(variables)
    return settings


def validate(values: Mapping[str, Any], path: str | Path | None = None) -> Settings:
    """Return the settings with these values, without those of the environment.

    Raises ConfigurationError, with one line for each mistake; `path` is where they come from.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(describe_errors(error, path, {}, Settings)) from None


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
        warnings += missing_key_sources(f"providers.{name}", given)
        keyless = not (given.keys or given.keys_file or given.keys_command or stored)
        if keyless and remote and not local and not settings.allow_client_keys:
            warnings.append(
                f"providers.{name}: it has no keys, so requests are sent without an API key."
            )
    by_provider = not settings.routes and settings.compat.oneapi is None
    if by_provider and len(settings.providers) > 1:
        names = " or ".join(f"{name}/MODEL" for name in settings.providers)
        warnings.append(
            f"routes: without any, callers must name the provider with the model: {names}. Add "
            "[routes] to serve models under their own names."
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
            "metrics: anyone who reaches the server can read /metrics (models, traffic and "
            "cost). Set metrics_token to require it as a bearer token."
        )
    closed = durable and not settings.anonymous and settings.admin_token is None
    if closed and not settings.tokens and settings.jwt is None:
        warnings.append(
            "tokens: the configuration has no [[tokens]], so only tokens that were issued by the "
            "command line or the admin API are accepted. (anonymous = true accepts every request.)"
        )
    return warnings


def _read_toml(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text; save it in that encoding.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why = describe_syntax_error(error, text)
        raise ConfigurationError(f"{path}: is not valid TOML: {why}.") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: is nested too deeply.") from None


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
