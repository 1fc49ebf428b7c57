"""`usage`: what was used, and what it cost."""

from __future__ import annotations

import argparse

from asgi_aiproxy.admin.problems import converted
from asgi_aiproxy.admin.usage import SumOut, SumQuery, UsageDesk, UsageQuery
from asgi_aiproxy.cli import tables, words
from asgi_aiproxy.cli.office import Office, work
from asgi_aiproxy.cli.words import Commands, command

_BY = ("day", "principal", "account", "model", "provider", "key")
_FILTERS = ("principal", "account", "group", "provider", "model", "key", "state")


def add(commands: Commands) -> None:
    """Add the command."""
    usage = command(commands, "usage", "what was used, and what it cost", _usage)
    usage.add_argument("--by", choices=_BY, default=None, help="what to sum up by (day)")
    usage.add_argument("--since", type=words.day, metavar="DAY", default=None,
                       help="a date, or a span back from today: 7d (30 days)")  # fmt: skip
    usage.add_argument("--until", type=words.day, metavar="DAY", default=None, help="(today)")
    usage.add_argument("--name", help="only this one of what is summed up by", default=None)
    usage.add_argument("--limit", type=words.count, default=100, metavar="N", help="rows (100)")
    usage.add_argument("--last", type=words.count, metavar="N",
                       help="the last exchanges one by one, instead of sums")  # fmt: skip
    only = usage.add_argument_group(
        "only those of (several with --last; one of a token, account, model, provider or key "
        "also sums up)"
    )
    for name in _FILTERS:
        only.add_argument(f"--{name}", default=argparse.SUPPRESS)


def _usage(arguments: argparse.Namespace) -> int:
    filters = words.chosen(arguments, _FILTERS)
    if arguments.last is not None:
        return work(arguments, lambda office: _last(arguments, filters, office))
    named = next(iter(filters), "")
    if len(filters) == 1 and named in _BY and arguments.by in (None, named) and not arguments.name:
        arguments.by, arguments.name = named, filters.pop(named)
    arguments.by = arguments.by or "day"
    if filters:
        tables.note(
            f"asgi_aiproxy: --{next(iter(filters))} goes with --last; see also --by, --name"
        )
        return 2
    return work(arguments, lambda office: _sums(arguments, office))


async def _sums(arguments: argparse.Namespace, office: Office) -> None:
    given = {name: getattr(arguments, name) for name in ("by", "since", "until", "name", "limit")}
    page = await UsageDesk(office.store).sums(SumQuery(**given))
    if arguments.json:
        tables.as_json(page)
        return
    heads = (arguments.by.upper(), "REQUESTS", "FAILED", "INPUT", "OUTPUT", "COST", "UNITS")
    rows = [
        (
            _name(one),
            one.requests,
            one.failed,
            one.input,
            one.output,
            tables.usd(one.usd),
            one.units,
        )
        for one in page.data
    ]
    tables.table(heads, rows, "Nothing was used.")
    if page.next is not None:
        tables.note(f"There is more: --limit goes up to 1000, this shows {len(rows)}.")


def _name(one: SumOut) -> str:
    return f"{one.label} ({one.name})" if one.label not in ("", one.name) else one.name


async def _last(arguments: argparse.Namespace, filters: dict[str, str], office: Office) -> None:
    query = converted({**filters, "limit": arguments.last}, UsageQuery)
    page = await UsageDesk(office.store).page(query)
    if arguments.json:
        tables.as_json(page)
        return
    heads = ("STARTED", "CALLER", "MODEL", "PROVIDER", "KEY", "OUTCOME", "INPUT", "OUTPUT", "COST")
    rows = [
        (
            tables.moment(one.started),
            *(one.principal or None, one.model_asked or None, one.provider or None),
            *(one.key_id or None, one.outcome.value),
            *((one.usage.input, one.usage.output) if one.usage is not None else (None, None)),
            None if one.usd is None else tables.usd(one.usd),
        )
        for one in page.data
    ]
    tables.table(heads, rows, "Nothing was used.")
