"""What a pool would do with a request, without lending a key."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asgi_aiproxy.keys.key_set import KeySet, serves
from asgi_aiproxy.keys.lease import KeyRequest, NoKeyError
from asgi_aiproxy.keys.pool_description import describe_key


class KeyReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key that may serve a request.

    `usable`: now. `wait` is the number of seconds until then, None if that depends on another
    request or an operator; `reason` says why it is not usable. `rpm`, `tpm` and `concurrency` are
    its own limits.
    """

    id: str
    usable: bool
    health: str
    wait: float | None = 0.0
    reason: str = ""
    priority: int = 0
    weight: float = 1.0
    in_flight: int = 0
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


def explain_keys(
    key_set: KeySet, request: KeyRequest
) -> tuple[list[KeyReport], Sequence[str], NoKeyError | None]:
    """Return the keys that may serve a request, in order of priority; the ids of those of which one
    would be lent now; and the error if there are none.

    As far as this process knows: limits that are counted in a store are not read.
    """
    now = key_set.clock()
    states = [state for state in key_set.states.values() if serves(state, request)]
    if request.key_id:
        states = [state for state in states if state.key.id == request.key_id]
    reports = []
    for state in sorted(states, key=lambda state: state.key.priority):
        key, wait = state.key, max(state.wait_for(request.model, now), 0.0)
        reports.append(
            KeyReport(
                id=key.id,
                usable=not wait,
                health=state.status(now).health.value,
                wait=wait if wait < float("inf") else None,
                reason=describe_key(state, request.model, now) if wait else "",
                priority=key.priority,
                weight=key.weight,
                in_flight=state.in_flight,
                rpm=key.rpm,
                tpm=key.tpm,
                concurrency=key.concurrency,
            )
        )
    usable = [report for report in reports if report.usable]
    if usable:
        return reports, [r.id for r in usable if r.priority == usable[0].priority], None
    waits = [report.wait for report in reports if report.wait is not None]
    error = key_set.no_key_error(request, bool(reports), min(waits, default=None))
    return reports, (), error
