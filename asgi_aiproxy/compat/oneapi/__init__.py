"""The relay and the management API of One API, over the store, accounts and shims of this package.

`rows` holds what is stored, `users`, `channels`, `options`, `balances` and `logs` are the parts,
`*_routes` the management calls, `relay` the calls of models, and `app` puts them together.
"""

from __future__ import annotations

from asgi_aiproxy.compat.oneapi.app import OneAPIRoutes

__all__ = [
    "OneAPIRoutes",
]
