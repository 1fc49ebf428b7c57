"""Routes of groups and accounts."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page, PageQuery
from asgi_aiproxy.services.groups import (
    AccountEdit,
    AccountNew,
    AccountOut,
    AccountService,
    GroupEdit,
    GroupNew,
    GroupOut,
    GroupService,
)


def group_routes(service: GroupService) -> list[Route]:
    """Routes that list, create, change and remove groups."""
    many, one = "/groups", "/groups/{name}"
    return [
        Route(
            method="GET",
            path=many,
            need="read",
            run=lambda call: service.page(call.query),
            query=PageQuery,
            answer=Page[GroupOut],
            summary="List groups.",
        ),
        Route(
            method="POST",
            path=many,
            need="write",
            run=lambda call: service.create(call.body),
            body=GroupNew,
            answer=GroupOut,
            status=201,
            summary="Create a group.",
        ),
        Route(
            method="GET",
            path=one,
            need="read",
            run=lambda call: service.get(call.path["name"]),
            answer=GroupOut,
            summary="One group.",
        ),
        Route(
            method="PATCH",
            path=one,
            need="write",
            run=lambda call: service.edit(call.path["name"], call.body),
            body=GroupEdit,
            answer=GroupOut,
            summary="Change a group.",
        ),
        Route(
            method="DELETE",
            path=one,
            need="write",
            run=lambda call: service.drop(call.path["name"]),
            summary="Remove a group; its tokens are refused until they have another.",
        ),
    ]


def account_routes(service: AccountService) -> list[Route]:
    """Routes that list, create, change and remove accounts."""
    many, one = "/accounts", "/accounts/{id}"
    return [
        Route(
            method="GET",
            path=many,
            need="read",
            run=lambda call: service.page(call.query),
            query=PageQuery,
            answer=Page[AccountOut],
            summary="List accounts.",
        ),
        Route(
            method="POST",
            path=many,
            need="write",
            run=lambda call: service.create(call.body),
            body=AccountNew,
            answer=AccountOut,
            status=201,
            summary="Create an account.",
        ),
        Route(
            method="GET",
            path=one,
            need="read",
            run=lambda call: service.get(call.path["id"]),
            answer=AccountOut,
            summary="One account, and how much of its budgets is used.",
        ),
        Route(
            method="PATCH",
            path=one,
            need="write",
            run=lambda call: service.edit(call.path["id"], call.body),
            body=AccountEdit,
            answer=AccountOut,
            summary="Change an account.",
        ),
        Route(
            method="DELETE",
            path=one,
            need="write",
            run=lambda call: service.drop(call.path["id"]),
            summary="Remove an account; its tokens are refused.",
        ),
    ]
