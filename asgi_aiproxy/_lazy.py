"""Public names of a package that are imported on first use: one part does not load the others.

A package with such names has a table of them, with the module in it that each is from::

    if TYPE_CHECKING:
        from asgi_aiproxy.prices.price import Price

    _HOME = {"Price": "price"}
    __getattr__, __dir__ = on_first_use(__name__, _HOME)

The imports below `TYPE_CHECKING` are for type checkers, and for the test of the import directions;
a test compares them with the table. A name must differ from those of the package's modules: once
imported, a module is an attribute of its package.

https://peps.python.org/pep-0562/
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def on_first_use(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package.

    `package` is its name, `homes` are its names that are imported on first use, with their modules.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
