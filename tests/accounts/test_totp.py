"""Codes of authenticators: the test vectors of RFC 6238, steps, recovery codes."""

from __future__ import annotations

import base64

import pyotp
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.accounts.totp import (
    accepted_step,
    enrolment_url,
    is_code,
    new_recovery_codes,
    new_secret,
    qr_code,
    recovery_digest,
)

SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("now", "code"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"),
     (2000000000, "279037"), (20000000000, "353130")],
)  # fmt: skip
def test_codes_are_those_of_rfc_6238(now: float, code: str) -> None:
    assert accepted_step(SECRET, code, now, 0) == now // 30
    assert accepted_step(SECRET, code, now, now // 30) is None


@given(st.integers(1000, 10**10), st.integers(-5, 5))
def test_a_code_of_the_step_before_and_after_is_accepted_and_no_other(now: int, off: int) -> None:
    code = pyotp.TOTP(SECRET).generate_otp(now // 30 + off)
    found = accepted_step(SECRET, code, now, 0)
    near = {pyotp.TOTP(SECRET).generate_otp(now // 30 + each) for each in (-1, 0, 1)}
    assert (found is not None) == (code in near)


@given(st.text())
def test_no_text_is_accepted_by_accident_or_breaks_it(text: str) -> None:
    if not is_code(text):
        assert accepted_step(SECRET, text, 59, 0) is None
    recovery_digest(text)


def test_secrets_and_recovery_codes_are_random_and_long() -> None:
    assert len(base64.b32decode(new_secret())) == 20
    assert new_secret() != new_secret()
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    assert {len(code) for code in codes} == {19}
    assert recovery_digest(codes[0]) == recovery_digest(f" {codes[0].lower().replace('-', '')} ")


def test_the_qr_code_is_an_svg_without_code_and_styles() -> None:
    url = enrolment_url(SECRET, 'ann"><script>', "Our <gateway>")
    assert url.startswith("otpauth://totp/")
    assert "<" not in url
    svg = qr_code(url)
    assert svg.startswith("<svg")
    assert not {"script", "style", "href"} & set(svg.replace("=", " ").replace("<", " ").split())
