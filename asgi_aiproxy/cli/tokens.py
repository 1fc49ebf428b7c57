"""`tokens`: issued, listed, edited, rotated and revoked."""

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
from asgi_aiproxy.services.tokens import Rotation, TokenEdit, TokenNew, TokenService
from asgi_aiproxy.services.validation import convert

_FIELDS = (
    *("name", "rpm", "tpm", "concurrency", "models", "networks", "expires", "group", "account"),
    *("may_choose_key", "scopes", "enabled"),
)


def add(commands: Commands) -> None:
    """Add the command."""
    own = add_command_group(commands, "tokens", "tokens that callers show")
    issue = add_command(own, "issue", "issue a token, which is shown this once", _issue)
    _options(issue, name=True)
    issue.add_argument("--secret", action="store_true", dest="own_secret",
                       help="take over a token of another gateway: it is asked for, or read from "
                       "standard input")  # fmt: skip
    add_paging_options(add_command(own, "list", "list tokens", _list))
    _which(add_command(own, "show", "one token, and how much of its limits is used", _show))
    edit = add_command(own, "edit", "change a token; what is not named stays", _edit)
    _which(edit)
    _options(edit, name=False)
    switch = edit.add_mutually_exclusive_group()
    for flag, value in (("--enable", True), ("--disable", False)):
        switch.add_argument(flag, dest="enabled", action="store_const", const=value,
                            default=argparse.SUPPRESS)  # fmt: skip
    rotate = add_command(
        own, "rotate", "give a token a new secret, which is shown this once", _rotate
    )
    _which(rotate)
    rotate.add_argument("--grace", type=options.parse_duration, default=0.0, metavar="SPAN",
                        help="how long the old one stays good: 15m, 24h (not at all)")  # fmt: skip
    _which(
        add_command(own, "revoke", "revoke a token: it is dead everywhere within a second", _revoke)
    )


def _which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token", metavar="ID", help="its id, or its name if no other has it")


def _options(parser: argparse.ArgumentParser, *, name: bool) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    option("--name", "whose it is", required=name)
    option("--rpm", "requests a minute", type=options.limit, metavar="N")
    option("--tpm", "tokens a minute", type=options.limit, metavar="N")
    option("--concurrency", "requests at once", type=options.limit, metavar="N")
    option("--budget", "25, 5/day, 100/month, 5000 units/day (several times)", type=options.budget,
           action="append", metavar="USD")  # fmt: skip
    option("--units", "quota units, likewise", type=options.units, action="append", metavar="UNITS")
    option("--models", "models it may use: gpt-*, claude-* (all)", nargs="*", metavar="PATTERN")
    option("--networks", "where it may be used from: 10.0.0.0/8 (anywhere)", nargs="*",
           metavar="RANGE")  # fmt: skip
    option("--expires", "when it ends: 30d, 2027-01-31, never", type=TimeArgument(), metavar="WHEN")
    option("--account", "whose budgets it shares; '' for none", metavar="ID")
    option("--group", "the group that sets prices and who serves", metavar="NAME")
    option(
        "--may-choose-key",
        "may it choose the key that serves",
        action=argparse.BooleanOptionalAction,
    )
    option("--scope", "what it may do at the admin API: read, write, root", dest="scopes",
           action="append", choices=["read", "write", "root"])  # fmt: skip


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    return given_options(arguments, _FIELDS) | options.budgets(arguments)


def _issue(arguments: argparse.Namespace) -> int:
    secret = options.read_secret("Token") if arguments.own_secret else ""

    async def do(office: CommandContext) -> None:
        fields = _fields(arguments) | ({"secret": secret} if arguments.own_secret else {})
        office.check_budgets(fields)
        new = convert(fields, TokenNew)
        _shown_once(arguments, await TokenService(office.store).issue(new))

    return run_command(arguments, do)


def _list(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        query = PageQuery(arguments.after, arguments.limit)
        page = await TokenService(office.store).page(query)
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
        output.table(heads, rows, "There are no tokens.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _show(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk = TokenService(office.store)
        _tell(arguments, await desk.get(await _id(desk, arguments.token)))

    return run_command(arguments, do)


def _edit(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk = TokenService(office.store)
        fields = _fields(arguments)
        office.check_budgets(fields)
        change = convert(fields, TokenEdit)
        _tell(arguments, await desk.edit(await _id(desk, arguments.token), change))

    return run_command(arguments, do)


def _rotate(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk = TokenService(office.store)
        rotation = convert({"grace": arguments.grace}, Rotation)
        issued = await desk.rotate(await _id(desk, arguments.token), rotation)
        _shown_once(arguments, issued)

    return run_command(arguments, do)


def _revoke(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk = TokenService(office.store)
        id = await _id(desk, arguments.token)
        done = await desk.revoke(id)
        if arguments.json:
            output.as_json(done)
        else:
            print(f"The token {id} is revoked.")

    return run_command(arguments, do)


async def _id(desk: Any, wanted: str) -> str:
    """The id of a token that is named by it, or by its name."""
    if await desk.tokens.table.find(wanted) is not None:
        return wanted
    found: list[str] = []
    after = ""
    while rows := await desk.tokens.page(after, 1000):
        found += [row.id for row in rows if row.name == wanted]
        after = rows[-1].id
    if len(found) > 1:
        raise invalid(f"There are {len(found)} tokens named {wanted!r}: {', '.join(found[:5])}.")
    return found[0] if found else wanted


def _shown_once(arguments: argparse.Namespace, issued: Any) -> None:
    if arguments.json:
        output.as_json(issued)
        return
    print(f"The token, which is shown this once:\n\n    {issued.secret}\n")
    _tell(arguments, issued.token)


def _tell(arguments: argparse.Namespace, token: Any) -> None:
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
