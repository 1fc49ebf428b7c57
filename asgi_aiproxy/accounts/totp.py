"""Second factors: codes of an authenticator app (TOTP, RFC 6238), and recovery codes.

An authenticator and the server share a secret, and derive a code of six digits from it and from
the number of the current half minute, the step. A code of the step before and after is accepted,
too, because clocks differ. Each step is accepted once, so that a code that was seen is worth
nothing: the row of the user has the last one, and is changed by compare-and-set.

Recovery codes have 80 random bits, so a plain SHA-256 conceals them. Each is accepted once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import msgspec

from asgi_aiproxy.errors import ConfigurationError

_STEP_SECONDS = 30
_DRIFT = 1  # steps before and after the current one
_RECOVERY_CODES, _RECOVERY_LENGTH, _RECOVERY_GROUP = 10, 16, 4
_RECOVERY_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ0123456789"  # of which no two look alike


class SecondFactor(msgspec.Struct, frozen=True, kw_only=True):
    """The second factor of a user.

    - `secret`: the shared secret, encrypted.
    - `since`: Unix time from which it is required.
    - `last_step`: the step of the code that was accepted last.
    - `recovery`: the SHA-256 of the recovery codes that are left.
    """

    secret: str
    since: float
    last_step: int = 0
    recovery: tuple[str, ...] = ()


def check_installed() -> None:
    """Raise ConfigurationError if the libraries are not installed."""
    try:
        import pyotp  # noqa: F401
        import segno  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "Second factors require: pip install 'asgi-aiproxy[accounts]'"
        ) from error


def new_secret() -> str:
    """Return a random secret of 160 bits in base32."""
    import pyotp

    return pyotp.random_base32()


def enrolment_url(secret: str, user: str, gateway: str) -> str:
    """Return the `otpauth:` URL that authenticator apps read as a QR code."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=user, issuer_name=gateway)


def qr_code(text: str) -> str:
    """Return a QR code as an SVG element."""
    import segno

    code = segno.make(text, error="m", micro=False)
    return code.svg_inline(scale=4, dark="#000", light="#fff", omitsize=True)


def accepted_step(secret: str, code: str, now: float, last_step: int) -> int | None:
    """Return the step of a code, if it is of now and after `last_step`; else None."""
    import pyotp

    totp = pyotp.TOTP(secret)
    current = int(now) // _STEP_SECONDS
    found = None
    for step in range(current - _DRIFT, current + _DRIFT + 1):
        expected = totp.generate_otp(step)
        if hmac.compare_digest(expected.encode(), code.encode()) and step > last_step:
            found = step
    return found


def is_code(text: str) -> bool:
    """Whether a text looks like a code of an authenticator, and not like a recovery code."""
    return len(text) == 6 and text.isascii() and text.isdecimal()


def new_recovery_codes() -> list[str]:
    """Return new recovery codes."""
    return [_recovery_code() for _ in range(_RECOVERY_CODES)]


def _recovery_code() -> str:
    letters = "".join(secrets.choice(_RECOVERY_LETTERS) for _ in range(_RECOVERY_LENGTH))
    starts = range(0, _RECOVERY_LENGTH, _RECOVERY_GROUP)
    return "-".join(letters[start : start + _RECOVERY_GROUP] for start in starts)


def recovery_digest(code: str) -> str:
    """Return the SHA-256 of a recovery code, however its letters and groups are written."""
    plain = "".join(char for char in code.upper() if char.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()
