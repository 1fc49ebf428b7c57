"""`OneAPIRoutes`: the relay and the management API of songquanpeng's One API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.compat.oneapi.balances import Balances
from asgi_aiproxy.compat.oneapi.channel_routes import ChannelRoutes
from asgi_aiproxy.compat.oneapi.channels import ChannelRouter
from asgi_aiproxy.compat.oneapi.info_routes import InfoRoutes
from asgi_aiproxy.compat.oneapi.logs import LogReader
from asgi_aiproxy.compat.oneapi.management import Management
from asgi_aiproxy.compat.oneapi.options import OptionRatios, Options
from asgi_aiproxy.compat.oneapi.redemption_routes import RedemptionRoutes, Redemptions
from asgi_aiproxy.compat.oneapi.relay import RelayRoutes
from asgi_aiproxy.compat.oneapi.relay_errors import encode_relay_error
from asgi_aiproxy.compat.oneapi.rows import OneAPIData
from asgi_aiproxy.compat.oneapi.token_routes import TokenRoutes
from asgi_aiproxy.compat.oneapi.user_routes import UserRoutes
from asgi_aiproxy.compat.oneapi.users import OneAPIUsers
from asgi_aiproxy.compat.routing import CompatApp, CompatCall
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.keys.encryption import SecretCipher
from asgi_aiproxy.keys.key import fingerprint
from asgi_aiproxy.middleware.quota import Quota
from asgi_aiproxy.prices import Pricing
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.usage.recorder import UsageSink, discard


class OneAPIRoutes(CompatApp):
    """An ASGI app with the paths of One API: the relay below `/v1`, management below `/api`.

    Arguments:

    - `store`: keeps users, tokens, channels, redemption codes, options and the log.
    - `root_password`: the password of the user `root`, which is also accepted as a system access
      token. Required; there is no default.
    - `sealer`: encrypts the keys of channels and tokens; required unless `store` is in memory.
    - `prices`: list prices for models that have no ratio.
    - `bases`: base URLs of providers by name (`openai`, `gemini` ...), for channels without one.
    - `passwords`: hashes the passwords of users; by default with the usual costs.
    - `api_limit`: how many calls below `/api` an address may make in three minutes (One API: 180);
      0 for any number. Failed attempts to sign in are limited in any case.
    - `transport`, `record`: as for `Shim`.
    - `clock`: returns Unix time in seconds.

    Raises ConfigurationError if an argument is invalid.

    ::

        app.mount("/", OneAPIRoutes(store, root_password=os.environ["ROOT_PASSWORD"]))
    """

    def __init__(
        self,
        store: Store,
        *,
        root_password: str,
        sealer: SecretCipher | None = None,
        prices: Pricing | None = None,
        bases: Mapping[str, str] | None = None,
        passwords: Passwords | None = None,
        api_limit: int = 0,
        transport: Transport | None = None,
        record: UsageSink = discard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(root_password, str) or not root_password.strip():
            raise ConfigurationError("OneAPIRoutes: root_password is required, with no default.")
        super().__init__(transport)
        data = OneAPIData(store, sealer, clock=clock)
        self._options = Options(data)
        ratios = OptionRatios(self._options, prices)
        self._ledger = Ledger(store, name="oneapi.ledger", ratios=ratios)
        self._channels = ChannelRouter(data, bases or {})
        self._base = Management(
            data,
            OneAPIUsers(data, passwords, root_digest=fingerprint(root_password)),
            self._options,
            Balances(data),
            self._channels,
            LogReader(data, self._ledger),
            self.transport,
            root_password,
            api_limit,
        )

        def with_quota(app: Any) -> Quota:
            return Quota(app, store=store, prices=prices, ratios=ratios)

        relay = RelayRoutes(self._base, self, with_quota)

        async def recorded(given: UsageRecord) -> None:
            if self._options.on("LogConsumeEnabled"):
                await self._ledger(given)
            await record(given)

        relay.on_record(recorded)
        tokens = TokenRoutes(self._base)
        redemptions = Redemptions(self._base)
        self._channel_routes = ChannelRoutes(self._base)
        self.routes = [
            *relay.routes(),
            *UserRoutes(self._base, tokens, redemptions).routes(),
            *tokens.routes(),
            *RedemptionRoutes(self._base, redemptions).routes(),
            *self._channel_routes.routes(),
            *InfoRoutes(self._base).routes(),
        ]
        self._ready = False

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._prepare()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        if self._users == 0:
            await self._channel_routes.aclose()
            await self._ledger.drain()
            self._channels.stop()
            self._options.stop()
            self._ready = False

    async def prepare(self, call: CompatCall) -> None:
        """Load what calls need, once in each event loop."""
        if not self._ready:
            await self._prepare()

    async def _prepare(self) -> None:
        self._ready = True
        self._options.start()
        self._channels.start()
        await self._base.ensure_root()
        await self._options.load()
        await self._channels.refresh(force=True)

    def unknown(self, method: str, path: str) -> APIError:
        """Return the error for a path that is not served."""
        message = f"Invalid URL ({method} {path})."
        return APIError(ErrorKind.NOT_FOUND, message, code="api_not_found")

    def encode_error(self, error: APIError) -> bytes:
        """Write the body of an error of the app itself."""
        return encode_relay_error(error)
