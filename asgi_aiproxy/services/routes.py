"""The routes of a gateway: which model leads to which providers, in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from asgi_aiproxy.patterns import is_pattern, matches_pattern
from asgi_aiproxy.providers import Provider, Target
from asgi_aiproxy.services.base import Page


class RouteTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that a route leads to. `model` is its name there, empty: as requested.

    Targets of a lower `priority` are tried first; `share` is the part of the requests that this one
    gets first, among those of its priority. `keys` counts its keys by health.
    """

    provider: str
    model: str
    priority: int
    weight: int
    share: float
    keys: dict[str, int] = {}


class RouteOut(msgspec.Struct, frozen=True, kw_only=True):
    """A route: `name` is the name of a model, or a pattern of names.

    `kind` is `name`, `pattern`, or `provider` for the names `provider/model` that always work.
    `preceded_by` are the routes that take precedence for some of its names.
    """

    name: str
    kind: Literal["name", "pattern", "provider"]
    targets: list[RouteTarget]
    display_name: str = ""
    preceded_by: list[str] = []


class RouteTable(Protocol):
    """A router that lists its routes, such as `ProviderRouter`."""

    @property
    def routes(self) -> Mapping[str, Sequence[Target]]:
        """The targets by name or pattern, in the order in which routes are searched."""

    @property
    def providers(self) -> Mapping[str, Provider]:
        """All providers by name."""


class RouteService:
    """Describes the routes of `router`; None: of none."""

    def __init__(self, router: RouteTable | None) -> None:
        self._router = router

    async def page(self) -> Page[RouteOut]:
        """Return all routes, in the order in which they are searched."""
        if self._router is None:
            return Page([])
        keys = {
            name: provider.keys.count_by_health() if provider.keys is not None else {}
            for name, provider in self._router.providers.items()
        }
        names: Mapping[str, str] = getattr(self._router, "display_names", {})
        found: list[RouteOut] = []
        for name, targets in self._router.routes.items():
            found.append(
                RouteOut(
                    name=name,
                    kind="pattern" if is_pattern(name) else "name",
                    targets=_targets(targets, keys),
                    display_name=names.get(name, ""),
                    preceded_by=[
                        other.name
                        for other in found
                        if is_pattern(name) and matches_pattern(name, other.name)
                    ],
                )
            )
        found += [
            RouteOut(
                name=f"{name}/*",
                kind="provider",
                targets=_targets([Target(provider, "")], keys),
                preceded_by=[each.name for each in found if each.name.startswith(f"{name}/")],
            )
            for name, provider in self._router.providers.items()
        ]
        return Page(found)


def _targets(targets: Sequence[Target], keys: Mapping[str, dict[str, int]]) -> list[RouteTarget]:
    """Describe targets in the order in which they are tried."""
    weights: dict[int, int] = {}
    for target in targets:
        weights[target.priority] = weights.get(target.priority, 0) + target.weight
    return [
        RouteTarget(
            provider=target.provider.name,
            model=target.model,
            priority=target.priority,
            weight=target.weight,
            share=round(target.weight / weights[target.priority], 4),
            keys=keys.get(target.provider.name, {}),
        )
        for target in sorted(targets, key=lambda target: target.priority)
    ]
