"""The command `tokens`: issue, list, show, edit, rotate and revoke."""

from __future__ import annotations

import argparse
from typing import Any

from asgi_aiproxy.cli import options, output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import (
    Commands,
    TimeArgument,
    add_command,
    add_command_group,
    add_paging_options,
    given_options,
)
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.base import PageQuery
from asgi_aiproxy.services.raises import BudgetRaise
from asgi_aiproxy.services.tokens import Rotation, TokenEdit, TokenNew, TokenService
from asgi_aiproxy.services.validation import convert

_FIELDS = (
    *("name", "rpm", "tpm", "concurrency", "models", "networks", "expires", "group", "account"),
    *("may_choose_key", "scopes", "enabled"),
)


def add(commands: Commands) -> None:
    """Add the command."""
    subcommands = add_command_group(commands, "tokens", "manage the tokens of callers")
    issue = add_command(subcommands, "issue", "issue a token; it is shown only once", _issue)
    _add_options(issue, name=True)
    issue.add_argument("--secret", action="store_true", dest="own_secret",
                       help="use an existing token, read from standard input")  # fmt: skip
    add_paging_options(add_command(subcommands, "list", "list tokens", _list))
    _add_id_argument(
        add_command(
            subcommands, "show", "show a token, and how much of its limits is used", _show_token
        )
    )
    edit = add_command(
        subcommands, "edit", "change a token; options not given stay unchanged", _edit
    )
    _add_id_argument(edit)
    _add_options(edit, name=False)
    switch = edit.add_mutually_exclusive_group()
    for flag, value in (("--enable", True), ("--disable", False)):
        switch.add_argument(flag, dest="enabled", action="store_const", const=value,
                            default=argparse.SUPPRESS)  # fmt: skip
    more = add_command(
        subcommands, "raise", "raise a budget for some time; the raise ends by itself", _raise
    )
    _add_id_argument(more)
    options.add_raise_options(more)
    rotate = add_command(
        subcommands, "rotate", "give a token a new secret; it is shown only once", _rotate
    )
    _add_id_argument(rotate)
    rotate.add_argument("--grace", type=options.parse_duration, default=0.0, metavar="DURATION",
                        help="how long the old secret stays valid: 15m, 24h (0)")  # fmt: skip
    _add_id_argument(
        add_command(
            subcommands,
            "revoke",
            "revoke a token; takes effect in all workers within a second",
            _revoke,
        )
    )


def _add_id_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "token", metavar="ID", help="id of the token, or its name if that is unique"
    )


def _add_options(parser: argparse.ArgumentParser, *, name: bool) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    option("--name", "name of its owner", required=name)
    option("--rpm", "requests per minute", type=options.limit, metavar="N")
    option("--tpm", "tokens per minute", type=options.limit, metavar="N")
    option("--concurrency", "concurrent requests", type=options.limit, metavar="N")
    option("--budget", "25, 5/day, 100/month, 5000 units/day (repeatable)", type=options.budget,
           action="append", metavar="USD")  # fmt: skip
    option(
        "--units",
        "budget in quota units, such as 1000/month (may be repeated)",
        type=options.units,
        action="append",
        metavar="UNITS",
    )
    option("--models", "models it may use: gpt-*, claude-* (all)", nargs="*", metavar="PATTERN")
    option("--networks", "networks it may be used from: 10.0.0.0/8 (all)", nargs="*",
           metavar="RANGE")  # fmt: skip
    option(
        "--expires", "when it expires: 30d, 2027-01-31, never", type=TimeArgument(), metavar="WHEN"
    )
    option("--account", "account whose budgets it shares; '' for none", metavar="ID")
    option("--group", "group that sets its prices, providers and keys", metavar="NAME")
    option(
        "--may-choose-key",
        "whether its caller may choose the provider key",
        action=argparse.BooleanOptionalAction,
    )
    option("--scope", "what it may do in the admin API: read, write, root", dest="scopes",
           action="append", choices=["read", "write", "root"])  # fmt: skip


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    return given_options(arguments, _FIELDS) | options.budgets(arguments)


def _issue(arguments: argparse.Namespace) -> int:
    secret = options.read_secret("Token") if arguments.own_secret else ""

    async def do(context: CommandContext) -> None:
        fields = _fields(arguments) | ({"secret": secret} if arguments.own_secret else {})
        context.check_budgets(fields)
        new = convert(fields, TokenNew)
        _print_issued(
            arguments, await TokenService(context.store, audit=context.audit).issue(new, context.by)
        )

    return run_command(arguments, do)


def _list(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        query = PageQuery(arguments.after, arguments.limit)
        page = await TokenService(context.store, audit=context.audit).page(query)
        if arguments.json:
            output.as_json(page)
            return
        heads = ("ID", "NAME", "STATUS", "LEFT", "RPM", "TPM", "MODELS", "EXPIRES")
        rows = [
            (
                *(token.id, token.name, token.status),
                [output.budget(one) for one in token.limits.budgets],
                *(rate and rate.limit for rate in (token.limits.rpm, token.limits.tpm)),
                token.models or "all",
                output.format_time(token.expires) or "never",
            )
            for token in page.data
        ]
        output.table(heads, rows, "No tokens.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _show_token(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = TokenService(context.store, audit=context.audit)
        _print_token(arguments, await service.get(await _find_id(service, arguments.token)))

    return run_command(arguments, do)


def _edit(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = TokenService(context.store, audit=context.audit)
        fields = _fields(arguments)
        context.check_budgets(fields)
        change = convert(fields, TokenEdit)
        _print_token(
            arguments,
            await service.edit(await _find_id(service, arguments.token), change, context.by),
        )

    return run_command(arguments, do)


def _raise(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = TokenService(context.store, audit=context.audit)
        more = convert(options.raise_fields(arguments), BudgetRaise)
        id = await _find_id(service, arguments.token)
        _print_token(arguments, await service.raise_budget(id, more, context.by))

    return run_command(arguments, do)


def _rotate(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = TokenService(context.store, audit=context.audit)
        rotation = convert({"grace": arguments.grace}, Rotation)
        issued = await service.rotate(
            await _find_id(service, arguments.token), rotation, context.by
        )
        _print_issued(arguments, issued)

    return run_command(arguments, do)


def _revoke(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = TokenService(context.store, audit=context.audit)
        id = await _find_id(service, arguments.token)
        done = await service.revoke(id, context.by)
        if arguments.json:
            output.as_json(done)
        else:
            print(f"The token {id} is revoked.")

    return run_command(arguments, do)


async def _find_id(service: Any, id_or_name: str) -> str:
    """Find the id of a token by id or name. Raises APIError if the name is not unique."""
    if await service.tokens.table.find(id_or_name) is not None:
        return id_or_name
    found: list[str] = []
    after = ""
    while rows := await service.tokens.page(after, 1000):
        found += [row.id for row in rows if row.name == id_or_name]
        after = rows[-1].id
    if len(found) > 1:
        raise invalid(
            f"{len(found)} tokens are named {id_or_name!r}; use an id: {', '.join(found[:5])}."
        )
    return found[0] if found else id_or_name


def _print_issued(arguments: argparse.Namespace, issued: Any) -> None:
    if arguments.json:
        output.as_json(issued)
        return
    print(f"The token, which is shown only once:\n\n    {issued.secret}\n")
    _print_token(arguments, issued.token)


def _print_token(arguments: argparse.Namespace, token: Any) -> None:
    if arguments.json:
        output.as_json(token)
        return
    output.print_fields(
        [
            *(("id", token.id), ("name", token.name), ("status", token.status)),
            ("expires", output.format_time(token.expires) or "never"),
            *output.limits(token.limits),
            *(("models", token.models or "all"), ("networks", token.networks)),
            *(("group", token.group), ("account", token.account)),
            *(("may choose key", token.may_choose_key or None), ("scopes", token.scopes)),
        ]
    )
