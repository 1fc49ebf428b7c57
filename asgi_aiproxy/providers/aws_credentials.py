"""Credentials of Amazon Web Services from its credential chain, by the package botocore (extra
`aws`).

https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html: environment
variables, files and profiles, web identities, single sign-on, processes, containers, instances.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.providers.shared_credentials import Credential

_CHAIN, _PROFILE = "credential-chain", "profile:"
# How long credentials without an end are used before they are read again.
_VALID_SECONDS = 600.0


class AWSCredentials:
    """Credentials for the keys of a provider at AWS.

    A key is `credential-chain`, for what the environment or the machine provides, or
    `profile:<name>`, for a profile of the configuration files of AWS. Other keys are sent as they
    are. `clock` returns Unix seconds.
    """

    name = "AWS"

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._credentials: dict[str, Any] = {}

    def applies(self, secret: str) -> bool:
        """Whether a key says where its credentials come from."""
        return secret == _CHAIN or secret.startswith(_PROFILE)

    def fetch(self, secret: str) -> Credential:
        """Return the current credentials as `SigV4` expects them.

        Raises ConfigurationError if botocore is not installed, or finds none.
        """
        credentials = self._credentials.get(secret)
        if credentials is None:
            credentials = self._credentials[secret] = _load(secret)
        frozen = credentials.get_frozen_credentials()
        parts = (frozen.access_key, frozen.secret_key, frozen.token)
        secret = ":".join(part for part in parts if part)
        # (botocore renews its credentials itself, from 15 minutes before their end.)
        end: datetime | None = getattr(credentials, "_expiry_time", None)
        expires_at = end.timestamp() if end is not None else self._clock() + _VALID_SECONDS
        return Credential(secret, expires_at)


def _load(secret: str) -> Any:
    try:
        import botocore.session  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigurationError(
            f"The credential chain of AWS needs the package botocore ({error}): "
            f"pip install 'asgi-aiproxy[aws]'"
        ) from error
    profile = secret.removeprefix(_PROFILE) if secret.startswith(_PROFILE) else None
    found = botocore.session.Session(profile=profile).get_credentials()
    if found is None:
        raise ConfigurationError("The credential chain of AWS has no credentials.")
    return found
