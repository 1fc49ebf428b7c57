"""What the screens need beside the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Scope
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.console.sessions import SessionStore
from asgi_aiproxy.console.site import ShownSite
from asgi_aiproxy.console.steps import StepStore
from asgi_aiproxy.services.sign_in import SignInService


@dataclass(frozen=True, slots=True)
class Tools:
    """The console's own parts, see the arguments of `Console`."""

    admin: AdminApp
    sessions: SessionStore
    steps: StepStore
    gateway: ASGIApp | None
    playgrounds: Mapping[str, ASGIApp]
    gateway_url: str
    secure_cookie: bool | None
    sign_in: bool
    configured_site: ShownSite
    users: SignInService | None = None

    def public_gateway_url(self, scope: Scope, mount: str) -> str:
        """Return where clients reach the gateway, without a slash at the end."""
        host = _asgi.header(scope, b"host") or "localhost"
        base = f"{scope.get('scheme', 'http')}://{host}{mount}/"
        return urljoin(base, self.gateway_url).rstrip("/")
