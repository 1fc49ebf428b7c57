"""Parse what is written on a command line: limits, budgets, durations, times."""

from __future__ import annotations

import argparse
import getpass
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import Budget

Commands = Any  # what argparse's `add_subparsers` returns has no public name

CONFIG = "TOML file (default: AIPROXY_CONFIG, else only the AIPROXY_... variables)"

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def add_command_group(commands: Commands, name: str, help: str) -> Commands:
    """Add a command that has subcommands."""
    parser = commands.add_parser(name, help=help, description=help.capitalize() + ".")
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def add_command(
    commands: Commands, name: str, help: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command with the options that all commands have."""
    options = help[:1].upper() + help[1:]
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=options + "."
    )
    parser.add_argument("--config", metavar="FILE", help=CONFIG)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def add_paging_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that list rows."""
    parser.add_argument(
        "--limit",
        type=parse_row_count,
        default=100,
        metavar="N",
        help="maximum number of rows (100)",
    )
    parser.add_argument("--after", default="", metavar="ID", help="start after this row")


def parse_row_count(text: str) -> int:
    """Parse a number of rows."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to 1000, got {text!r}")
    return int(text)


def limit(text: str) -> int | None:
    """Parse a limit; `none` removes it."""
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, or 'none', got {text!r}")
    return int(text)


def budget(text: str) -> str | None:
    """Parse a budget, such as `25`, `5/day` or `5000 units/month`; `none` removes it."""
    if text == "none":
        return None
    try:
        Budget.parse(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def units(text: str) -> str | None:
    """Parse a budget in quota units, such as `500000` or `1000/month`; `none` removes it."""
    amount, slash, per = text.partition("/")
    return budget(f"{amount} units{slash}{per}" if text != "none" else text)


def budgets(arguments: argparse.Namespace) -> dict[str, Any]:
    """The budgets given by --budget and --units; empty if neither was given."""
    amounts = given_options(arguments, ("budget", "units"))
    texts = [text for values in amounts.values() for text in values]
    return {"budgets": [text for text in texts if text is not None]} if amounts else {}


def add_raise_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a raise of a budget."""
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--usd", type=float, metavar="USD", default=argparse.SUPPRESS,
                        help="in US dollars")  # fmt: skip
    amount.add_argument("--units", type=int, metavar="N", default=argparse.SUPPRESS,
                        help="in quota units")  # fmt: skip
    parser.add_argument("--per", default="total", help="period of the budget: month ... (total)")
    parser.add_argument("--for", dest="seconds", type=parse_duration, required=True,
                        metavar="DURATION", help="how long it lasts: 24h, 7d")  # fmt: skip


def raise_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a raise."""
    return given_options(arguments, ("usd", "units", "per", "seconds"))


def parse_duration(text: str) -> float:
    """Parse a duration: seconds, or `90s`, `15m`, `24h`, `30d`. Returns seconds."""
    if text.isdecimal():
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"invalid duration {text!r}: write it as 15m, 24h or 30d")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


class TimeArgument:
    """Parse a time: a duration from now (`30d`), or a date or time in UTC.

    `sign` is 1 for durations into the future, -1 for the past.
    """

    def __init__(self, sign: int = 1) -> None:
        self._sign = sign

    def __call__(self, text: str) -> float | None:
        """Returns Unix time; None for `never`."""
        if text == "never":
            return None
        now = datetime.now(UTC).timestamp()
        if _DURATION.fullmatch(text):
            return now + self._sign * parse_duration(text)
        try:
            match = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"invalid time {text!r}: write a duration (30d), a date (2027-01-31), or a time "
                f"(2027-01-31T12:00)"
            ) from None
        return (match if match.tzinfo else match.replace(tzinfo=UTC)).timestamp()


def parse_day(text: str) -> date:
    """Parse a day in UTC: a date, or a duration back from today."""
    moment = TimeArgument(-1)(text)
    if moment is None:
        raise argparse.ArgumentTypeError(f"must be a date or a duration, got {text!r}")
    return datetime.fromtimestamp(moment, UTC).date()


def given_options(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The values of those options of `names` that were given (default: argparse.SUPPRESS)."""
    known = vars(arguments)
    return {name: known[name] for name in names if name in known}


def read_secret(prompt: str) -> str:
    """Read a secret from the terminal or standard input: other users can see a command line."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{prompt}: ").strip()
    return sys.stdin.readline().strip()
