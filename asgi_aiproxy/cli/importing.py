"""The command `import`: take over the configuration of an earlier gateway."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from asgi_aiproxy.cli import output
from asgi_aiproxy.cli.options import Commands
from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.importer.apply import Applied, apply_plan
from asgi_aiproxy.importer.plan import Plan
from asgi_aiproxy.importer.sources import FORMATS, read_source

_WORDS = {"taken": "taken", "left": "left out", "invalid": "INVALID"}


def add(commands: Commands) -> None:
    """Add the command."""
    help = "take over the configuration of an earlier gateway"
    parser = commands.add_parser(
        "import",
        help=help,
        description="Take over the configuration of aiproxy, One API, ChatGPT-to-API, "
        "chatgpt-adapter or LiteLLM.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="c.yaml, config.yaml, access_tokens.json, api_keys.txt, proxies.txt, one-api.db, or a "
        "table of One API as JSON or CSV",
    )
    parser.add_argument("--format", choices=FORMATS, default="", help="instead of recognizing it")
    parser.add_argument("--config", metavar="FILE", default="aiproxy.toml",
                        help="the configuration to create or extend (aiproxy.toml)")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="report, and write nothing")
    parser.add_argument("--strict", action="store_true",
                        help="write nothing if anything is invalid")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_import)


def _import(arguments: argparse.Namespace) -> int:
    plan = read_source(Path(arguments.file), arguments.format)
    path = Path(arguments.config)
    try:
        applied = asyncio.run(
            apply_plan(plan, path, dry_run=arguments.dry_run, strict=arguments.strict)
        )
    except ConfigurationError:
        raise
    except AIProxyError as error:
        output.print_error(f"asgi_aiproxy: {error}")
        return 1
    if arguments.json:
        output.as_json({"lines": plan.report, "written": applied.written,
                        "configuration": applied.configuration})  # fmt: skip
    else:
        _print_report(plan, applied, path)
    return 1 if plan.invalid else 0


def _print_report(plan: Plan, applied: Applied, path: Path) -> None:
    for line in plan.report:
        print(f"{_WORDS[line.outcome]:9} {line.place}: {line.text}")
    counts = dict.fromkeys(_WORDS, 0)
    for line in plan.report:
        counts[line.outcome] += 1
    print(f"{counts['taken']} taken, {counts['left']} left out, {counts['invalid']} invalid.")
    changed = "was written" if applied.configuration else "is unchanged"
    print(f"{path} {changed}; {applied.written} keys, tokens and rows were written to the store.")
