from __future__ import annotations

import pytest

from asgi_aiproxy.errors import (
    RETRYABLE,
    STATUS,
    AIProxyError,
    APIError,
    ConfigurationError,
    Kind,
    invalid,
    kind_of,
)


def test_everything_raised_on_purpose_has_one_base() -> None:
    assert issubclass(APIError, AIProxyError)
    assert issubclass(ConfigurationError, AIProxyError)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_status(kind: Kind) -> None:
    assert 400 <= STATUS[kind] < 600
    assert APIError(kind, "so").status == STATUS[kind]


def test_the_status_may_be_said_more_exactly() -> None:
    error = APIError(Kind.INVALID, "so", status=422, upstream_status=422)
    assert (error.status, error.upstream_status) == (422, 422)


@pytest.mark.parametrize("kind", Kind)
def test_what_another_key_or_provider_may_do_better_is_retryable(kind: Kind) -> None:
    request = {Kind.INVALID, Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.NOT_FOUND, Kind.TOO_LARGE}
    assert APIError(kind, "so").retryable is (kind not in {*request, Kind.INTERNAL})
    assert (kind in RETRYABLE) is APIError(kind, "so").retryable


def test_an_error_reads_well_in_a_log() -> None:
    error = invalid("No such thing.", "messages[0]", "invalid_value")
    assert str(error) == "No such thing."
    assert repr(error) == "APIError(invalid, 'No such thing.', status=400)"
    assert (error.param, error.code, error.body) == ("messages[0]", "invalid_value", None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.INVALID),
        (401, Kind.KEY_REJECTED),
        (402, Kind.KEY_REJECTED),
        (403, Kind.KEY_REJECTED),
        (404, Kind.NOT_FOUND),
        (405, Kind.INVALID),
        (407, Kind.KEY_REJECTED),
        (408, Kind.TIMEOUT),
        (410, Kind.NOT_FOUND),
        (413, Kind.TOO_LARGE),
        (415, Kind.INVALID),
        (422, Kind.INVALID),
        (429, Kind.LIMITED),
        (499, Kind.INVALID),
        (500, Kind.UPSTREAM),
        (502, Kind.UPSTREAM),
        (503, Kind.OVERLOADED),
        (504, Kind.TIMEOUT),
        (524, Kind.TIMEOUT),
        (529, Kind.OVERLOADED),
        (200, Kind.UPSTREAM),
    ],
)
def test_a_providers_status_tells_the_kind(status: int, kind: Kind) -> None:
    assert kind_of(status) is kind
