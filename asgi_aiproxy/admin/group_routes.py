"""Routes of groups and accounts."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route, resource_routes
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
from asgi_aiproxy.services.raises import BudgetRaise


def group_routes(service: GroupService) -> list[Route]:
    """Return the routes to list, create, change and remove groups."""
    return resource_routes(
        "/groups/{name}",
        types=(GroupNew, GroupEdit, GroupOut),
        page=lambda call: service.page(call.query),
        create=lambda call: service.create(call.body, call.by),
        get=lambda call: service.get(call.path["name"]),
        edit=lambda call: service.edit(call.path["name"], call.body, call.by),
        remove=lambda call: service.drop(call.path["name"], call.by),
        summaries=(
            "List groups.",
            "Create a group.",
            "One group.",
            "Change a group.",
            "Remove a group; its tokens are refused until they are given another one.",
        ),
    )


def account_routes(service: AccountService) -> list[Route]:
    """Return the routes to list, create, change and remove accounts."""
    return [
        *resource_routes(
            "/accounts/{id}",
            types=(AccountNew, AccountEdit, AccountOut),
            page=lambda call: service.page(call.query),
            create=lambda call: service.create(call.body, call.by),
            get=lambda call: service.get(call.path["id"]),
            edit=lambda call: service.edit(call.path["id"], call.body, call.by),
            remove=lambda call: service.drop(call.path["id"], call.by),
            summaries=(
                "List accounts.",
                "Create an account.",
                "One account, and the usage of its budgets.",
                "Change an account.",
                "Remove an account; its tokens are refused.",
            ),
        ),
        Route(
            method="POST",
            path="/accounts/{id}/raise",
            need="write",
            run=lambda call: service.raise_budget(call.path["id"], call.body, call.by),
            body=BudgetRaise,
            answer=AccountOut,
            summary="Raise a budget of an account for some time.",
        ),
    ]
