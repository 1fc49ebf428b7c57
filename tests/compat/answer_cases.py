"""Answers of a predecessor as tables: one line is a request and what its answer must have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from tests.support import asgi_client as asgi


class Case(NamedTuple):
    """`caller` sends `request` ("GET /path") with `body`; the answer has `status` and `members`.

    `members` is compared by `differs`; None: the body is empty; a string: the body contains it.
    """

    caller: str
    request: str
    body: Any
    status: int | tuple[int, ...]
    members: Any


def differs(found: Any, wanted: Any, where: str = "") -> str:
    """Return where `found` is not as wanted, "" if it is.

    A type stands for any value of it, `...` for any value, a tuple for one of its items, a set
    for a list that has these items, and an object has at least the wanted members.
    """
    if wanted is ...:
        return ""
    if isinstance(wanted, type):
        fits = isinstance(found, wanted) and (wanted is bool or not isinstance(found, bool))
        fits = fits or (wanted is float and isinstance(found, int))
        return "" if fits else f"{where}: {found!r} is not of type {wanted.__name__}"
    if isinstance(wanted, tuple):
        fits = any(not differs(found, item) for item in wanted)
        return "" if fits else f"{where}: {found!r} is not one of {wanted!r}"
    if isinstance(wanted, set):
        fits = isinstance(found, list) and wanted <= set(found)
        return "" if fits else f"{where}: {found!r} lacks one of {wanted!r}"
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return f"{where}: {found!r} is not an object"
        for name, value in wanted.items():
            if name not in found:
                return f"{where}.{name} is missing in {found!r}"
            if problem := differs(found[name], value, f"{where}.{name}"):
                return problem
        return ""
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"{where}: {found!r} is not a list of {len(wanted)}"
        pairs = enumerate(zip(found, wanted, strict=True))
        return next(filter(None, (differs(a, b, f"{where}[{i}]") for i, (a, b) in pairs)), "")
    return "" if found == wanted else f"{where}: {found!r} is not {wanted!r}"


def problem_of(case: Case, answer: asgi.Answer) -> str:
    """Return what is wrong with the answer to a case, "" if nothing is."""
    if differs(answer.status, case.status):
        return f"status {answer.status}, not {case.status}: {answer.body[:300]!r}"
    if case.members is None:
        return f"body {answer.body!r}" if answer.body else ""
    if isinstance(case.members, str):
        return "" if case.members in answer.body.decode() else f"body {answer.body[:300]!r}"
    try:
        return differs(answer.json, case.members)
    except ValueError:
        return f"no JSON: {answer.body[:300]!r}"


async def problems(
    cases: Iterable[Case], send: Callable[[Case], Awaitable[asgi.Answer]]
) -> list[str]:
    """Send the requests one after the other, and return what is wrong with which."""
    found = []
    for number, case in enumerate(cases):
        problem = problem_of(case, await send(case))
        if problem:
            found.append(f"{number} {case.caller} {case.request} {case.body!r}: {problem}")
    return found
