"""Write docs/reference.md: the public names with their signatures and docstrings.

python scripts/reference.py
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"
PACKAGES = [
    "asgi_aiproxy",
    "asgi_aiproxy.providers",
    "asgi_aiproxy.middleware",
    "asgi_aiproxy.passthrough",
    "asgi_aiproxy.keys",
    "asgi_aiproxy.accounts",
    "asgi_aiproxy.prices",
    "asgi_aiproxy.stores",
    "asgi_aiproxy.admin",
    "asgi_aiproxy.compat",
    "asgi_aiproxy.console",
    "asgi_aiproxy.upstream",
    "asgi_aiproxy.dialects",
    "asgi_aiproxy.operations",
    "asgi_aiproxy.testing",
]
HEAD = """# Reference

<!-- Written by scripts/reference.py from signatures and docstrings: change them there. -->

The public names, by the package to import them from. Names that begin with an underscore, and
modules that are not listed here, may change at any time. The other pages show how to use them,
starting with [mount it](mount.md).
"""


def page() -> str:
    """The whole page."""
    seen: dict[int, str] = {}
    return "\n".join([HEAD, *(line for name in PACKAGES for line in _package(name, seen))])


def _package(name: str, seen: dict[int, str]) -> Iterator[str]:
    package = importlib.import_module(name)
    yield f"## `{name}`\n"
    yield (package.__doc__ or "").partition("\n\n")[0].strip() + "\n"
    plain = []
    for public in sorted(package.__all__, key=str.lower):
        value = getattr(package, public)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            plain.append(f"`{public}`")
        elif id(value) in seen:
            plain.append(f"`{public}` (see `{seen[id(value)]}`)")
        else:
            seen[id(value)] = f"{name}.{public}"
            yield from _entry(public, value)
    if plain:
        yield "Also here: " + ", ".join(plain) + ".\n"


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### `{name}`\n"
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        yield "Values: " + ", ".join(f"`{member.value}`" for member in value) + ".\n"
    elif shown := _signature(name, value):
        yield f"    {shown}\n"
    if text := _doc(value):
        yield text + "\n"
    if not inspect.isclass(value):
        return
    methods = []
    for own in (base for base in value.__mro__ if base.__module__.startswith("asgi_aiproxy")):
        for key, member in vars(own).items():
            if key.startswith("_") or any(key == known for known, _ in methods):
                continue
            line = _member(key, member)
            if line:
                methods.append((key, line))
    if methods:
        yield "\n".join(line for _, line in methods) + "\n"


def _member(name: str, member: Any) -> str:
    if isinstance(member, property):
        first = (member.__doc__ or "").strip().partition("\n")[0]
        return f"- `{name}`: {first}" if first else ""
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    if not inspect.isfunction(function):
        return ""
    first = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    signature = _signature(name, function, bound=not isinstance(member, staticmethod))
    begin = "await " if inspect.iscoroutinefunction(function) else ""
    return f"- `{begin}{signature}`: {first}"


def _doc(value: Any) -> str:
    text = value.__doc__ or ""
    return inspect.cleandoc(text).replace("::\n", ":\n").replace("\n:\n", "\n")


def _signature(name: str, value: Any, *, bound: bool = False) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    parts, star = [], False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        parts.append(_parameter(parameter))
    returned = signature.return_annotation
    result = "" if inspect.isclass(value) or returned is inspect.Signature.empty else returned
    return f"{name}({', '.join(parts)})" + (f" -> {_annotation(result)}" if result else "")


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


_MODULES = re.compile(r"\b(?:asgi_aiproxy|collections|typing)\.(?:\w+\.)*")
_OPTIONAL = re.compile(r"\bOptional\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    text = _MODULES.sub("", inspect.formatannotation(annotation))
    return _OPTIONAL.sub(r"\1 | None", text)  # (as Python writes it from 3.14 on)


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    simple = isinstance(value, str | int | float | bool | tuple | frozenset) or value is None
    if simple and not (isinstance(value, frozenset) and value):
        return repr(value)
    return getattr(value, "__name__", "...")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
