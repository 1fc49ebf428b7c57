"""Routes of groups and accounts."""

from __future__ import annotations

from asgi_aiproxy.admin.csv_response import csv_text
from asgi_aiproxy.admin.routing import AdminRequest, Route, TextBody, resource_routes
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
from asgi_aiproxy.services.statements import Statement, StatementQuery, StatementService


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


def account_routes(service: AccountService, statements: StatementService) -> list[Route]:
    """Return the routes to list, create, change and remove accounts, and their statements."""

    async def export_statement(call: AdminRequest) -> TextBody:
        return csv_text(await statements.export(call.path["id"], call.query))

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
        Route(
            method="GET",
            path="/accounts/{id}/statement",
            need="read",
            run=lambda call: statements.get(call.path["id"], call.query),
            query=StatementQuery,
            answer=Statement,
            summary="What an account used in a month: in total, by day, model and token.",
        ),
        Route(
            method="GET",
            path="/accounts/{id}/statement/export",
            need="read",
            run=export_statement,
            query=StatementQuery,
            answer=TextBody,
            media_type="text/csv",
            summary="The statement of an account for a month, as CSV.",
        ),
    ]
