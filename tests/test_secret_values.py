"""What holds a secret does not show it when it is printed, logged, or part of a traceback."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import msgspec

import asgi_aiproxy
from asgi_aiproxy.services.keys import KeyNew
from asgi_aiproxy.services.sign_up import SignUpForm

SECRET = re.compile(r"password|secret|verifier|credentials|link|token|api_key").fullmatch
# What these hold in such members is a hash, is encrypted, or is not secret.
HARMLESS = {"User", "SecondFactor", "FactorStep", "Provider"}


def structs() -> Iterator[type]:
    """All structs and data classes of the package."""
    for found in pkgutil.walk_packages(asgi_aiproxy.__path__, "asgi_aiproxy."):
        if found.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(found.name)).values():
            if inspect.isclass(value) and value.__module__ == found.name:
                yield value


def shown(kind: type) -> set[str]:
    """The members that its `repr` shows."""
    if issubclass(kind, msgspec.Struct):
        return set(kind.__struct_fields__) if kind.__repr__ is msgspec.Struct.__repr__ else set()
    if dataclasses.is_dataclass(kind) and kind.__dataclass_params__.repr:  # type: ignore[attr-defined]
        return {field.name for field in dataclasses.fields(kind) if field.repr}
    return set()


def test_no_struct_shows_a_secret() -> None:
    showing = {kind.__name__ for kind in structs() if any(map(SECRET, shown(kind)))}
    assert showing == HARMLESS


def test_a_struct_with_a_secret_is_shown_without_values() -> None:
    assert repr(KeyNew(secret="sk-1")) == "KeyNew(...)"
    form = SignUpForm(username="ann", password="correct horse")
    assert "correct horse" not in f"{form} {form!r} {[form]}"
