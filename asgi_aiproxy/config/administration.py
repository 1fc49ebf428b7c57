"""The admin app and the console that settings describe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.config.accounting import make_audit_log
from asgi_aiproxy.config.accounts import check_accounts, make_sign_in, make_users
from asgi_aiproxy.config.callers import configured_callers
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.prices import Prices
from asgi_aiproxy.providers import Provider
from asgi_aiproxy.router import ProviderRouter
from asgi_aiproxy.services.explain import Explain
from asgi_aiproxy.services.key_audit import url_without_credentials
from asgi_aiproxy.services.settings import SettingOut
from asgi_aiproxy.stores import Store
from asgi_aiproxy.upstream import Transport

if TYPE_CHECKING:
    from asgi_aiproxy.config.settings import Settings
    from asgi_aiproxy.console import Site

_MASK = "********"


def make_admin(
    settings: Settings,
    store: Store,
    providers: Iterable[Provider],
    transport: Transport,
    explain: Explain,
    router: ProviderRouter,
    prices: Prices,
) -> AdminApp | None:
    """Return the admin app; None without an administrator's token."""
    if settings.admin_token is None:
        return None
    audit = make_audit_log(settings, store)
    return AdminApp(
        store,
        token=settings.admin_token.get_secret_value(),
        providers=providers,
        transport=transport,
        units_per_usd=settings.units_per_usd,
        private_networks=settings.admin_private_networks,
        self_service=settings.self_service.allowance(),
        settings=describe_settings(settings),
        audit=audit,
        users=make_users(settings, store, audit),
        explain=explain,
        callers=configured_callers(settings),
        router=router,
        prices=prices,
    )


def check_console(settings: Settings) -> None:
    """Raise ConfigurationError if the console is enabled without what it requires."""
    if settings.console and settings.admin_token is None:
        raise ConfigurationError("console: it requires an admin_token, to sign in with.")
    check_accounts(settings)


def make_console(settings: Settings, admin: AdminApp | None, gateway: ASGIApp) -> ASGIApp | None:
    """Return the console; None if it is not enabled."""
    if not settings.console or admin is None:
        return None
    from asgi_aiproxy.console import Console  # requires the extra `console`

    return Console(
        admin,
        gateway=gateway,
        gateway_url="../",
        name=settings.console_name,
        users=make_sign_in(settings, admin.users),
        site=_site(settings),
        confirm_seconds=60 * settings.accounts.confirm_minutes,
    )


def _site(settings: Settings) -> Site:
    """Return what settings add to the pages. Raises ConfigurationError."""
    from asgi_aiproxy.console import Site

    given = settings.site.model_dump()
    path = given.pop("logo")
    try:
        logo = Path(path).read_bytes() if path else b""
    except OSError as error:
        raise ConfigurationError(f"site.logo: cannot be read: {error.strerror}.") from error
    return Site(logo=logo, units_per_usd=settings.units_per_usd, **given)


def describe_settings(settings: Settings) -> list[SettingOut]:
    """Return the settings in effect, without secrets, and where each is from."""
    found = []
    for name in type(settings).model_fields:
        origin = settings.origin(name)
        for path, value in _leaves(name, getattr(settings, name)):
            found.append(SettingOut(path, value, origin))
    return found


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Return the values below a setting, each with its path and as text."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(f"{path}.{name}", getattr(value, name))
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    elif isinstance(value, SecretStr):
        yield path, _MASK
    elif isinstance(value, Sequence) and any(isinstance(x, BaseModel | SecretStr) for x in value):
        for index, inner in enumerate(value):
            yield from _leaves(f"{path}[{index}]", inner)
    elif isinstance(value, str) and "://" in value:
        yield path, json.dumps(url_without_credentials(value))
    else:
        yield path, json.dumps(value, ensure_ascii=False, default=str)
