"""Routes of providers and their keys."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page, PageQuery
from asgi_aiproxy.services.bulk import BulkResult, KeySelection, change_keys
from asgi_aiproxy.services.key_test import KeyTestResult
from asgi_aiproxy.services.keys import (
    Imported,
    ImportQuery,
    KeyEdit,
    KeyNew,
    KeyOut,
    KeyService,
    KeyTestQuery,
    KeyTestRequest,
    ProviderOut,
)


def key_routes(service: KeyService) -> list[Route]:
    """Return the routes to list providers, and to list, add, change, test and remove their keys."""

    provider = "/providers/{provider}"
    collection, item = f"{provider}/keys", f"{provider}/keys/{{id}}"
    return [
        Route(
            method="GET",
            path="/providers",
            need="read",
            run=lambda call: service.providers(call.query),
            query=PageQuery,
            answer=Page[ProviderOut],
            summary="List providers and the states of their keys.",
        ),
        Route(
            method="GET",
            path=provider,
            need="read",
            run=lambda call: service.provider(call.path["provider"]),
            answer=ProviderOut,
            summary="One provider and the states of its keys.",
        ),
        Route(
            method="POST",
            path=f"{provider}/test",
            need="write",
            run=lambda call: service.try_all(call.path["provider"], call.query),
            query=KeyTestQuery,
            answer=Page[KeyTestResult],
            summary="Test all keys of a page; the results include the time each took.",
        ),
        Route(
            method="GET",
            path=collection,
            need="read",
            run=lambda call: service.page(call.path["provider"], call.query),
            query=PageQuery,
            answer=Page[KeyOut],
            summary="List the keys of a provider.",
        ),
        Route(
            method="POST",
            path=collection,
            need="write",
            run=lambda call: service.create(call.path["provider"], call.body, call.by),
            body=KeyNew | list[KeyNew],
            answer=list[KeyOut],
            status=201,
            summary="Add one key or several; all or none.",
        ),
        Route(
            method="POST",
            path=f"{provider}/import",
            need="write",
            run=lambda call: service.load(
                call.path["provider"], call.body, replace=call.query.replace, by=call.by
            ),
            body=bytes,
            query=ImportQuery,
            answer=Imported,
            status=201,
            summary=(
                "Add the keys of a text, one per line: a secret, an id and a secret, or a "
                "JSON object; all or none."
            ),
        ),
        Route(
            method="GET",
            path=item,
            need="read",
            run=lambda call: service.get(call.path["provider"], call.path["id"]),
            answer=KeyOut,
            summary="One key.",
        ),
        Route(
            method="PATCH",
            path=item,
            need="write",
            run=lambda call: service.edit(
                call.path["provider"], call.path["id"], call.body, call.by
            ),
            body=KeyEdit,
            answer=KeyOut,
            summary="Change a key; requests in flight keep the old secret.",
        ),
        Route(
            method="DELETE",
            path=item,
            need="write",
            run=lambda call: service.remove(call.path["provider"], call.path["id"], call.by),
            summary="Remove a key; requests in flight keep it.",
        ),
        Route(
            method="POST",
            path="/providers/{provider}/bulk",
            need="write",
            run=lambda call: change_keys(service, call.path["provider"], call.body, call.by),
            body=KeySelection,
            answer=BulkResult,
            summary="Enable, disable or remove several keys.",
        ),
        Route(
            method="POST",
            path=f"{item}/enable",
            need="write",
            run=lambda call: service.switch(
                call.path["provider"], call.path["id"], enabled=True, by=call.by
            ),
            answer=KeyOut,
            summary="Enable a key, and reset its cooldown and errors.",
        ),
        Route(
            method="POST",
            path=f"{item}/disable",
            need="write",
            run=lambda call: service.switch(
                call.path["provider"], call.path["id"], enabled=False, by=call.by
            ),
            answer=KeyOut,
            summary="Disable a key.",
        ),
        Route(
            method="POST",
            path=f"{item}/test",
            need="write",
            run=lambda call: service.try_one(
                call.path["provider"], call.path["id"], call.query.model
            ),
            query=KeyTestRequest,
            answer=KeyTestResult,
            summary="Test a key; the result includes the time it took.",
        ),
    ]
