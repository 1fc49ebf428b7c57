"""What a command works with: the configuration, its store and its providers."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from asgi_aiproxy.cli.output import print_error
from asgi_aiproxy.config.accounting import make_audit_log
from asgi_aiproxy.config.callers import configured_callers
from asgi_aiproxy.config.explain import open_explainer
from asgi_aiproxy.config.factory import has_prices, make_store, make_transport
from asgi_aiproxy.config.provider_settings import ProviderSettings
from asgi_aiproxy.config.providers import make_providers
from asgi_aiproxy.config.settings import Settings, load
from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError
from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.principal import Budget
from asgi_aiproxy.providers.catalog import ROWS
from asgi_aiproxy.services.base import ROOT, Actor
from asgi_aiproxy.services.explain import Explain
from asgi_aiproxy.services.keys import KeyService
from asgi_aiproxy.services.validation import KeyImportError
from asgi_aiproxy.stores import Store

try:
    import pwd
except ImportError:  # Windows
    pwd = None  # type: ignore[assignment]

_NO_STORE = (
    "no store is configured, and a store in memory would end with this command. Set redis_url (or "
    "AIPROXY_REDIS_URL), or store_file for a gateway of one process, in the file of --config."
)


_NO_PRICES = (
    "--budget: no model has a price, so every request within a budget in dollars would be refused: "
    "pip install 'asgi-aiproxy[prices]' here and where the gateway runs, or set your own prices in "
    "[prices]."
)


class CommandContext:
    """The settings and the open store of one command; `by` is its caller for the audit log."""

    def __init__(self, settings: Settings, store: Store, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.store = store
        self.audit = make_audit_log(settings, store)
        self.callers = configured_callers(settings)
        self.by = Actor(ROOT, "cli", _user_at_host())
        self._stack = stack

    def check_budgets(self, fields: Mapping[str, Any]) -> None:
        """Raise ConfigurationError if a budget is in dollars and no model has a price."""
        in_dollars = any(Budget.parse(text).unit == "usd" for text in fields.get("budgets", ()))
        if in_dollars and not has_prices(self.settings):
            raise ConfigurationError(_NO_PRICES)

    async def explain(self) -> Explain:
        """What explains requests to the configured gateway."""
        return await open_explainer(self.settings, self.store, self._stack)

    async def keys(self, provider: str = "") -> tuple[KeyService, list[KeyPool]]:
        """The key service and key pools of one provider, or of all."""
        settings = self.settings
        known = settings.all_providers()
        if provider and provider not in known and provider in {row.name for row in ROWS}:
            known = {provider: ProviderSettings()}
            settings = settings.model_copy(update={"providers": known, "routes": {}})
        found = make_providers(settings, self.store)
        if provider:
            found = {name: only for name, only in found.items() if name == provider}
        pools = [only.keys for only in found.values() if only.keys is not None]
        for pool in pools:
            await self._stack.enter_async_context(pool)
        transport = make_transport(settings)
        self._stack.push_async_callback(transport.aclose)
        return KeyService((), found.values(), transport, audit=self.audit), pools


def _user_at_host() -> str:
    """The operating system's user and host, for the audit log."""
    user = ""
    if pwd is not None:
        with suppress(KeyError):  # a container's user may have no name
            user = pwd.getpwuid(os.getuid()).pw_name
    return f"{user}@{socket.gethostname()}"


def run_command(
    arguments: argparse.Namespace, command: Callable[[CommandContext], Awaitable[None]]
) -> int:
    """Run a command with the configured store; returns the exit status.

    Errors are printed to standard error, without a traceback. Raises ConfigurationError.
    """
    settings = load(arguments.config)
    try:
        asyncio.run(_run(settings, command))
    except ConfigurationError:
        raise
    except KeyImportError as error:
        print_error("asgi_aiproxy: nothing was imported:")
        for invalid_line in error.lines:
            print_error(f"  line {invalid_line.line}: {invalid_line.error}")
        return 1
    except APIError as error:
        print_error(f"asgi_aiproxy: {error.message}")
        return 1
    except AIProxyError as error:
        print_error(f"asgi_aiproxy: {error}")
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print_error(f"asgi_aiproxy: {type(error).__name__}: {error}")
        return 1
    return 0


async def _run(settings: Settings, command: Callable[[CommandContext], Awaitable[None]]) -> None:
    store = make_store(settings)
    if store is None:
        raise ConfigurationError(_NO_STORE)
    async with AsyncExitStack() as stack:
        # (Not entered: the warnings about its server belong in the log of the gateway.)
        stack.push_async_callback(store.aclose)
        await command(CommandContext(settings, store, stack))
        sys.stdout.flush()
