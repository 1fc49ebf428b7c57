"""`vouchers`: made in bulk, exported, redeemed once."""

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
)
from asgi_aiproxy.services.base import PageQuery
from asgi_aiproxy.services.validation import convert
from asgi_aiproxy.services.vouchers import (
    BatchQuery,
    Redemption,
    VoucherOut,
    VoucherService,
    VouchersNew,
)


def add(commands: Commands) -> None:
    """Add the command."""
    own = add_command_group(commands, "vouchers", "vouchers, which fill up budgets")
    create = add_command(own, "create", "make vouchers; their codes are printed this once", _create)
    create.add_argument("--count", type=int, default=1, metavar="N", help="how many (1)")
    worth = create.add_mutually_exclusive_group(required=True)
    worth.add_argument("--usd", type=float, default=argparse.SUPPRESS, help="worth in dollars")
    worth.add_argument("--units", type=int, default=argparse.SUPPRESS, help="worth in quota units")
    create.add_argument("--name", default="", help="the name of the lot")
    create.add_argument("--expires", type=TimeArgument(), default=None, metavar="WHEN",
                        help="when they end: 30d, 2027-01-31 (never)")  # fmt: skip
    add_paging_options(add_command(own, "list", "list vouchers", _list))
    export = add_command(
        own, "export", "print all vouchers of a lot as CSV, without codes", _export
    )
    export.add_argument("--name", default=None, help="the lot (all)")
    redeem = add_command(
        own,
        "redeem",
        "pay a voucher onto the budget of a token or an account; its code is asked for, or read "
        "from standard input",
        _redeem,
    )
    redeem.add_argument("onto", help="token/<id> or account/<id>")
    for name, help in (("enable", "let a voucher be redeemed"), ("disable", "do not")):
        add_command(own, name, help, _switch).add_argument("id")
    for name, enabled in (("enable", True), ("disable", False)):
        own.choices[name].set_defaults(enabled=enabled)


def _create(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        fields = options.given_options(arguments, ("count", "usd", "units", "name", "expires"))
        made = await VoucherService(office.store).create(convert(fields, VouchersNew))
        if arguments.json:
            output.as_json(made)
            return
        for code in made.codes:
            print(code)
        output.print_error(f"{len(made.codes)} made; their codes are nowhere else.")

    return run_command(arguments, do)


def _list(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        page = await VoucherService(office.store).page(PageQuery(arguments.after, arguments.limit))
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (
                *(one.id, one.name or None, one.status, _worth(one)),
                *(output.format_time(one.expires) or "never", one.redeemed_by or None),
            )
            for one in page.data
        ]
        heads = ("ID", "LOT", "STATUS", "WORTH", "EXPIRES", "REDEEMED BY")
        output.table(heads, rows, "There are no vouchers.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _export(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk = VoucherService(office.store)
        if arguments.json:
            output.as_json(await desk.all(BatchQuery(arguments.name)))
        else:
            text = await desk.export(BatchQuery(arguments.name))
            print(text.replace("\r\n", "\n"), end="")

    return run_command(arguments, do)


def _redeem(arguments: argparse.Namespace) -> int:
    code = options.read_secret("Code")

    async def do(office: CommandContext) -> None:
        redemption = convert({"code": code, "onto": arguments.onto}, Redemption)
        done = await VoucherService(office.store).redeem(redemption)
        _say(arguments, done, f"{_worth(done)} are paid onto {done.redeemed_by}.")

    return run_command(arguments, do)


def _switch(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        done = await VoucherService(office.store).enable(arguments.id, arguments.enabled)
        _say(arguments, done, f"The voucher {done.id} is {done.status}.")

    return run_command(arguments, do)


def _worth(one: VoucherOut) -> str:
    return output.format_usd(one.amount) if one.unit == "usd" else f"{one.amount:.0f} units"


def _say(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
