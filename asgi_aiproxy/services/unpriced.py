"""Models in the usage log that have no price."""

from __future__ import annotations

import msgspec

from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.usage import UsageService
from asgi_aiproxy.usage.ledger import Query
from asgi_aiproxy.usage.record import UsageRecord

_PAGES = 20  # of the log that are examined, newest first
_PAGE = 500


class UnpricedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of which exchanges have tokens and no cost; `last` is the Unix time of the latest."""

    provider: str
    model: str
    requests: int
    input: int
    output: int
    last: float


class UnpricedQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which Unix time on exchanges are counted."""

    since: float | None = None


async def unpriced_models(usage: UsageService, query: UnpricedQuery) -> Page[UnpricedModel]:
    """Return the models without a price among the latest 10,000 exchanges of the log.

    Those with the most requests come first.
    """
    found: dict[tuple[str, str], UnpricedModel] = {}
    after = ""
    for _ in range(_PAGES):
        page = await usage.ledger.query(Query(since=query.since), after=after, limit=_PAGE)
        for record in page.records:
            _count(found, record)
        after = page.after
        if not after:
            break
    return Page(sorted(found.values(), key=lambda model: (-model.requests, model.model)), None)


def _count(found: dict[tuple[str, str], UnpricedModel], record: UsageRecord) -> None:
    usage, model = record.usage, record.upstream_model or record.model or record.requested_model
    if usage is None or record.cost is not None or not model:
        return
    known = found.get((record.provider, model))
    found[record.provider, model] = UnpricedModel(
        provider=record.provider,
        model=model,
        requests=1 + (known.requests if known is not None else 0),
        input=usage.input + (known.input if known is not None else 0),
        output=usage.output + (known.output if known is not None else 0),
        last=max(record.started, known.last if known is not None else 0.0),
    )
