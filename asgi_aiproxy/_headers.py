"""Headers as requests and answers, shim and proxy read them alike."""

from __future__ import annotations


def combine_values(before: str, value: str) -> str:
    """The value of a header that is repeated: what it had before, and one more.

    The values in their order with commas between them (RFC 9110, 5.3), and one that is repeated
    itself only once. So a header that may have one value only, and is sent with two, has a value
    that is not valid: never the first to one reader and the last to another.
    """
    return before if value in (before, *before.split(", ")) else f"{before}, {value}"


def content_codings(value: str) -> list[str]:
    """The codings that a `content-encoding` names, in lower case, without those that do nothing.

    https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1
    """
    named = [coding.strip(" \t").lower() for coding in value.split(",")]
    return [coding for coding in named if coding not in ("", "identity")]
