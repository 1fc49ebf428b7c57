"""`groups` and `accounts`: what several tokens have in common."""

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
from asgi_aiproxy.services.validation import convert


def add(commands: Commands) -> None:
    """Add the commands."""
    own = add_command_group(commands, "groups", "groups, which set prices and who serves")
    _group(add_command(own, "create", "create a group", _create_group))
    _group(add_command(own, "edit", "change a group; what is not named stays", _edit_group))
    add_paging_options(add_command(own, "list", "list groups", _list_groups))
    remove = add_command(own, "remove", "remove a group; its tokens are refused", _remove_group)
    remove.add_argument("name")

    own = add_command_group(commands, "accounts", "accounts, whose budgets several tokens share")
    _account(add_command(own, "create", "create an account", _create_account))
    _account(add_command(own, "edit", "change an account; what is not named stays", _edit_account))
    add_paging_options(
        add_command(own, "list", "list accounts, and what is left of their budgets", _list_accounts)
    )
    remove = add_command(
        own, "remove", "remove an account; its tokens are refused", _remove_account
    )
    remove.add_argument("id")


def _group(parser: argparse.ArgumentParser) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    parser.add_argument("name")
    option("--ratio", "what members pay of a price (1)", type=float)
    option("--providers", "who may serve them (all)", nargs="*", metavar="PATTERN")
    option("--keys", "with which keys (all)", nargs="*", metavar="PATTERN")


def _account(parser: argparse.ArgumentParser) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    parser.add_argument("id")
    option("--name", "what it is called")
    option("--budget", "25, 5/day, 100/month, 5000 units/day (several times)", type=options.budget,
           action="append", metavar="USD")  # fmt: skip
    option("--units", "quota units, likewise", type=options.units, action="append", metavar="UNITS")
    option("--enabled", "may its tokens be used", action=argparse.BooleanOptionalAction)


def _create_group(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        fields = options.given_options(arguments, ("name", "ratio", "providers", "keys"))
        made = await GroupService(office.store).create(convert(fields, GroupNew))
        _say(arguments, made, f"The group {made.name} is created.")

    return run_command(arguments, do)


def _edit_group(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        fields = options.given_options(arguments, ("ratio", "providers", "keys"))
        made = await GroupService(office.store).edit(arguments.name, convert(fields, GroupEdit))
        _say(arguments, made, f"The group {made.name} is changed.")

    return run_command(arguments, do)


def _list_groups(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        page = await GroupService(office.store).page(PageQuery(arguments.after, arguments.limit))
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (one.name, one.ratio, one.providers or "all", one.keys or "all") for one in page.data
        ]
        output.table(("NAME", "RATIO", "PROVIDERS", "KEYS"), rows, "There are no groups.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _remove_group(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        done = await GroupService(office.store).drop(arguments.name)
        _say(arguments, done, f"The group {arguments.name} is removed.")

    return run_command(arguments, do)


def _create_account(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        fields = {**_fields(arguments), "id": arguments.id}
        office.check_budgets(fields)
        made = await AccountService(office.store).create(convert(fields, AccountNew))
        _say(arguments, made, f"The account {made.id} is created.")

    return run_command(arguments, do)


def _edit_account(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        fields = _fields(arguments)
        office.check_budgets(fields)
        change = convert(fields, AccountEdit)
        made = await AccountService(office.store).edit(arguments.id, change)
        _say(arguments, made, f"The account {made.id} is changed.")

    return run_command(arguments, do)


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    return options.given_options(arguments, ("name", "enabled")) | options.budgets(arguments)


def _list_accounts(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        page = await AccountService(office.store).page(PageQuery(arguments.after, arguments.limit))
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (one.id, one.name or None, one.enabled, [output.budget(b) for b in one.limits.budgets])
            for one in page.data
        ]
        output.table(("ID", "NAME", "ENABLED", "LEFT"), rows, "There are no accounts.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _remove_account(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        done = await AccountService(office.store).drop(arguments.id)
        _say(arguments, done, f"The account {arguments.id} is removed.")

    return run_command(arguments, do)


def _say(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
