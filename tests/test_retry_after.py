from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.retry_after import retry_after, retry_after_in_message

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"content-type": "application/json"}, None),
        # in so many words
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7.5 "}, 7.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60),
        ({"retry-after": "2023-11-14T22:14:20Z"}, 60),
        ({"retry-after": "1700000030"}, 30),
        ({"retry-after": "34.07s"}, 34.07),
        # to the millisecond, before all others
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "-1", "retry-after": "7"}, 0),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after-ms": "nan"}, None),
        # what makes no sense is not there
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "6m tomorrow"}, None),
        ({"retry-after": "soon", "x-ratelimit-reset-requests": "2s"}, 2),
        # OpenAI, and those who copy it: the limits that are used up
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "0"}, 1),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}, 360),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s", "x-ratelimit-remaining-tokens": " 0 "}, 3723.5),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "12"}, None),
        (
            {
                "x-ratelimit-reset-requests": "9s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "12",
            },
            9,
        ),
        (
            {
                "x-ratelimit-reset-requests": "9s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "59.56s",
                "x-ratelimit-remaining-tokens": "0",
            },
            59.56,
        ),
        (
            {
                "x-ratelimit-reset-tokens-minute": "13.5",
                "x-ratelimit-remaining-tokens-minute": "0",
                "x-ratelimit-reset-requests-day": "80000",
                "x-ratelimit-remaining-requests-day": "99",
            },
            13.5,
        ),
        # OpenRouter: an epoch in milliseconds
        ({"x-ratelimit-reset": "1700000042000", "x-ratelimit-remaining": "0"}, 42),
        ({"x-ratelimit-reset": "1700000042000", "x-ratelimit-remaining": "3"}, None),
        ({"x-ratelimit-reset": "1700000042"}, 42),
        ({"ratelimit-reset": "50", "ratelimit-remaining": "0"}, 50),
        # Anthropic
        (
            {
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:50Z",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2023-11-14T22:15:20Z",
                "anthropic-ratelimit-tokens-remaining": "900",
            },
            30,
        ),
        ({"anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:50"}, 30),
        ({"anthropic-ratelimit-tokens-reset": "whenever"}, None),
    ],
)
def test_the_wait_is_read_in_every_format(headers: dict[str, str], seconds: float | None) -> None:
    found = retry_after(list(headers.items()), NOW)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


NAMES = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-reset",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-input-tokens-reset",
        "ratelimit-reset",
    ]
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("0123456789.-+eEinfsmhTZ: ,"), max_size=30),
    st.dates().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "+14:00"),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_no_header_of_a_provider_can_break_the_parser(headers: list[tuple[str, str]]) -> None:
    wait = retry_after(headers, NOW)
    assert wait is None or wait >= 0


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for gpt-4o on tokens per min. Please try again in 6m0s.", 360),
        ("Please try again in 20ms. Visit https://example.com to learn more.", 0.02),
        ("Limit 30000, Used 29000. Please try again in 1.242s.", 1.242),
        ("please try again in 1h2m3.5s", 3723.5),
        ("Please retry after 20 seconds. Please go here to increase the limit.", 20),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Try again in 2 minutes, 5 seconds", 125),
        ("Try again in 1 minute and 30 secs", 90),
        ("try again in 250 milliseconds", 0.25),
        ("Please try again later.", None),
        ("Please try again in a moment.", None),
        ("You can retry 3 times", None),
        ("Please try again in 5 monkeys.", None),
        ("", None),
    ],
)
def test_the_wait_is_read_from_an_error_message(message: str, seconds: float | None) -> None:
    assert retry_after_in_message(message) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(alphabet="try again in0123456789.msh, "))
def test_no_message_can_break_the_parser(message: str) -> None:
    found = retry_after_in_message("try again in " + message)
    assert found is None or found >= 0
