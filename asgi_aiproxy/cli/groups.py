"""`groups` and `accounts`: what several tokens have in common."""

from __future__ import annotations

import argparse
from typing import Any

from asgi_aiproxy.admin.groups import (
    AccountDesk,
    AccountEdit,
    AccountNew,
    GroupDesk,
    GroupEdit,
    GroupNew,
)
from asgi_aiproxy.admin.problems import converted
from asgi_aiproxy.admin.routes import PageQuery
from asgi_aiproxy.cli import tables, words
from asgi_aiproxy.cli.office import Office, work
from asgi_aiproxy.cli.words import Commands, command, pages, section


def add(commands: Commands) -> None:
    """Add the commands."""
    own = section(commands, "groups", "groups, which set prices and who serves")
    _group(command(own, "create", "create a group", _create_group))
    _group(command(own, "edit", "change a group; what is not named stays", _edit_group))
    pages(command(own, "list", "list groups", _list_groups))
    remove = command(own, "remove", "remove a group; its tokens are refused", _remove_group)
    remove.add_argument("name")

    own = section(commands, "accounts", "accounts, whose budgets several tokens share")
    _account(command(own, "create", "create an account", _create_account))
    _account(command(own, "edit", "change an account; what is not named stays", _edit_account))
    pages(command(own, "list", "list accounts, and what is left of their budgets", _list_accounts))
    remove = command(own, "remove", "remove an account; its tokens are refused", _remove_account)
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
    option("--budget", "25, 5/day, 100/month, 5000 units/day (several times)", type=words.budget,
           action="append", metavar="USD")  # fmt: skip
    option("--units", "quota units, likewise", type=words.units, action="append", metavar="UNITS")
    option("--enabled", "may its tokens be used", action=argparse.BooleanOptionalAction)


def _create_group(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        fields = words.chosen(arguments, ("name", "ratio", "providers", "keys"))
        made = await GroupDesk(office.store).create(converted(fields, GroupNew))
        _say(arguments, made, f"The group {made.name} is created.")

    return work(arguments, do)


def _edit_group(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        fields = words.chosen(arguments, ("ratio", "providers", "keys"))
        made = await GroupDesk(office.store).edit(arguments.name, converted(fields, GroupEdit))
        _say(arguments, made, f"The group {made.name} is changed.")

    return work(arguments, do)


def _list_groups(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        page = await GroupDesk(office.store).page(PageQuery(arguments.after, arguments.limit))
        if arguments.json:
            tables.as_json(page)
            return
        rows = [
            (one.name, one.ratio, one.providers or "all", one.keys or "all") for one in page.data
        ]
        tables.table(("NAME", "RATIO", "PROVIDERS", "KEYS"), rows, "There are no groups.")
        tables.more(page.next)

    return work(arguments, do)


def _remove_group(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        done = await GroupDesk(office.store).drop(arguments.name)
        _say(arguments, done, f"The group {arguments.name} is removed.")

    return work(arguments, do)


def _create_account(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        fields = {**_fields(arguments), "id": arguments.id}
        office.check_budgets(fields)
        made = await AccountDesk(office.store).create(converted(fields, AccountNew))
        _say(arguments, made, f"The account {made.id} is created.")

    return work(arguments, do)


def _edit_account(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        fields = _fields(arguments)
        office.check_budgets(fields)
        change = converted(fields, AccountEdit)
        made = await AccountDesk(office.store).edit(arguments.id, change)
        _say(arguments, made, f"The account {made.id} is changed.")

    return work(arguments, do)


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    return words.chosen(arguments, ("name", "enabled")) | words.budgets(arguments)


def _list_accounts(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        page = await AccountDesk(office.store).page(PageQuery(arguments.after, arguments.limit))
        if arguments.json:
            tables.as_json(page)
            return
        rows = [
            (one.id, one.name or None, one.enabled, [tables.budget(b) for b in one.limits.budgets])
            for one in page.data
        ]
        tables.table(("ID", "NAME", "ENABLED", "LEFT"), rows, "There are no accounts.")
        tables.more(page.next)

    return work(arguments, do)


def _remove_account(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        done = await AccountDesk(office.store).drop(arguments.id)
        _say(arguments, done, f"The account {arguments.id} is removed.")

    return work(arguments, do)


def _say(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        tables.as_json(value)
    else:
        print(text)
