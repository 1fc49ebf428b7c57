"""Header values, parsed in the same way for requests and responses, shims and the proxy."""

from __future__ import annotations


def combine_values(before: str, value: str) -> str:
    """Return the value of a repeated header: the values before, and one more.

    Values are joined with commas, in their order (RFC 9110, 5.3), and equal ones are listed once.
    So a header that may have one value, but is sent with two, has an invalid value, instead of the
    first for one parser and the last for another.
    """
    return before if value in (before, *before.split(", ")) else f"{before}, {value}"


def content_codings(value: str) -> list[str]:
    """Return the codings of a `content-encoding` value in lower case, without `identity`.

    https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1
    """
    codings = [coding.strip(" \t").lower() for coding in value.split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]
