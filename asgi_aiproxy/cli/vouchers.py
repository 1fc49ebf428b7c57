"""The command `vouchers`: create in bulk, list, export, redeem, enable and disable."""

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
    subcommands = add_command_group(commands, "vouchers", "manage vouchers, which add to budgets")
    create = add_command(
        subcommands, "create", "create vouchers; their codes are printed only once", _create
    )
    create.add_argument("--count", type=int, default=1, metavar="N", help="number of vouchers (1)")
    worth = create.add_mutually_exclusive_group(required=True)
    worth.add_argument("--usd", type=float, default=argparse.SUPPRESS, help="value in US dollars")
    worth.add_argument("--units", type=int, default=argparse.SUPPRESS, help="value in quota units")
    create.add_argument("--name", default="", help="name of the batch")
    create.add_argument("--expires", type=TimeArgument(), default=None, metavar="WHEN",
                        help="when they expire: 30d, 2027-01-31 (never)")  # fmt: skip
    add_paging_options(add_command(subcommands, "list", "list vouchers", _list))
    export = add_command(
        subcommands, "export", "print all vouchers of a batch as CSV, without codes", _export
    )
    export.add_argument("--name", default=None, help="the batch (all)")
    redeem = add_command(
        subcommands,
        "redeem",
        "add a voucher to the budget of a token or an account; its code is read from the terminal "
        "or standard input",
        _redeem,
    )
    redeem.add_argument("target", help="token/<id> or account/<id>")
    for name, help in (("enable", "allow a voucher to be redeemed"), ("disable", "forbid it")):
        add_command(subcommands, name, help, _switch).add_argument("id")
    for name, enabled in (("enable", True), ("disable", False)):
        subcommands.choices[name].set_defaults(enabled=enabled)


def _create(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        fields = options.given_options(arguments, ("count", "usd", "units", "name", "expires"))
        created = await VoucherService(context.store, audit=context.audit).create(
            convert(fields, VouchersNew), context.by
        )
        if arguments.json:
            output.as_json(created)
            return
        for code in created.codes:
            print(code)
        output.print_error(f"{len(created.codes)} vouchers created; their codes are not stored.")

    return run_command(arguments, do)


def _list(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        page = await VoucherService(context.store, audit=context.audit).page(
            PageQuery(arguments.after, arguments.limit)
        )
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (
                *(voucher.id, voucher.name or None, voucher.status, _format_value(voucher)),
                *(output.format_time(voucher.expires) or "never", voucher.redeemed_by or None),
            )
            for voucher in page.data
        ]
        heads = ("ID", "BATCH", "STATUS", "VALUE", "EXPIRES", "REDEEMED BY")
        output.table(heads, rows, "No vouchers.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _export(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service = VoucherService(context.store, audit=context.audit)
        if arguments.json:
            output.as_json(await service.all(BatchQuery(arguments.name)))
        else:
            text = await service.export(BatchQuery(arguments.name))
            print(text.replace("\r\n", "\n"), end="")

    return run_command(arguments, do)


def _redeem(arguments: argparse.Namespace) -> int:
    code = options.read_secret("Code")

    async def do(context: CommandContext) -> None:
        redemption = convert({"code": code, "target": arguments.target}, Redemption)
        redeemed = await VoucherService(context.store, audit=context.audit).redeem(
            redemption, context.by
        )
        _print_result(
            arguments, redeemed, f"{_format_value(redeemed)} added to {redeemed.redeemed_by}."
        )

    return run_command(arguments, do)


def _switch(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        changed = await VoucherService(context.store, audit=context.audit).enable(
            arguments.id, arguments.enabled, context.by
        )
        _print_result(arguments, changed, f"The voucher {changed.id} is {changed.status}.")

    return run_command(arguments, do)


def _format_value(voucher: VoucherOut) -> str:
    return (
        output.format_usd(voucher.amount)
        if voucher.unit == "usd"
        else f"{voucher.amount:.0f} units"
    )


def _print_result(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
