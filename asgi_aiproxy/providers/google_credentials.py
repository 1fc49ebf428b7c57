"""Access tokens for Google Cloud, by the package google-auth (extra `google`).

https://googleapis.dev/python/google-auth/latest/ and
https://cloud.google.com/docs/authentication/application-default-credentials
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.providers.shared_credentials import Credential

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_DEFAULT = "application-default"


class GoogleCredentials:
    """Access tokens for the keys of a provider on Google Cloud.

    A key is one of these: `application-default`, for what the environment or the machine provides;
    the JSON text, or the path of a `.json` file, of a service account, of a workload identity
    federation (`external_account`), or of an authorized user. Other keys are sent as they are: they
    must be access tokens. Raises ConfigurationError if google-auth is not installed.
    """

    name = "Google"

    def __init__(self) -> None:
        if not all(map(_installed, ("google.auth", "requests"))):
            raise ConfigurationError(
                "Google Cloud needs the packages google-auth and requests: "
                "pip install 'asgi-aiproxy[google]'"
            )
        self._credentials: dict[str, Any] = {}

    def applies(self, secret: str) -> bool:
        """Whether a key says where its access tokens come from."""
        return secret == _DEFAULT or secret.startswith("{") or secret.endswith(".json")

    def fetch(self, secret: str) -> Credential:
        """Return a new access token."""
        from google.auth.transport.requests import Request

        credentials = self._credentials.get(secret)
        if credentials is None:
            credentials = self._credentials[secret] = _load(secret)
        credentials.refresh(Request())
        expiry = credentials.expiry.replace(tzinfo=UTC)  # a naive datetime in UTC
        return Credential(str(credentials.token), expiry.timestamp())


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def _load(secret: str) -> Any:
    import google.auth

    if secret == _DEFAULT:
        found, _ = google.auth.default(scopes=_SCOPES)
        return found
    text = secret if secret.startswith("{") else Path(secret).read_text("utf-8")
    return _of_type(json.loads(text))


def _of_type(info: Any) -> Any:
    """The credentials that a JSON file describes, by their type.

    Those that run a program are not accepted: a key could run it on this machine.
    """
    import google.auth.aws
    import google.auth.identity_pool
    import google.oauth2.credentials
    import google.oauth2.service_account

    source = info.get("credential_source") or {}
    make: Callable[..., Any]
    match info.get("type"):
        case "service_account":
            make = google.oauth2.service_account.Credentials.from_service_account_info
        case "authorized_user":
            make = google.oauth2.credentials.Credentials.from_authorized_user_info
        case "external_account" if str(source.get("environment_id", "")).startswith("aws"):
            make = google.auth.aws.Credentials.from_info
        case "external_account" if "executable" not in source:
            make = google.auth.identity_pool.Credentials.from_info
        case kind:
            raise ValueError(f"credentials of the type {kind!r} are not supported")
    return make(info, scopes=_SCOPES)
