"""Plans of tasks that a model made, kept between the turns of a conversation."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from asgi_aiproxy.emulation.call_syntax import FoundTask
from asgi_aiproxy.messages import Request, Text

MAX_TASKS = 3
_MAX_PLANS = 1000
_USER_TEXTS = 3


class PlanCache:
    """Keeps plans in the memory of the process.

    Arguments: `seconds` that a plan is kept after its last use; `clock`, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._plans: OrderedDict[str, tuple[float, tuple[FoundTask, ...]]] = OrderedDict()

    @staticmethod
    def key(request: Request, principal: str) -> str:
        """The key of a conversation: its caller, model, and the last texts of the user."""
        texts = [
            part.text
            for message in request.messages
            if message.role == "user"
            for part in message.parts
            if isinstance(part, Text)
        ]
        digest = hashlib.sha256()
        for text in (principal, request.model, *texts[-_USER_TEXTS:]):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    def get(self, key: str) -> tuple[FoundTask, ...] | None:
        """The plan; None if there is none, or it expired."""
        found = self._plans.pop(key, None)
        if found is None or found[0] < self._clock():
            return None
        self.put(key, found[1])
        return found[1]

    def put(self, key: str, tasks: tuple[FoundTask, ...]) -> None:
        """Keep a plan; the one that was unused longest is dropped if there are too many."""
        self._plans[key] = self._clock() + self._seconds, tasks
        if len(self._plans) > _MAX_PLANS:
            self._plans.popitem(last=False)
