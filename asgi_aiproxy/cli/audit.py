"""The command `audit`: the log of changes."""

from __future__ import annotations

import argparse
from typing import Any

from asgi_aiproxy.cli import options, output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, TimeArgument, add_command, add_paging_options
from asgi_aiproxy.services.audit import AuditEntry, AuditQuery
from asgi_aiproxy.services.validation import convert

_FILTERS = {
    "actor": "id or name of the caller",
    "source": "how it was made: admin, cli, code ...",
    "action": "what was done: token, key.edit ...",
    "target": "the object: token/<id>, account/<id>, key/<provider> ...",
}


def add(commands: Commands) -> None:
    """Add the command."""
    audit = add_command(
        commands, "audit", "show who changed what, when and from where, newest first", _audit
    )
    for name, help in _FILTERS.items():
        audit.add_argument(f"--{name}", help=help, default=argparse.SUPPRESS)
    for name in ("since", "until"):
        audit.add_argument(f"--{name}", type=TimeArgument(-1), metavar="WHEN",
                           help="a duration back from now (7d), a date, or a time in UTC",
                           default=argparse.SUPPRESS)  # fmt: skip
    add_paging_options(audit)


def _audit(arguments: argparse.Namespace) -> int:
    fields = options.given_options(arguments, (*_FILTERS, "since", "until"))
    fields |= {"after": arguments.after, "limit": arguments.limit}

    async def do(context: CommandContext) -> None:
        page = await context.audit.page(convert(fields, AuditQuery))
        if arguments.json:
            output.as_json(page)
            return
        rows = [
            (
                *(output.format_time(entry.at), entry.actor_name or entry.actor or None),
                *(entry.source, entry.address or None, entry.action, entry.target),
                _changes(entry),
            )
            for entry in page.data
        ]
        heads = ("TIME", "CALLER", "SOURCE", "ADDRESS", "ACTION", "TARGET", "CHANGES")
        output.table(heads, rows, "No changes.")
        output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _changes(entry: AuditEntry) -> str | None:
    """The members that changed, with their old and new values."""
    before: dict[str, Any] = entry.before or {}
    after: dict[str, Any] = entry.after or {}
    if entry.before is None or entry.after is None:
        return ", ".join(f"{name}={value}" for name, value in (before or after).items()) or None
    names = {**before, **after}
    return ", ".join(f"{name}: {before.get(name)} -> {after.get(name)}" for name in names) or None
