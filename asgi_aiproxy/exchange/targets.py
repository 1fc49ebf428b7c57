"""Which targets may serve the requests of a caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asgi_aiproxy.exchange.error_mapping import model_not_allowed_error, model_not_found_error
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers.base import Router, Target


def allowed_targets(router: Router, request: GatewayRequest) -> Sequence[Target]:
    """The targets that may serve a request of this caller. Raises APIError if there are none."""
    principal = request.principal
    if principal.models:
        for model in (request.model, *request.others):
            if not principal.may_use(model):
                raise model_not_allowed_error(model)
    targets = router.targets(request.model, request.provider)
    if principal.providers:
        targets = serving(principal, targets)
    if not targets:
        raise model_not_found_error(request.model, request.provider)
    if request.own_key:  # a client's key for one vendor is not sent to another
        targets = [t for t in targets if t.provider is targets[0].provider]
    return targets


def serving(principal: Principal, targets: Iterable[Target]) -> list[Target]:
    """Return the targets whose provider a caller may use."""
    return [target for target in targets if principal.may_use_provider(target.provider.name)]
