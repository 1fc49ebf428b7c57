"""The command `usage`: tokens used and their cost, summed up or request by request."""

from __future__ import annotations

import argparse

from asgi_aiproxy.cli import options, output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, add_command
from asgi_aiproxy.services.base import MAX_PAGE_ROWS
from asgi_aiproxy.services.usage import GROUPINGS, SumOut, SumQuery, UsageQuery, UsageService
from asgi_aiproxy.services.validation import convert

_BY = GROUPINGS
_FILTERS = (
    *("principal", "account", "group", "provider", "model", "key", "session", "tag"),
    "state",
)


def add(commands: Commands) -> None:
    """Add the command."""
    usage = add_command(commands, "usage", "show tokens used and their cost", _usage)
    usage.add_argument("--by", choices=_BY, default=None, help="group sums by (day)")
    usage.add_argument("--since", type=options.parse_day, metavar="DAY", default=None,
                       help="a date, or a duration back from today: 7d (30d)")  # fmt: skip
    usage.add_argument(
        "--until", type=options.parse_day, metavar="DAY", default=None, help="(today)"
    )
    usage.add_argument("--name", help="show only this row", default=None)
    usage.add_argument(
        "--limit",
        type=options.parse_row_count,
        default=100,
        metavar="N",
        help="maximum number of rows (100)",
    )
    usage.add_argument("--last", type=_parse_last, metavar="N",
                       help="show the last N requests one by one, instead of sums; "
                       "with --csv also 'all'")  # fmt: skip
    usage.add_argument("--csv", action="store_true", help="print CSV")
    only = usage.add_argument_group(
        "filters (any with --last; without it, one of those that --by has)"
    )
    for name in _FILTERS:
        only.add_argument(f"--{name}", default=argparse.SUPPRESS)


def _parse_last(text: str) -> int:
    """Parse a number of records; `all` is 0."""
    return 0 if text == "all" else options.parse_row_count(text)


def _usage(arguments: argparse.Namespace) -> int:
    filters = options.given_options(arguments, _FILTERS)
    if arguments.last == 0 and not arguments.csv:
        output.print_error("asgi_aiproxy: --last all requires --csv")
        return 2
    if arguments.last is not None:
        return run_command(arguments, lambda context: _last_records(arguments, filters, context))
    named = next(iter(filters), "")
    if len(filters) == 1 and named in _BY and arguments.by in (None, named) and not arguments.name:
        arguments.by, arguments.name = named, filters.pop(named)
    arguments.by = arguments.by or "day"
    if filters:
        output.print_error(
            f"asgi_aiproxy: --{next(iter(filters))} requires --last; for sums use --by and --name"
        )
        return 2
    return run_command(arguments, lambda context: _sums(arguments, context))


async def _sums(arguments: argparse.Namespace, context: CommandContext) -> None:
    given = {name: getattr(arguments, name) for name in ("by", "since", "until", "name", "limit")}
    if arguments.csv:
        _print_csv(await UsageService(context.store).export_sums(SumQuery(**given)))
        return
    page = await UsageService(context.store).sums(SumQuery(**given))
    if arguments.json:
        output.as_json(page)
        return
    heads = (arguments.by.upper(), "REQUESTS", "FAILED", "INPUT", "OUTPUT", "COST", "UNITS")
    rows = [
        (
            _name(one),
            one.requests,
            one.failed,
            one.input,
            one.output,
            output.format_usd(one.usd),
            one.units,
        )
        for one in page.data
    ]
    output.table(heads, rows, "No usage.")
    if page.next is not None:
        output.print_error(f"More rows: this shows {len(rows)}; --limit may be up to 1000.")


def _print_csv(text: str) -> None:
    print(text.replace("\r\n", "\n"), end="")


def _name(sum_: SumOut) -> str:
    return f"{sum_.label} ({sum_.name})" if sum_.label not in ("", sum_.name) else sum_.name


async def _last_records(
    arguments: argparse.Namespace, filters: dict[str, str], context: CommandContext
) -> None:
    service = UsageService(context.store)
    query = convert({**filters, "limit": arguments.last or MAX_PAGE_ROWS}, UsageQuery)
    if arguments.csv:
        async for piece in service.export(query, at_most=arguments.last or None):
            _print_csv(piece)
        return
    page = await service.page(query)
    if arguments.json:
        output.as_json(page)
        return
    heads = ("STARTED", "CALLER", "MODEL", "PROVIDER", "KEY", "OUTCOME", "INPUT", "OUTPUT", "COST")
    rows = [
        (
            output.format_time(record.started),
            *(record.principal or None, record.requested_model or None, record.provider or None),
            *(record.key_id or None, record.outcome.value),
            *(
                (record.usage.input, record.usage.output)
                if record.usage is not None
                else (None, None)
            ),
            None if record.usd is None else output.format_usd(record.usd),
        )
        for record in page.data
    ]
    output.table(heads, rows, "No usage.")
