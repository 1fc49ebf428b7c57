"""Providers with their key pools, from the settings of `[providers]` and `[routes]`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asgi_aiproxy.config.error_messages import did_you_mean, toml_path
from asgi_aiproxy.config.image_servers import comfyui_from_file, gradio_from_settings
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys import Key, KeyPool, KeySource, run_command, watch_file
from asgi_aiproxy.keys.encryption import NoEncryption, Sealer
from asgi_aiproxy.providers import (
    Provider,
    azure,
    bedrock,
    bedrock_anthropic,
    cloudflare,
    databricks,
    openai_compatible,
    snowflake,
    vertex,
    vertex_anthropic,
)
from asgi_aiproxy.providers.catalog import ROWS
from asgi_aiproxy.providers.discovery import discover
from asgi_aiproxy.providers.operations import RESPONSES
from asgi_aiproxy.stores import Store

if TYPE_CHECKING:
    from pydantic import SecretStr

    from asgi_aiproxy.config.provider_settings import KeySettings, ProviderSettings
    from asgi_aiproxy.config.settings import Settings
    from asgi_aiproxy.keys.encryption import SecretCipher


# Kinds that a function makes, with the settings it takes beside `base_url`.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Provider], tuple[str, ...]]] = {
    "azure": (azure, ("api_version",)),
    "bedrock": (bedrock, ("region",)),
    "bedrock-anthropic": (bedrock_anthropic, ("region",)),
    "cloudflare": (cloudflare, ("account",)),
    "comfyui": (comfyui_from_file, ("workflow",)),
    "databricks": (databricks, ("account",)),
    "gradio": (gradio_from_settings, ("endpoint", "inputs")),
    "openai-compatible": (openai_compatible, ()),
    "snowflake": (snowflake, ("account",)),
    "vertex": (vertex, ("project", "region")),
    "vertex-anthropic": (vertex_anthropic, ("project", "region")),
}
_NEED_BASE_URL = {  # and what it is there
    "azure": "the URL of your resource, such as https://NAME.openai.azure.com",
    "openai-compatible": "the URL of your server",
}
_OPTIONS = (
    *("api_version", "region", "project", "account"),
    *("workflow", "endpoint", "inputs"),
)


def make_providers(settings: Settings, store: Store | None) -> dict[str, Provider]:
    """All providers by name, including those of routes. With a store, their keys are shared.

    Raises ConfigurationError.
    """
    rows = {row.name: row for row in ROWS} | discover()
    for name, targets in settings.routes.items():
        for provider in (wanted.target.partition("/")[0] for wanted in targets):
            if provider not in settings.providers and provider not in rows:
                known = list(dict.fromkeys([*settings.providers, *rows]))
                where = toml_path(("routes", name))
                raise ConfigurationError(
                    f"{where}: there is no provider {provider!r}{did_you_mean(provider, known)}. "
                    f"There are: {', '.join(known)}."
                )
    sealer = make_sealer(settings)
    return {
        name: _provider(name, given, rows, store, sealer)
        for name, given in settings.all_providers().items()
    }


def is_local(row: Provider) -> bool:
    """Whether a provider runs on this machine, where no API key is needed."""
    return urlsplit(row.base_url).hostname in ("127.0.0.1", "localhost")


def _provider(
    name: str,
    given: ProviderSettings,
    rows: Mapping[str, Provider],
    store: Store | None,
    sealer: SecretCipher | None,
) -> Provider:
    where = toml_path(("providers", name))
    try:
        provider = _row(where, name, given, rows)
        changes: dict[str, Any] = {"name": name}
        if given.headers:
            own = {header: value.get_secret_value() for header, value in given.headers.items()}
            changes["headers"] = {**provider.headers, **own}
        if given.models:
            changes["catalogue"] = tuple(given.models)
        if given.proxy is not None:
            changes["proxy"] = secret_value(given.proxy)
        if given.strict_format is not None:
            changes["strict_format"] = given.strict_format
        if given.emulate is not None:
            changes["emulate"] = given.emulate.make()
        keys = [_key(key) for key in given.keys]
        pool = KeyPool(
            keys,
            name=name,
            strategy=given.strategy,
            cooldown=given.cooldown,
            max_wait_seconds=given.max_key_wait,
            store=store,
            sealer=sealer,
        )
        source = _key_source(where, given)
        if source is not None:
            pool.follow(source)
        # If keys may come from the store, an empty pool must refuse calls instead of sending them
        # without a key; except for servers that need none.
        key_optional = is_local(provider) or given.kind == "openai-compatible"
        stored = store is not None and ("keys" in given.model_fields_set or not key_optional)
        return provider.using(pool if keys or stored or source else (), **changes)
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith(where) else f"{where}: {text}") from None


def _key_source(where: str, given: ProviderSettings) -> KeySource | None:
    """The source of the keys of a provider; None if they are those of its table."""
    if given.keys_file is None and given.keys_command is None:
        return None
    if given.keys or (given.keys_file is not None and given.keys_command is not None):
        raise ConfigurationError(
            f"{where}: takes one of keys, keys_file and keys_command; remove the others."
        )
    options = {"interval": given.keys_interval} if given.keys_interval is not None else {}
    if given.keys_file is not None:
        return watch_file(given.keys_file, **options)
    return run_command(given.keys_command or (), **options)


def missing_key_sources(where: str, given: ProviderSettings) -> Iterator[str]:
    """Warnings if the file or the command with the keys of a provider does not exist (yet)."""
    if given.keys_file is not None and not Path(given.keys_file).is_file():
        yield f"{where}.keys_file: the file {given.keys_file!r} does not exist; create it."
    if given.keys_command and shutil.which(given.keys_command[0]) is None:
        yield f"{where}.keys_command: the command {given.keys_command[0]!r} is not on PATH."


def _row(where: str, name: str, given: ProviderSettings, rows: Mapping[str, Provider]) -> Provider:
    """The provider that a table describes, with its base URL."""
    kind = given.kind or name
    function, taken = _FUNCTIONS.get(kind, (None, ()))
    for option in _OPTIONS:
        if getattr(given, option) is not None and option not in taken:
            kinds = [f"'{other}'" for other, (_, takes) in _FUNCTIONS.items() if option in takes]
            only = f"kind {kinds[0]} takes" if len(kinds) == 1 else f"kinds {', '.join(kinds)} take"
            raise ConfigurationError(f"{where}.{option}: only the {only} it; remove it.")
    if function is not None:
        if given.base_url is None and kind in _NEED_BASE_URL:
            server = _NEED_BASE_URL[kind]
            raise ConfigurationError(f"{where}.base_url: is required for {kind}: {server}.")
        options = {option: getattr(given, option) for option in ("base_url", *taken)}
        options = {option: value for option, value in options.items() if value is not None}
        return function(name=name, **options)
    if kind not in rows:
        known = sorted({*rows, *_FUNCTIONS})
        listed = f"There are: {', '.join(known)}."
        hint = did_you_mean(kind, known)
        if given.kind:
            raise ConfigurationError(f"{where}.kind: there is no kind {kind!r}{hint}. {listed}")
        raise ConfigurationError(
            f"{where}: there is no provider {name!r}{hint}. Rename the table to a known provider, "
            f"or set `kind`. {listed}"
        )
    row = rows[kind]
    if given.base_url is None:
        return row
    # Other servers with OpenAI's chat API have its Responses API only if the kind says so.
    own = row.dialect.name == "openai_responses"
    native = row.native_operations if own else row.native_operations - RESPONSES
    return row.using(base_url=given.base_url, native_operations=native)


def _key(given: KeySettings) -> Key:
    secret = given.secret.get_secret_value()
    if secret.startswith("{"):  # credentials of Google: as JSON on one line they can be stored
        with suppress(ValueError):
            secret = json.dumps(json.loads(secret))
    return Key(
        secret,
        **given.model_dump(exclude={"secret", "models", "proxy"}),
        models=tuple(given.models),
        proxy=secret_value(given.proxy),
    )


def make_sealer(settings: Settings) -> SecretCipher | None:
    """The cipher for what is secret in the store; in the memory of one process none is needed."""
    if settings.sealing_keys:
        try:
            return Sealer([key.get_secret_value() for key in settings.sealing_keys])
        except ConfigurationError as error:
            raise ConfigurationError(f"sealing_keys: {error}") from None
    leaves_process = settings.redis_url is not None or settings.store_file is not None
    return None if leaves_process else NoEncryption()


def make_continuation(settings: Settings) -> SecretCipher | bool:
    """What makes the tokens of conversations that providers keep; whether there are any."""
    if not settings.conversations or not settings.sealing_keys:
        return settings.conversations
    return make_sealer(settings) or True


def secret_value(secret: SecretStr | None) -> str | None:
    """The text of a secret setting; None if it is not set."""
    return secret.get_secret_value() if secret is not None else None
