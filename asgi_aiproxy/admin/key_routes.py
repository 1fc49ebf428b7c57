"""The paths of providers and their keys."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page, PageQuery
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


def key_routes(desk: KeyService) -> list[Route]:
    """What can be asked for of providers and keys."""

    whole = "/providers/{provider}"
    many, one = f"{whole}/keys", f"{whole}/keys/{{id}}"
    return [
        Route(
            method="GET",
            path="/providers",
            need="read",
            run=lambda call: desk.providers(call.query),
            query=PageQuery,
            answer=Page[ProviderOut],
            summary="List providers, and how their keys are.",
        ),
        Route(
            method="GET",
            path=whole,
            need="read",
            run=lambda call: desk.provider(call.path["provider"]),
            answer=ProviderOut,
            summary="One provider, and how its keys are.",
        ),
        Route(
            method="POST",
            path=f"{whole}/test",
            need="write",
            run=lambda call: desk.try_all(call.path["provider"], call.query),
            query=KeyTestQuery,
            answer=Page[KeyTestResult],
            summary="Try all keys of a page, and tell how long it took.",
        ),
        Route(
            method="GET",
            path=many,
            need="read",
            run=lambda call: desk.page(call.path["provider"], call.query),
            query=PageQuery,
            answer=Page[KeyOut],
            summary="List the keys of a provider.",
        ),
        Route(
            method="POST",
            path=many,
            need="write",
            run=lambda call: desk.create(call.path["provider"], call.body),
            body=KeyNew | list[KeyNew],
            answer=list[KeyOut],
            status=201,
            summary="Add a key or several, all or none.",
        ),
        Route(
            method="POST",
            path=f"{whole}/import",
            need="write",
            run=lambda call: desk.load(
                call.path["provider"], call.body, replace=call.query.replace
            ),
            body=bytes,
            query=ImportQuery,
            answer=Imported,
            status=201,
            summary="Add keys of a list, one a line: a secret, an id and a secret, or an object; "
            "all or none.",
        ),
        Route(
            method="GET",
            path=one,
            need="read",
            run=lambda call: desk.get(call.path["provider"], call.path["id"]),
            answer=KeyOut,
            summary="One key.",
        ),
        Route(
            method="PATCH",
            path=one,
            need="write",
            run=lambda call: desk.edit(
                call.path["provider"], call.path["id"], call.body, call.caller
            ),
            body=KeyEdit,
            answer=KeyOut,
            summary="Change a key; calls in flight keep an old secret.",
        ),
        Route(
            method="DELETE",
            path=one,
            need="write",
            run=lambda call: desk.remove(call.path["provider"], call.path["id"]),
            summary="Remove a key; calls in flight keep it.",
        ),
        Route(
            method="POST",
            path=f"{one}/enable",
            need="write",
            run=lambda call: desk.switch(call.path["provider"], call.path["id"], enabled=True),
            answer=KeyOut,
            summary="Use a key again, whatever was held against it.",
        ),
        Route(
            method="POST",
            path=f"{one}/disable",
            need="write",
            run=lambda call: desk.switch(call.path["provider"], call.path["id"], enabled=False),
            answer=KeyOut,
            summary="Use a key no more.",
        ),
        Route(
            method="POST",
            path=f"{one}/test",
            need="write",
            run=lambda call: desk.try_one(call.path["provider"], call.path["id"], call.query.model),
            query=KeyTestRequest,
            answer=KeyTestResult,
            summary="Try a key, and tell how long it took.",
        ),
    ]
