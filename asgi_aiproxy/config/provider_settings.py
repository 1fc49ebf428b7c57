"""The tables of providers, routes and tokens."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from asgi_aiproxy.config.jwt_settings import BudgetText
from asgi_aiproxy.config.values import Network, Proxy, Secret, Text
from asgi_aiproxy.emulation import Emulation
from asgi_aiproxy.keys import Strategy
from asgi_aiproxy.principal import PeriodName


def _key_table(value: Any) -> Any:
    """Accept a string in place of a key's table: the secret alone."""
    if isinstance(value, str):
        return {"secret": value}
    if not isinstance(value, dict | BaseModel):
        raise ValueError("must be a string (the API key), or a table with a `secret`")
    return value


def as_key_list(value: Any) -> Any:
    """Accept one key in place of a list; a variable may hold one key, or JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not valid JSON: {error}") from None
    return [value] if isinstance(value, str | dict) else value


def _target_table(value: Any) -> Any:
    if not isinstance(value, dict | BaseModel):
        raise ValueError('must be text like "openai/gpt-4o", or a table with a `target`')
    return value


def as_target_list(value: Any) -> Any:
    """Accept one target in place of a list, and a string in place of a target's table.

    Strings get their position as priority: the first is tried first."""
    given = [value] if isinstance(value, str | dict) else value
    if not isinstance(given, list):
        raise ValueError('must be a list of targets, like ["openai", "groq/llama-3.3-70b"]')
    if not given:
        raise ValueError("must name at least one provider")
    return [
        {"target": target, "priority": position}
        if isinstance(target, str)
        else _target_table(target)
        for position, target in enumerate(given)
    ]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class KeySettings(_Table):
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
    attributes: dict[str, str] = {}


def _emulation_table(value: Any) -> Any:
    """Accept a list in place of a table: the features alone; an empty one means no emulation."""
    return ({"features": value} if value else None) if isinstance(value, list) else value


class EmulationSettings(_Table):
    """What the gateway emulates for models without it (`asgi_aiproxy.emulation.Emulation`)."""

    features: list[Literal["tools", "json_schema", "leaked_calls"]] = Field(min_length=1)
    default_tool: str = ""
    tasks: bool = False

    def make(self) -> Emulation:
        """Return the emulation. Raises ConfigurationError."""
        return Emulation(self.features, default_tool=self.default_tool, tasks=self.tasks)


Emulate = Annotated[EmulationSettings | None, BeforeValidator(_emulation_table)]


class ProviderSettings(_Table):
    """A provider: a row of the catalogue, named by the table or by `kind`.

    `cooldown`, `max_key_wait`, `keys_interval` and `health_check_interval` are in seconds.
    """

    kind: str | None = None
    base_url: Text | None = None
    keys: Annotated[
        list[Annotated[KeySettings, BeforeValidator(_key_table)]],
        BeforeValidator(as_key_list),
        NoDecode,
    ] = []
    keys_file: Text | None = None
    keys_command: list[str] | None = Field(default=None, min_length=1)
    keys_interval: float | None = Field(default=None, gt=0)
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
    workflow: Text | None = None
    endpoint: Text | None = None
    inputs: list[Any] | None = None
    strict_format: bool | None = None
    emulate: Emulate = None
    health_check_interval: float | None = Field(default=None, gt=0)


class TokenSettings(_Table):
    """A token for callers of the gateway. Tokens of the same name share their limits."""

    token: Secret
    name: str = Field(min_length=1)
    models: list[str] = []
    networks: list[Network] = []
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, ge=0, le=1e9)
    budget_per: PeriodName = "total"
    budgets: list[BudgetText] = []
    tags: dict[str, str] = {}


class TargetSettings(_Table):
    """A route's target (`provider`, or `provider/model`) with its share of the load."""

    target: str
    weight: int = Field(default=1, ge=1)
    priority: int = 0
    emulate: Emulate = None
