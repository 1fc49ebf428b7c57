"""The commands `groups` and `accounts`: settings and budgets that several tokens share."""

from __future__ import annotations

import argparse
from typing import Any

from asgi_aiproxy.cli import options, output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, add_command, add_command_group, add_paging_options
from asgi_aiproxy.services.base import PageQuery
from asgi_aiproxy.services.groups import (
    AccountEdit,
    AccountNew,
    AccountService,
    GroupEdit,
    GroupNew,
    GroupService,
)
from asgi_aiproxy.services.raises import BudgetRaise
from asgi_aiproxy.services.statements import StatementQuery, StatementService
from asgi_aiproxy.services.validation import convert


def add(commands: Commands) -> None:
    """Add the commands."""
    subcommands = add_command_group(
        commands, "groups", "manage groups, which set prices, providers and keys of tokens"
    )
    _add_group_options(add_command(subcommands, "create", "create a group", _create_group))
    _add_group_options(
        add_command(
            subcommands, "edit", "change a group; options not given stay unchanged", _edit_group
        )
    )
    add_paging_options(add_command(subcommands, "list", "list groups", _list_groups))
    remove = add_command(
        subcommands,
        "remove",
        "remove a group; its tokens are refused until they are edited",
        _remove_group,
    )
    remove.add_argument("name")

    subcommands = add_command_group(
        commands, "accounts", "manage accounts, whose budgets several tokens share"
    )
    _add_account_options(add_command(subcommands, "create", "create an account", _create_account))
    _add_account_options(
        add_command(
            subcommands,
            "edit",
            "change an account; options not given stay unchanged",
            _edit_account,
        )
    )
    more = add_command(
        subcommands, "raise", "raise a budget for some time; the raise ends by itself", _raise
    )
    more.add_argument("id")
    options.add_raise_options(more)
    add_paging_options(
        add_command(
            subcommands, "list", "list accounts and what is left of their budgets", _list_accounts
        )
    )
    statement = add_command(
        subcommands, "statement", "show what an account used in a month", _statement
    )
    statement.add_argument("id")
    statement.add_argument("--month", default="", metavar="MONTH", help="2026-11 (the current one)")
    statement.add_argument("--csv", action="store_true", help="print CSV")
    remove = add_command(
        subcommands, "remove", "remove an account; its tokens are refused", _remove_account
    )
    remove.add_argument("id")


def _add_group_options(parser: argparse.ArgumentParser) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    parser.add_argument("name")
    option("--ratio", "factor on prices for its members (1)", type=float)
    option("--providers", "providers its members may use (all)", nargs="*", metavar="PATTERN")
    option("--keys", "provider keys its members may use (all)", nargs="*", metavar="PATTERN")


def _add_account_options(parser: argparse.ArgumentParser) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    parser.add_argument("id")
    option("--name", "display name")
    option("--budget", "25, 5/day, 100/month, 5000 units/day (repeatable)", type=options.budget,
           action="append", metavar="USD")  # fmt: skip
    option(
        "--units",
        "budget in quota units, such as 1000/month (may be repeated)",
        type=options.units,
        action="append",
        metavar="UNITS",
    )
    option("--enabled", "whether its tokens are accepted", action=argparse.BooleanOptionalAction)


def _create_group(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        fields = options.given_options(arguments, ("name", "ratio", "providers", "keys"))
        group = await GroupService(context.store, audit=context.audit).create(
            convert(fields, GroupNew), context.by
        )
        _print_result(arguments, group, f"The group {group.name} was created.")

    return run_command(arguments, do)


def _edit_group(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        fields = options.given_options(arguments, ("ratio", "providers", "keys"))
        group = await GroupService(context.store, audit=context.audit).edit(
            arguments.name, convert(fields, GroupEdit), context.by
        )
        _print_result(arguments, group, f"The group {group.name} was changed.")

    return run_command(arguments, do)


def _list_groups(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        page = await GroupService(context.store, audit=context.audit).page(
            PageQuery(arguments.after, arguments.limit)
        )
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (group.name, group.ratio, group.providers or "all", group.keys or "all")
            for group in page.data
        ]
        output.table(("NAME", "RATIO", "PROVIDERS", "KEYS"), rows, "No groups.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _remove_group(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        result = await GroupService(context.store, audit=context.audit).drop(
            arguments.name, context.by
        )
        _print_result(arguments, result, f"The group {arguments.name} was removed.")

    return run_command(arguments, do)


def _create_account(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        fields = {**_fields(arguments), "id": arguments.id}
        context.check_budgets(fields)
        account = await AccountService(context.store, audit=context.audit).create(
            convert(fields, AccountNew), context.by
        )
        _print_result(arguments, account, f"The account {account.id} was created.")

    return run_command(arguments, do)


def _edit_account(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        fields = _fields(arguments)
        context.check_budgets(fields)
        change = convert(fields, AccountEdit)
        account = await AccountService(context.store, audit=context.audit).edit(
            arguments.id, change, context.by
        )
        _print_result(arguments, account, f"The account {account.id} was changed.")

    return run_command(arguments, do)


def _statement(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = StatementService(context.store)
        query = convert({"month": arguments.month}, StatementQuery)
        if arguments.csv:
            text = await service.export(arguments.id, query)
            print(text.replace("\r\n", "\n"), end="")
            return
        found = await service.get(arguments.id, query)
        if arguments.json:
            output.as_json(found)
            return
        rows = [
            (kind, line.label or line.name, line.requests, line.input, line.output,
             output.format_usd(line.usd), line.units)
            for kind, lines in (
                ("day", found.days),
                ("model", found.models),
                ("token", found.tokens),
                ("total", [found.total]),
            )
            for line in lines
        ]  # fmt: skip
        heads = (found.month, "", "REQUESTS", "INPUT", "OUTPUT", "COST", "UNITS")
        output.table(heads, rows, "No usage.")

    return run_command(arguments, do)


def _raise(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        more = convert(options.raise_fields(arguments), BudgetRaise)
        service = AccountService(context.store, audit=context.audit)
        account = await service.raise_budget(arguments.id, more, context.by)
        _print_result(arguments, account, f"The budget of {account.id} was raised.")

    return run_command(arguments, do)


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    return options.given_options(arguments, ("name", "enabled")) | options.budgets(arguments)


def _list_accounts(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        page = await AccountService(context.store, audit=context.audit).page(
            PageQuery(arguments.after, arguments.limit)
        )
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (
                account.id,
                account.name or None,
                account.enabled,
                [output.budget(b) for b in account.limits.budgets],
            )
            for account in page.data
        ]
        output.table(("ID", "NAME", "ENABLED", "LEFT"), rows, "No accounts.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _remove_account(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        result = await AccountService(context.store, audit=context.audit).drop(
            arguments.id, context.by
        )
        _print_result(arguments, result, f"The account {arguments.id} was removed.")

    return run_command(arguments, do)


def _print_result(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
