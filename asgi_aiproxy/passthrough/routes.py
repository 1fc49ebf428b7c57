"""Routes of proxied requests, by method and path; results are cached."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.passthrough.path_patterns import validate_path
from asgi_aiproxy.passthrough.target import ProxyTarget, fully_unquoted, models_in_path
from asgi_aiproxy.providers.resource_references import is_id

# Requests for lists, and deletions, cost nothing.
_FREE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
# Most requests use a few paths; long paths are not cached.
_CACHED_ROUTES = 1024
_MAX_CACHED_PATH = 200
_DAY = 86400.0
_SEPARATORS = re.compile(r"[/\\;:]")
# Actions below a collection, not ids: /threads/runs creates a thread and runs it.
_ACTIONS = frozenset({"runs", "compact", "input_tokens", "edits", "extensions", "characters"})


class Route(msgspec.Struct, frozen=True, gc=False):
    """The route of a request.

    `path` is below the base URL, and `url` is the two together; `prefix` is the path at which
    clients reach the app; `operation` is the name for usage records; `models` are the models named
    in the path, `model` is the last of them. `free`: the request calls no model. `batch`: it makes
    many calls. `stateful`: the path is of a resource that belongs to one key; `resource` is that
    resource, `named` are all segments that have the form of ids, and `remembered_seconds` is how
    long the key of a created resource is remembered.
    """

    path: str
    url: str
    prefix: str
    operation: str
    models: tuple[str, ...]
    model: str
    free: bool
    batch: bool
    stateful: bool
    resource: str
    named: tuple[str, ...]
    remembered_seconds: float


class Routes:
    """The routes to one upstream."""

    def __init__(self, target: ProxyTarget) -> None:
        self._target = target
        self._cached_find = lru_cache(maxsize=_CACHED_ROUTES)(self._find)

    def of(self, scope: Scope) -> Route:
        """Return the route of a request. Raises APIError if the path or method is not served."""
        path: str = scope["path"]
        sent: bytes | None = scope.get("raw_path")
        cacheable = len(path) <= _MAX_CACHED_PATH and (
            sent is None or len(sent) <= _MAX_CACHED_PATH
        )
        find = self._cached_find if cacheable else self._find
        return find(scope.get("method", "GET"), path, scope.get("root_path", ""), sent)

    def _find(self, method: str, path: str, root: str, sent: bytes | None) -> Route:
        if not _METHOD.fullmatch(method):
            raise invalid("The request's method is invalid.")
        if method in ("CONNECT", "TRACE"):
            # CONNECT is for tunnels; TRACE would return headers to the client that it must not see.
            raise APIError(ErrorKind.INVALID, f"Not allowed here: {method}.", status=405)
        local_path = _asgi.local_path({"path": path, "root_path": root, "raw_path": sent})
        if local_path is None:
            raise APIError(ErrorKind.NOT_FOUND, f"Unknown request URL: {path!r}.")
        target = self._target
        local = target.local(validate_path(local_path))
        kind = target.stateful.match_name(method, local)
        models = models_in_path(local)
        return Route(
            path=local,
            url=target.url(local, None),
            prefix=_mounted_at(root.rstrip("/"), sent, local_path),
            operation=target.operation(method, local),
            models=models,
            model=models[-1] if models else "",
            free=method in _FREE or target.free.match_name(method, local) is not None,
            batch=method not in _FREE and target.batches.match_name(method, local) is not None,
            stateful=kind is not None,
            resource=_resource(local, kind) if kind is not None else "",
            named=tuple(filter(is_id, _SEPARATORS.split(fully_unquoted(local)))),
            remembered_seconds=_DAY
            if target.calls.match_name(method, local) is not None
            else 30 * _DAY,
        )


def _resource(path: str, kind: str) -> str:
    """Return the resource in a path below the path of its kind: `f` in `/v1/files/f/content`,
    `files/f:download`. It is read as a server would that decodes all of the path.
    """
    below = path.split("/")[kind.count("/") + 2 :]
    found = fully_unquoted(below[0]).partition(":")[0] if below else ""
    return found if found not in _ACTIONS else ""


def _mounted_at(root: str, sent: bytes | None, local_path: str) -> str:
    """Return the path at which clients reach this app: the part before `below`, the path
    below it.
    """
    if sent is None:
        return root
    full_path = sent.decode("latin-1").partition("?")[0]
    prefix = full_path.removesuffix(local_path) if full_path.endswith(local_path) else ""
    if root.endswith(prefix):  # also if it is empty: the server has removed it
        return root
    return prefix if prefix.startswith(root) else root + prefix
