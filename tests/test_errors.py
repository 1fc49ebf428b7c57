from __future__ import annotations

import pytest

from asgi_aiproxy.errors import (
    RETRYABLE,
    STATUS,
    AIProxyError,
    APIError,
    ConfigurationError,
    ErrorKind,
    error_kind_for_status,
    invalid,
)


def test_everything_raised_on_purpose_has_one_base() -> None:
    assert issubclass(APIError, AIProxyError)
    assert issubclass(ConfigurationError, AIProxyError)


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_has_a_status(kind: ErrorKind) -> None:
    assert 400 <= STATUS[kind] < 600
    assert APIError(kind, "so").status == STATUS[kind]


def test_the_status_can_be_overridden() -> None:
    error = APIError(ErrorKind.INVALID, "so", status=422, upstream_status=422)
    assert (error.status, error.upstream_status) == (422, 422)


@pytest.mark.parametrize("kind", ErrorKind)
def test_errors_that_another_key_or_provider_may_avoid_are_retryable(kind: ErrorKind) -> None:
    request = {
        ErrorKind.INVALID,
        ErrorKind.UNAUTHORIZED,
        ErrorKind.FORBIDDEN,
        ErrorKind.NOT_FOUND,
        ErrorKind.TOO_LARGE,
    }
    assert APIError(kind, "so").retryable is (kind not in {*request, ErrorKind.INTERNAL})
    assert (kind in RETRYABLE) is APIError(kind, "so").retryable


def test_an_error_reads_well_in_a_log() -> None:
    error = invalid("No such thing.", "messages[0]", "invalid_value")
    assert str(error) == "No such thing."
    assert repr(error) == "APIError(invalid, 'No such thing.', status=400)"
    assert (error.param, error.code, error.body) == ("messages[0]", "invalid_value", None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.INVALID),
        (401, ErrorKind.KEY_REJECTED),
        (402, ErrorKind.KEY_REJECTED),
        (403, ErrorKind.KEY_REJECTED),
        (404, ErrorKind.NOT_FOUND),
        (405, ErrorKind.INVALID),
        (407, ErrorKind.KEY_REJECTED),
        (408, ErrorKind.TIMEOUT),
        (410, ErrorKind.NOT_FOUND),
        (413, ErrorKind.TOO_LARGE),
        (415, ErrorKind.INVALID),
        (422, ErrorKind.INVALID),
        (429, ErrorKind.LIMITED),
        (499, ErrorKind.INVALID),
        (500, ErrorKind.UPSTREAM),
        (502, ErrorKind.UPSTREAM),
        (503, ErrorKind.OVERLOADED),
        (504, ErrorKind.TIMEOUT),
        (524, ErrorKind.TIMEOUT),
        (529, ErrorKind.OVERLOADED),
        (200, ErrorKind.UPSTREAM),
    ],
)
def test_a_providers_status_decides_the_kind(status: int, kind: ErrorKind) -> None:
    assert error_kind_for_status(status) is kind
