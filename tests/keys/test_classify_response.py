"""What a response means for the health of its key."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.keys import (
    Health,
    HealthChange,
    classify_response,
)
from tests.support.key_pools import INFINITY

pytestmark = pytest.mark.anyio

COOL, QUARANTINE, OK = Health.COOLING, Health.QUARANTINED, Health.OK


@pytest.mark.parametrize(
    ("status", "retry_after", "code", "strikes", "health", "rest"),
    [
        (200, None, None, 0, OK, 0),
        (204, 30.0, None, 9, OK, 0),
        (400, None, None, 0, OK, 0),
        (404, None, None, 0, OK, 0),
        (403, 60.0, None, 3, OK, 0),
        (403, None, "insufficient_quota", 0, OK, 0),
        (408, None, None, 0, OK, 0),
        (500, None, None, 0, OK, 0),
        (503, 60.0, None, 0, OK, 0),
        (529, None, None, 5, OK, 0),
        # The provider's word goes; without one every strike doubles the rest.
        (429, 7.0, None, 0, COOL, 7),
        (429, 7.0, None, 9, COOL, 7),
        (429, 90_000.0 * 365, None, 0, COOL, 86_400),
        (429, INFINITY, None, 0, COOL, 86_400),
        (429, 0.001, None, 0, COOL, 0.5),
        # "Now" is the shortest rest, longer each time that it was not true.
        (429, 0.0, None, 0, COOL, 0.5),
        (429, -5.0, None, 0, COOL, 0.5),
        (429, 0.0, None, 3, COOL, 4),
        (429, 0.0, None, 10**6, COOL, 2048),
        (429, None, None, 0, COOL, 10),
        (429, None, None, 1, COOL, 20),
        (429, None, None, 2, COOL, 40),
        (429, None, None, 5, COOL, 320),
        (429, None, None, 500, COOL, 320),
        (429, None, "rate_limit_exceeded", 0, COOL, 10),
        # Out of money: minutes do not help, whatever the header says.
        (429, 1.0, "insufficient_quota", 0, COOL, 3600),
        (429, None, "billing_hard_limit_reached", 0, COOL, 3600),
        (429, None, "insufficient_balance", 4, COOL, 3600),
        (401, None, None, 0, QUARANTINE, 10),
        (401, 1.0, None, 1, QUARANTINE, 20),
        (401, None, "invalid_api_key", 3, QUARANTINE, 80),
        (401, None, None, 7, QUARANTINE, 1280),
        (401, None, None, 100_000, QUARANTINE, 1280),
        (402, None, None, 0, QUARANTINE, 3600),
    ],
)
def test_a_response_is_classified_for_its_key(
    status: int,
    retry_after: float | None,
    code: str | None,
    strikes: int,
    health: Health,
    rest: float,
) -> None:
    judged = classify_response(status, retry_after, code=code, cooldown=10.0, strikes=strikes)
    assert judged == HealthChange(health, rest)


@given(
    status=st.integers(100, 600),
    retry_after=st.none() | st.floats(),
    cooldown=st.floats(0.01, 1e6),
    strikes=st.integers(0, 10**6),
)
def test_no_cooldown_is_longer_than_a_day(
    status: int, retry_after: float | None, cooldown: float, strikes: int
) -> None:
    judged = classify_response(status, retry_after, cooldown=cooldown, strikes=strikes)
    assert 0 <= judged.cooldown_seconds <= max(86_400, cooldown * 32)
    assert (judged.cooldown_seconds > 0) == (judged.health is not Health.OK)
