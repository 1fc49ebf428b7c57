"""Structs with secrets: their values are not shown in tracebacks, logs and debuggers."""

from __future__ import annotations

import msgspec


class ConcealedStruct(msgspec.Struct, frozen=True):
    """A struct whose `repr` shows no values, because some of them are secret."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"
