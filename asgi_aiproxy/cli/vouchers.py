"""`vouchers`: made in bulk, exported, redeemed once."""

from __future__ import annotations

import argparse
from typing import Any

from asgi_aiproxy.admin.problems import converted
from asgi_aiproxy.admin.routes import PageQuery
from asgi_aiproxy.admin.vouchers import LotQuery, Redemption, VoucherDesk, VoucherOut, VouchersNew
from asgi_aiproxy.cli import tables, words
from asgi_aiproxy.cli.office import Office, work
from asgi_aiproxy.cli.words import Commands, Time, command, pages, section


def add(commands: Commands) -> None:
    """Add the command."""
    own = section(commands, "vouchers", "vouchers, which fill up budgets")
    create = command(own, "create", "make vouchers; their codes are printed this once", _create)
    create.add_argument("--count", type=int, default=1, metavar="N", help="how many (1)")
    worth = create.add_mutually_exclusive_group(required=True)
    worth.add_argument("--usd", type=float, default=argparse.SUPPRESS, help="worth in dollars")
    worth.add_argument("--units", type=int, default=argparse.SUPPRESS, help="worth in quota units")
    create.add_argument("--name", default="", help="the name of the lot")
    create.add_argument("--expires", type=Time(), default=None, metavar="WHEN",
                        help="when they end: 30d, 2027-01-31 (never)")  # fmt: skip
    pages(command(own, "list", "list vouchers", _list))
    export = command(own, "export", "print all vouchers of a lot as CSV, without codes", _export)
    export.add_argument("--name", default=None, help="the lot (all)")
    redeem = command(
        own,
        "redeem",
        "pay a voucher onto the budget of a token or an account; its code is asked for, or read "
        "from standard input",
        _redeem,
    )
    redeem.add_argument("onto", help="token/<id> or account/<id>")
    for name, help in (("enable", "let a voucher be redeemed"), ("disable", "do not")):
        command(own, name, help, _switch).add_argument("id")
    for name, enabled in (("enable", True), ("disable", False)):
        own.choices[name].set_defaults(enabled=enabled)


def _create(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        fields = words.chosen(arguments, ("count", "usd", "units", "name", "expires"))
        made = await VoucherDesk(office.store).create(converted(fields, VouchersNew))
        if arguments.json:
            tables.as_json(made)
            return
        for code in made.codes:
            print(code)
        tables.note(f"{len(made.codes)} made; their codes are nowhere else.")

    return work(arguments, do)


def _list(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        page = await VoucherDesk(office.store).page(PageQuery(arguments.after, arguments.limit))
        if arguments.json:
            tables.as_json(page)
            return
        rows = [
            (
                *(one.id, one.name or None, one.status, _worth(one)),
                *(tables.moment(one.expires) or "never", one.redeemed_by or None),
            )
            for one in page.data
        ]
        heads = ("ID", "LOT", "STATUS", "WORTH", "EXPIRES", "REDEEMED BY")
        tables.table(heads, rows, "There are no vouchers.")
        tables.more(page.next)

    return work(arguments, do)


def _export(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        desk = VoucherDesk(office.store)
        if arguments.json:
            tables.as_json(await desk.all(LotQuery(arguments.name)))
        else:
            text = await desk.export(LotQuery(arguments.name))
            print(text.body.decode().replace("\r\n", "\n"), end="")

    return work(arguments, do)


def _redeem(arguments: argparse.Namespace) -> int:
    code = words.secret("Code")

    async def do(office: Office) -> None:
        redemption = converted({"code": code, "onto": arguments.onto}, Redemption)
        done = await VoucherDesk(office.store).redeem(redemption)
        _say(arguments, done, f"{_worth(done)} are paid onto {done.redeemed_by}.")

    return work(arguments, do)


def _switch(arguments: argparse.Namespace) -> int:
    async def do(office: Office) -> None:
        done = await VoucherDesk(office.store).enable(arguments.id, arguments.enabled)
        _say(arguments, done, f"The voucher {done.id} is {done.status}.")

    return work(arguments, do)


def _worth(one: VoucherOut) -> str:
    return tables.usd(one.amount) if one.unit == "usd" else f"{one.amount:.0f} units"


def _say(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        tables.as_json(value)
    else:
        print(text)
