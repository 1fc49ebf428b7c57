"""Load the Lua scripts that run inside Redis.

Each script runs as one atomic step. Times are in milliseconds, by the server's clock. A script file
may name the parts it needs, `-- include: clock window` for `_clock.lua` and `_window.lua`; they are
put in front of it, after the constants below. Files are read when a script is first used.

Notes for writing scripts: numbers are passed to commands as numbers, because `tostring` would round
them to 14 digits, and they are negated as `0 - x`, because "-0" is not an integer to Redis.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from importlib import resources

from asgi_aiproxy.stores.base import (
    IDEMPOTENCY_SECONDS,
    LATE_SETTLEMENT_SECONDS,
    WINDOW_PARTS,
)

_CONSTANTS = (
    f"local ONCE = {int(IDEMPOTENCY_SECONDS * 1000)}\n"
    f"local LATE = {int(LATE_SETTLEMENT_SECONDS * 1000)}\n"
    f"local PARTS = {WINDOW_PARTS}\n"
)
_INCLUDE = re.compile(r"^-- include: (.*)$", re.MULTILINE)


class Script:
    """A script: its text, and the SHA-1 digest by which a server that knows it can run it.

    Give either the name of a file in this package, or the text itself.
    """

    def __init__(self, name: str, text: str | None = None) -> None:
        self.name = name
        self._text = text

    @cached_property
    def text(self) -> str:
        """The source, with constants and included parts."""
        if self._text is not None:
            return self._text
        source = _read(f"{self.name}.lua")
        include = _INCLUDE.search(source)
        parts = [_read(f"_{part}.lua") for part in include[1].split()] if include else []
        return "\n".join((_CONSTANTS, *parts, source))

    @cached_property
    def sha(self) -> str:
        """The digest for EVALSHA."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def _read(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


# admission
ADMIT, SETTLE, RENEW = Script("admit"), Script("settle"), Script("renew")
CHARGE, PEEK = Script("charge"), Script("peek")
# holds, tables, sums and logs
HOLD, LIFT, HOLDS = Script("hold"), Script("lift"), Script("holds")
PUT, DROP, PAGE = Script("put"), Script("drop"), Script("page")
SUMS = Script("sums")
ADD, APPEND = Script("add"), Script("append")

ALL = (
    *(ADMIT, SETTLE, RENEW, CHARGE, PEEK, HOLD, LIFT, HOLDS, PUT, DROP, PAGE, ADD, SUMS, APPEND),
)
