"""`keys`: the keys of providers, kept in the store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asgi_aiproxy.cli import options, output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, add_command, add_command_group, add_paging_options
from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.services.base import MAX_PAGE_ROWS, PageQuery
from asgi_aiproxy.services.key_test import KeyTestResult
from asgi_aiproxy.services.keys import KeyEdit, KeyNew, KeyOut, KeyTestQuery
from asgi_aiproxy.services.validation import convert

_FIELDS = (
    *("secret", "id", "weight", "priority", "models", "rpm", "tpm", "concurrency"),
    *("proxy", "base_url"),
)


def add(commands: Commands) -> None:
    """Add the command."""
    own = add_command_group(commands, "keys", "keys of providers, kept in the store")
    some = add_command(own, "list", "list keys, and how they are", _list)
    some.add_argument("provider", nargs="?", default="", help="(all)")
    add_paging_options(some)
    new = add_command(
        own, "add", "add a key; its secret is asked for, or read from standard input", _add
    )
    new.add_argument("provider")
    new.add_argument("--id", help="what it is known by (a fingerprint)", default=argparse.SUPPRESS)
    _options(new)
    edit = add_command(own, "edit", "change a key; what is not named stays", _edit)
    _which(edit)
    _options(edit)
    edit.add_argument("--secret", action="store_true", dest="new_secret",
                      help="ask for a new secret; calls in flight keep the old one")  # fmt: skip
    load = add_command(
        own, "import", "add the keys of a list: a secret a line, or an id and one", _load
    )
    load.add_argument("provider")
    load.add_argument("file", help="the list; - is standard input")
    load.add_argument("--replace", action="store_true", help="in place of all others in the store")
    _which(add_command(own, "enable", "use a key again, whatever was held against it", _enable))
    _which(add_command(own, "disable", "use a key no more", _disable))
    _which(add_command(own, "remove", "remove a key; calls in flight keep it", _remove))
    trial = add_command(own, "test", "try one key or all, and tell how long it took", _test)
    _which(trial, nargs="?", default="")
    trial.add_argument("--model", default="", help="try with a token of this model (a list of all)")
    reseal = add_command(own, "reseal", "seal all secrets with the first of sealing_keys", _reseal)
    reseal.add_argument("provider", nargs="?", default="", help="(all)")


def _which(parser: argparse.ArgumentParser, **more: Any) -> None:
    parser.add_argument("provider")
    parser.add_argument("id", help="the key's id", **more)


def _options(parser: argparse.ArgumentParser) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    option("--weight", "its share of the load (1)", type=int, metavar="N")
    option("--priority", "lower ones go first (0)", type=int, metavar="N")
    option("--models", "models it may be used for (all)", nargs="*", metavar="PATTERN")
    option("--rpm", "requests a minute", type=options.limit, metavar="N")
    option("--tpm", "tokens a minute", type=options.limit, metavar="N")
    option("--concurrency", "requests at once", type=options.limit, metavar="N")
    option("--proxy", "outbound proxy", metavar="URL")
    option("--base-url", "in place of the provider's", metavar="URL")


def _list(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk, pools = await office.keys(arguments.provider)
        query = PageQuery(arguments.after, arguments.limit)
        if arguments.provider:
            found = [await desk.page(arguments.provider, query)]
        else:
            found = [await desk.page(pool.name, query) for pool in pools]
        if arguments.json:
            output.as_json(found[0] if arguments.provider else [k for p in found for k in p.data])
            return
        _table([key for page in found for key in page.data])
        for page in found:
            output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _table(keys: Sequence[KeyOut]) -> None:
    heads = ("PROVIDER", "ID", "HEALTH", "RESTS", "WEIGHT", "PRIORITY", "RPM", "TPM", "AT ONCE")
    rows = [
        (
            *(key.provider, key.id, key.health, f"{key.rests:.0f} s" if key.rests else None),
            *(key.weight, key.priority, key.rpm, key.tpm, key.concurrency),
            *(key.models or "all", key.source),
        )
        for key in keys
    ]
    output.table((*heads, "MODELS", "FROM"), rows, "There are no keys.")


def _add(arguments: argparse.Namespace) -> int:
    fields = {**options.given_options(arguments, _FIELDS), "secret": options.read_secret("Secret")}

    async def do(office: CommandContext) -> None:
        desk, _ = await office.keys(arguments.provider)
        (made,) = await desk.create(arguments.provider, convert(fields, KeyNew))
        _say(arguments, made, f"The key {made.id} is added.")

    return run_command(arguments, do)


def _edit(arguments: argparse.Namespace) -> int:
    fields = options.given_options(
        arguments, tuple(name for name in _FIELDS if name not in ("id", "secret"))
    )
    if arguments.new_secret:
        fields["secret"] = options.read_secret("Secret")

    async def do(office: CommandContext) -> None:
        desk, _ = await office.keys(arguments.provider)
        change = convert(fields, KeyEdit)
        made = await desk.edit(arguments.provider, arguments.id, change)
        _say(arguments, made, f"The key {made.id} is changed.")

    return run_command(arguments, do)


def _load(arguments: argparse.Namespace) -> int:
    try:
        if arguments.file == "-":
            text = sys.stdin.buffer.read()
        else:
            text = Path(arguments.file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{arguments.file}: {error.strerror}.") from error

    async def do(office: CommandContext) -> None:
        desk, _ = await office.keys(arguments.provider)
        done = await desk.load(arguments.provider, text, replace=arguments.replace)
        _say(arguments, done, f"{len(done.ids)} keys are imported.")

    return run_command(arguments, do)


def _enable(arguments: argparse.Namespace) -> int:
    return _switch(arguments, enabled=True)


def _disable(arguments: argparse.Namespace) -> int:
    return _switch(arguments, enabled=False)


def _switch(arguments: argparse.Namespace, *, enabled: bool) -> int:
    async def do(office: CommandContext) -> None:
        desk, _ = await office.keys(arguments.provider)
        made = await desk.switch(arguments.provider, arguments.id, enabled=enabled)
        _say(arguments, made, f"The key {made.id} is {'enabled' if enabled else 'disabled'}.")

    return run_command(arguments, do)


def _remove(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        desk, _ = await office.keys(arguments.provider)
        done = await desk.remove(arguments.provider, arguments.id)
        _say(arguments, done, f"The key {arguments.id} is removed.")

    return run_command(arguments, do)


def _test(arguments: argparse.Namespace) -> int:
    found: list[KeyTestResult] = []

    async def do(office: CommandContext) -> None:
        desk, _ = await office.keys(arguments.provider)
        if arguments.id:
            found.append(await desk.try_one(arguments.provider, arguments.id, arguments.model))
        else:
            after: str | None = ""
            while after is not None:
                query = KeyTestQuery(arguments.model, after, MAX_PAGE_ROWS)
                page = await desk.try_all(arguments.provider, query)
                found.extend(page.data)
                after = page.next
        if arguments.json:
            output.as_json(found)
            return
        rows = [
            (one.id, one.ok, one.status or None, f"{one.latency_ms:.0f} ms", one.error or None)
            for one in found
        ]
        output.table(("ID", "OK", "STATUS", "TOOK", "ERROR"), rows, "There are no keys.")

    return run_command(arguments, do) or int(not all(one.ok for one in found))


def _reseal(arguments: argparse.Namespace) -> int:
    async def do(office: CommandContext) -> None:
        if not office.settings.sealing_keys:
            raise AIProxyError("sealing_keys: there is none to seal with.")
        _, pools = await office.keys(arguments.provider)
        counts = {
            pool.name: await pool.table.reencrypt() for pool in pools if pool.table is not None
        }
        count = sum(counts.values())
        _say(arguments, counts, f"{count} secrets are sealed with the first of sealing_keys.")

    return run_command(arguments, do)


def _say(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
