"""Access tokens of Coze's OAuth apps: service apps, and apps with a refresh token.

https://www.coze.com/open/docs/developer_guides/oauth_jwt and .../oauth_code; the members of a key
are those of the official SDKs' configuration files (cozepy `load_oauth_app_from_config`):

    {"client_type": "jwt", "client_id": "...", "public_key_id": "...", "private_key": "-----BEGIN",
     "coze_api_base": "https://api.coze.com"}

    {"client_type": "web", "client_id": "...", "client_secret": "...", "refresh_token": "...",
     "coze_api_base": "https://api.coze.com"}

A service app signs a JSON Web Token (RS256) and exchanges it. A refresh token is valid once: each
response has the next one, which becomes the `state` of the credential.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from random import getrandbits
from typing import Any
from urllib.parse import urlsplit

from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.providers.shared_credentials import Credential
from asgi_aiproxy.upstream.connect import tls

_PATH = "/api/permission/oauth2/token"
_BASE = "https://api.coze.com"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_SECONDS = 3600  # (at most 86,399)
_JWT_SECONDS = 600
_TIMEOUT_SECONDS = 20.0
_MAX_ANSWER = 64 * 1024
_FIRST_UNIX_TIME = 1_000_000_000  # smaller numbers are seconds from now


class CozeTokenError(AIProxyError):
    """Coze gave no access token; the message has its error code."""


class CozeCredentials:
    """Access tokens for the keys of a provider with Coze's API.

    A key is the JSON text of an OAuth app, or the path of a `.json` file with it. Other keys are
    sent as they are: personal access tokens. `clock` returns Unix seconds.
    """

    name = "Coze"

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def applies(self, secret: str) -> bool:
        """Whether a key describes an OAuth app."""
        return secret.startswith("{") or secret.endswith(".json")

    def fetch(self, secret: str) -> Credential:
        """Return a new access token, as `renew` does the first time."""
        return self.renew(secret, "")

    def renew(self, secret: str, state: str) -> Credential:
        """Return a new access token; `state` is the last refresh token.

        Raises ConfigurationError for an incomplete app, and CozeTokenError if Coze refuses.
        """
        text = secret if secret.startswith("{") else Path(secret).read_text("utf-8")
        app = json.loads(text)
        if not isinstance(app, dict):
            raise ConfigurationError("An OAuth app of Coze is a JSON object.")
        base = str(app.get("coze_api_base") or _BASE).rstrip("/")
        if app.get("client_type") == "jwt":
            answer = self._exchange(base, app)
        else:
            answer = self._refresh(base, app, state)
        return self._credential(answer, state)

    def _exchange(self, base: str, app: Mapping[str, Any]) -> Any:
        """Exchange a signed JSON Web Token."""
        if find_spec("jwt") is None:
            raise ConfigurationError(
                "OAuth apps of Coze need the package PyJWT: pip install 'asgi-aiproxy[jwt]'"
            )
        import jwt

        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": _member(app, "client_id"),
            "aud": urlsplit(base).netloc,
            "iat": now,
            "exp": now + _JWT_SECONDS,
            "jti": f"{getrandbits(128):032x}",
        }
        if app.get("session_name"):
            claims["session_name"] = str(app["session_name"])
        key, headers = _member(app, "private_key"), {"kid": _member(app, "public_key_id")}
        token = jwt.encode(claims, key, algorithm="RS256", headers=headers)
        return _post(base, token, {"duration_seconds": _TOKEN_SECONDS, "grant_type": _JWT_GRANT})

    def _refresh(self, base: str, app: Mapping[str, Any], state: str) -> Any:
        """Use a refresh token: the last one, or the one in the key."""
        body = {"grant_type": "refresh_token", "client_id": _member(app, "client_id")}
        first = _member(app, "refresh_token")
        secret = str(app.get("client_secret") or "")
        try:
            return _post(base, secret, {**body, "refresh_token": state or first})
        except CozeTokenError:
            if not state or state == first:
                raise
        return _post(base, secret, {**body, "refresh_token": first})  # the operator replaced it

    def _credential(self, answer: Any, state: str) -> Credential:
        token, end = answer.get("access_token"), answer.get("expires_in")
        if not (isinstance(token, str) and token and isinstance(end, int | float)):
            raise CozeTokenError("the response has no access token")
        expires_at = float(end) if end > _FIRST_UNIX_TIME else self._clock() + end
        return Credential(token, expires_at, str(answer.get("refresh_token") or state))


def _member(app: Mapping[str, Any], name: str) -> str:
    value = app.get(name)
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"An OAuth app of Coze needs the member {name!r}.")
    return value


def _post(base: str, bearer: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request for a token; blocks, and follows no redirect. Raises CozeTokenError."""
    import http.client

    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("coze_api_base must begin with https:// and a host.")
    headers = {"content-type": "application/json", "connection": "close"}
    if bearer:
        headers["authorization"] = f"Bearer {bearer}"
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.netloc, timeout=_TIMEOUT_SECONDS, context=tls(None)
        )
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_SECONDS)
    with closing(connection):
        connection.request("POST", parts.path + _PATH, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        status, data = response.status, response.read(_MAX_ANSWER)
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if status != 200 or not isinstance(answer, dict) or "access_token" not in answer:
        code = answer.get("error_code") or answer.get("code") if isinstance(answer, dict) else None
        shown = re.sub(r"[^A-Za-z0-9_.-]", "", str(code))[:64] if code else ""
        raise CozeTokenError(f"HTTP {status}" + (f", error {shown}" if shown else ""))
    return answer
