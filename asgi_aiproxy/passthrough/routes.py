"""Where requests lead, by their method and path: what was found once is kept for a while."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.passthrough.path_patterns import validate_path
from asgi_aiproxy.passthrough.target import ProxyTarget, models_in_path

# Asking for what there is, or removing it, costs nothing.
_FREE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
# Most requests are for the same few paths; long ones are not kept.
_CACHED_ROUTES = 1024
_MAX_CACHED_PATH = 200
_DAY = 86400.0


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a request leads.

    `path` is below the base URL, and `url` with it; `prefix` is the path that clients know the app
    by, `operation` what records call it, `models` those that the path names; `free` says that no
    model is called, and `batch` that many calls are made at once. `stateful`
    says that the path is of what only one key finds again, `resource` which of these it is of, and
    `kept` for how many seconds it is remembered which key made one.
    """

    path: str
    url: str
    prefix: str
    operation: str
    models: tuple[str, ...]
    free: bool
    batch: bool
    stateful: bool
    resource: str
    remembered_seconds: float

    @property
    def model(self) -> str:
        """The model that the path names; empty if it names none."""
        return self.models[-1] if self.models else ""


class Routes:
    """The routes to one site."""

    def __init__(self, target: ProxyTarget) -> None:
        self._target = target
        self._cached_find = lru_cache(maxsize=_CACHED_ROUTES)(self._find)

    def of(self, scope: Scope) -> Route:
        """Where this request leads. Raises APIError if it may not."""
        path: str = scope["path"]
        sent: bytes | None = scope.get("raw_path")
        short = len(path) <= _MAX_CACHED_PATH and (sent is None or len(sent) <= _MAX_CACHED_PATH)
        find = self._cached_find if short else self._find
        return find(scope.get("method", "GET"), path, scope.get("root_path", ""), sent)

    def _find(self, method: str, path: str, root: str, sent: bytes | None) -> Route:
        if not _METHOD.fullmatch(method):
            raise invalid("The request's method is none.")
        if method in ("CONNECT", "TRACE"):
            # The one is for tunnels, the other would show the client what it was not to see.
            raise APIError(ErrorKind.INVALID, f"Not allowed here: {method}.", status=405)
        below = _asgi.local_path({"path": path, "root_path": root, "raw_path": sent})
        if below is None:
            raise APIError(ErrorKind.NOT_FOUND, f"There is nothing at {path!r}.")
        target = self._target
        local = target.local(validate_path(below))
        kind = target.stateful.match_name(method, local)
        return Route(
            path=local,
            url=target.url(local, None),
            prefix=_mounted_at(root.rstrip("/"), sent, below),
            operation=target.operation(method, local),
            models=models_in_path(local),
            free=method in _FREE or target.free.match_name(method, local) is not None,
            batch=method not in _FREE and target.batches.match_name(method, local) is not None,
            stateful=kind is not None,
            resource=_resource(local, kind) if kind is not None else "",
            remembered_seconds=_DAY
            if target.calls.match_name(method, local) is not None
            else 30 * _DAY,
        )


def _resource(path: str, kind: str) -> str:
    """The resource below the path of its kind: `f` in `/v1/files/f/content`, `files/f:download`."""
    below = path.split("/")[kind.count("/") + 2 :]
    return below[0].partition(":")[0] if below else ""


def _mounted_at(root: str, sent: bytes | None, below: str) -> str:
    """The path that clients know this app by: what stands before `below`, the path below it."""
    if sent is None:
        return root
    whole = sent.decode("latin-1").partition("?")[0]
    seen = whole.removesuffix(below) if whole.endswith(below) else ""
    if root.endswith(seen):  # also if nothing is seen: a server has cut it off
        return root
    return seen if seen.startswith(root) else root + seen
