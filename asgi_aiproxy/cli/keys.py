"""The command `keys`: manage the provider keys of the store."""

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
    subcommands = add_command_group(commands, "keys", "manage provider keys in the store")
    some = add_command(subcommands, "list", "list keys and their health", _list)
    some.add_argument("provider", nargs="?", default="", help="(all)")
    add_paging_options(some)
    new = add_command(
        subcommands,
        "add",
        "add a key; its secret is read from the terminal or standard input",
        _add,
    )
    new.add_argument("provider")
    new.add_argument("--id", help="id of the key (its fingerprint)", default=argparse.SUPPRESS)
    _add_options(new)
    edit = add_command(subcommands, "edit", "change a key; options not given stay unchanged", _edit)
    _add_key_arguments(edit)
    _add_options(edit)
    edit.add_argument("--secret", action="store_true", dest="new_secret",
                      help="read a new secret; requests in flight keep the old one")  # fmt: skip
    load = add_command(
        subcommands,
        "import",
        "add the keys of a file: one per line, a secret, or an id and a secret",
        _load,
    )
    load.add_argument("provider")
    load.add_argument("file", help="the file; - is standard input")
    load.add_argument("--replace", action="store_true", help="replace all keys in the store")
    _add_key_arguments(
        add_command(
            subcommands, "enable", "enable a key, and reset its cooldown and errors", _enable
        )
    )
    _add_key_arguments(add_command(subcommands, "disable", "disable a key", _disable))
    _add_key_arguments(
        add_command(subcommands, "remove", "remove a key; requests in flight keep it", _remove)
    )
    trial = add_command(subcommands, "test", "test one key or all, with latency", _test)
    _add_key_arguments(trial, nargs="?", default="")
    trial.add_argument(
        "--model", default="", help="test with one token of this model (default: list the models)"
    )
    reseal = add_command(
        subcommands, "reseal", "encrypt all secrets with the first of sealing_keys", _reseal
    )
    reseal.add_argument("provider", nargs="?", default="", help="(all)")


def _add_key_arguments(parser: argparse.ArgumentParser, **more: Any) -> None:
    parser.add_argument("provider")
    parser.add_argument("id", help="id of the key", **more)


def _add_options(parser: argparse.ArgumentParser) -> None:
    def option(flag: str, help: str, **more: Any) -> None:
        parser.add_argument(flag, help=help, default=argparse.SUPPRESS, **more)

    option("--weight", "share of the load (1)", type=int, metavar="N")
    option("--priority", "lower values are used first (0)", type=int, metavar="N")
    option("--models", "models it may be used for (all)", nargs="*", metavar="PATTERN")
    option("--rpm", "requests per minute", type=options.limit, metavar="N")
    option("--tpm", "tokens per minute", type=options.limit, metavar="N")
    option("--concurrency", "concurrent requests", type=options.limit, metavar="N")
    option("--proxy", "outbound proxy", metavar="URL")
    option("--base-url", "replaces the base URL of the provider", metavar="URL")


def _list(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service, pools = await context.keys(arguments.provider)
        query = PageQuery(arguments.after, arguments.limit)
        if arguments.provider:
            found = [await service.page(arguments.provider, query)]
        else:
            found = [await service.page(pool.name, query) for pool in pools]
        if arguments.json:
            output.as_json(found[0] if arguments.provider else [k for p in found for k in p.data])
            return
        _table([key for page in found for key in page.data])
        for page in found:
            output.print_next_page_hint(page.next)

    return run_command(arguments, do)


def _table(keys: Sequence[KeyOut]) -> None:
    heads = (
        "PROVIDER",
        "ID",
        "HEALTH",
        "COOLDOWN",
        "WEIGHT",
        "PRIORITY",
        "RPM",
        "TPM",
        "CONCURRENCY",
    )
    rows = [
        (
            *(
                key.provider,
                key.id,
                key.health,
                f"{key.cooldown_seconds:.0f} s" if key.cooldown_seconds else None,
            ),
            *(key.weight, key.priority, key.rpm, key.tpm, key.concurrency),
            *(key.models or "all", key.source),
        )
        for key in keys
    ]
    output.table((*heads, "MODELS", "SOURCE"), rows, "No keys.")


def _add(arguments: argparse.Namespace) -> int:
    fields = {**options.given_options(arguments, _FIELDS), "secret": options.read_secret("Secret")}

    async def do(context: CommandContext) -> None:
        service, _ = await context.keys(arguments.provider)
        (key,) = await service.create(arguments.provider, convert(fields, KeyNew), context.by)
        _print_result(arguments, key, f"The key {key.id} was added.")

    return run_command(arguments, do)


def _edit(arguments: argparse.Namespace) -> int:
    fields = options.given_options(
        arguments, tuple(name for name in _FIELDS if name not in ("id", "secret"))
    )
    if arguments.new_secret:
        fields["secret"] = options.read_secret("Secret")

    async def do(context: CommandContext) -> None:
        service, _ = await context.keys(arguments.provider)
        change = convert(fields, KeyEdit)
        key = await service.edit(arguments.provider, arguments.id, change, context.by)
        _print_result(arguments, key, f"The key {key.id} was changed.")

    return run_command(arguments, do)


def _load(arguments: argparse.Namespace) -> int:
    try:
        if arguments.file == "-":
            text = sys.stdin.buffer.read()
        else:
            text = Path(arguments.file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{arguments.file}: {error.strerror}.") from error

    async def do(context: CommandContext) -> None:
        service, _ = await context.keys(arguments.provider)
        imported = await service.load(
            arguments.provider, text, replace=arguments.replace, by=context.by
        )
        _print_result(arguments, imported, f"{len(imported.ids)} keys were imported.")

    return run_command(arguments, do)


def _enable(arguments: argparse.Namespace) -> int:
    return _switch(arguments, enabled=True)


def _disable(arguments: argparse.Namespace) -> int:
    return _switch(arguments, enabled=False)


def _switch(arguments: argparse.Namespace, *, enabled: bool) -> int:
    async def do(context: CommandContext) -> None:
        service, _ = await context.keys(arguments.provider)
        key = await service.switch(arguments.provider, arguments.id, enabled=enabled, by=context.by)
        _print_result(
            arguments, key, f"The key {key.id} is {'enabled' if enabled else 'disabled'}."
        )

    return run_command(arguments, do)


def _remove(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        service, _ = await context.keys(arguments.provider)
        result = await service.remove(arguments.provider, arguments.id, context.by)
        _print_result(arguments, result, f"The key {arguments.id} was removed.")

    return run_command(arguments, do)


def _test(arguments: argparse.Namespace) -> int:
    found: list[KeyTestResult] = []

    async def do(context: CommandContext) -> None:
        service, _ = await context.keys(arguments.provider)
        if arguments.id:
            found.append(await service.try_one(arguments.provider, arguments.id, arguments.model))
        else:
            after: str | None = ""
            while after is not None:
                query = KeyTestQuery(arguments.model, after, MAX_PAGE_ROWS)
                page = await service.try_all(arguments.provider, query)
                found.extend(page.data)
                after = page.next
        if arguments.json:
            output.as_json(found)
            return
        rows = [
            (
                result.id,
                result.ok,
                result.status or None,
                f"{result.latency_ms:.0f} ms",
                result.error or None,
            )
            for result in found
        ]
        output.table(("ID", "OK", "STATUS", "LATENCY", "ERROR"), rows, "No keys.")

    return run_command(arguments, do) or int(not all(result.ok for result in found))


def _reseal(arguments: argparse.Namespace) -> int:
    async def do(context: CommandContext) -> None:
        if not context.settings.sealing_keys:
            raise AIProxyError("sealing_keys: is empty; set at least one key to encrypt with.")
        _, pools = await context.keys(arguments.provider)
        counts = {
            pool.name: await pool.table.reencrypt() for pool in pools if pool.table is not None
        }
        count = sum(counts.values())
        _print_result(
            arguments, counts, f"{count} secrets were encrypted with the first of sealing_keys."
        )

    return run_command(arguments, do)


def _print_result(arguments: argparse.Namespace, value: Any, text: str) -> None:
    if arguments.json:
        output.as_json(value)
    else:
        print(text)
