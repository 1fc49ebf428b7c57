"""Passkeys: credentials with which users sign in without a password (WebAuthn)."""

from __future__ import annotations

import msgspec


class Passkey(msgspec.Struct, frozen=True, kw_only=True):
    """A passkey of a user.

    - `id`: the id of the credential, in base64url.
    - `public_key`: its public key (COSE), in base64url.
    - `sign_count`: the counter of its last signature; 0 for passkeys that do not count.
    - `name`: by which the user knows it.
    - `created`, `used`: Unix times; 0: never used.
    """

    id: str
    public_key: str
    sign_count: int
    name: str
    created: float
    used: float = 0.0
