"""The command `users`: people who sign in to the console with a name and a password."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

from asgi_aiproxy.cli import options, output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, add_command, add_command_group
from asgi_aiproxy.config.accounts import link_url, make_users
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.roles import ROLE_NUMBERS
from asgi_aiproxy.services.users import (
    UserEdit,
    UserNew,
    UserOut,
    UserQuery,
    UserService,
)
from asgi_aiproxy.services.validation import convert


def add(commands: Commands) -> None:
    """Add the command."""
    group = add_command_group(commands, "users", "manage users, which sign in to the console")
    create = add_command(
        group, "create", "create a user; prints a link, valid once, to set its password", _create
    )
    create.add_argument("username")
    _role_option(create, "--role", "role (user)")
    options_of = create.add_argument
    options_of("--email", default="", help="e-mail address")
    options_of("--name", default="", dest="display_name", help="display name")
    options_of("--group", default="", help="group, which sets prices and providers")
    options_of("--budget", type=options.budget, action="append", metavar="USD",
               default=argparse.SUPPRESS, help="25, 5/day (may be repeated)")  # fmt: skip
    listed = add_command(group, "list", "list users", _list)
    listed.add_argument("--limit", type=options.parse_row_count, default=100, metavar="N")
    listed.add_argument("--after", type=int, default=0, metavar="NUMBER")
    _one(add_command(group, "disable", "refuse a user, its sessions and tokens", _enable(False)))
    _one(add_command(group, "enable", "accept a disabled user again", _enable(True)))
    role = _one(add_command(group, "role", "change the role of a user", _role))
    role.add_argument("role", choices=list(ROLE_NUMBERS))
    _one(add_command(group, "reset", "print a link, valid once, to set a new password", _reset))
    factor = "remove the second factor of a user, which has lost it"
    _one(add_command(group, "remove-second-factor", factor, _remove_second_factor))
    passkeys = "remove the passkeys of a user, which has lost its devices"
    _one(add_command(group, "remove-passkeys", passkeys, _remove_passkeys))
    _one(add_command(group, "remove", "remove a user, its tokens and its account", _remove))


def _one(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("username")
    return parser


def _role_option(parser: argparse.ArgumentParser, flag: str, help: str) -> None:
    parser.add_argument(flag, choices=list(ROLE_NUMBERS), default="user", help=help)


def _create(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        names = ("username", "role", "email", "display_name", "group")
        fields: dict[str, Any] = options.given_options(arguments, names)
        fields |= {"budgets": texts} if (texts := getattr(arguments, "budget", None)) else {}
        context.check_budgets(fields)
        made = await _service(context).create(convert(fields, UserNew), context.by)
        if arguments.json:
            output.as_json(made)
            return
        print(f"The user {made.user.username} ({made.user.role}) was created. Set its password at:")
        print(link_url(context.settings, "password", made.link))

    return run_command(arguments, do)


def _list(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        page = await _service(context).page(UserQuery(arguments.after, arguments.limit))
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (user.id, user.username, user.role, user.enabled, user.email or None,
             output.format_time(user.signed_in) if user.signed_in else None)
            for user in page.data
        ]  # fmt: skip
        output.table(("ID", "NAME", "ROLE", "ENABLED", "EMAIL", "SIGNED IN"), rows, "No users.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _enable(enabled: bool) -> Any:
    def run(arguments: argparse.Namespace) -> int:
        return _edit(arguments, UserEdit(enabled=enabled), "enabled" if enabled else "disabled")

    return run


def _role(arguments: argparse.Namespace) -> int:
    return _edit(arguments, UserEdit(role=arguments.role), f"given the role {arguments.role}")


def _edit(arguments: argparse.Namespace, change: UserEdit, done: str) -> int:
    return _change(arguments, lambda service, id, by: service.edit(id, change, by), f"was {done}")


def _remove_second_factor(arguments: argparse.Namespace) -> int:
    return _change(arguments, UserService.reset_second_factor, "signs in without a second factor")


def _remove_passkeys(arguments: argparse.Namespace) -> int:
    return _change(arguments, UserService.remove_passkeys, "has no passkeys")


def _change(
    arguments: argparse.Namespace,
    operation: Callable[[UserService, int, Actor], Awaitable[UserOut]],
    result: str,
) -> int:
    """Run an operation on a user; `result` is what is said of the user then."""

    async def do(context: CommandContext) -> None:
        service = _service(context)
        user = await operation(service, (await _found(service, arguments)).id, context.by)
        _print(arguments, user, f"The user {user.username} {result}.")

    return run_command(arguments, do)


def _reset(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = _service(context)
        user = await _found(service, arguments)
        link = await service.make_password_link(user.id, context.by)
        url = link_url(context.settings, "password", link.link)
        text = f"{user.username} can set a new password, once, within a day at:\n{url}"
        _print(arguments, link, text)

    return run_command(arguments, do)


def _remove(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = _service(context)
        user = await _found(service, arguments)
        result = await service.drop(user.id, context.by)
        _print(arguments, result, f"The user {user.username} was removed.")

    return run_command(arguments, do)


def _service(context: CommandContext) -> UserService:
    return make_users(context.settings, context.store, context.audit)


async def _found(service: UserService, arguments: argparse.Namespace) -> UserOut:
    user = await service.users.by_name(arguments.username)
    if user is None:
        raise invalid(f"There is no user {arguments.username!r}.", "username")
    return await service.get(user.id)


def _print(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
