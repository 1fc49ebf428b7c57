"""What is written on a command line: limits, amounts, times."""

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

CONFIG = "a TOML file (default: that of AIPROXY_CONFIG; else AIPROXY_... variables alone)"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def add_command_group(commands: Commands, name: str, help: str) -> Commands:
    """A command that has commands of its own."""
    parser = commands.add_parser(name, help=help, description=help.capitalize() + ".")
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def add_command(
    commands: Commands, name: str, help: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """A command with the options that all have."""
    lead = help[:1].upper() + help[1:]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=lead + ".")
    parser.add_argument("--config", metavar="FILE", help=CONFIG)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def add_paging_options(parser: argparse.ArgumentParser) -> None:
    """The options of a list."""
    parser.add_argument(
        "--limit", type=parse_row_count, default=100, metavar="N", help="rows (100)"
    )
    parser.add_argument("--after", default="", metavar="ID", help="begin after this row")


def parse_row_count(text: str) -> int:
    """A number of rows."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def limit(text: str) -> int | None:
    """A limit; `none` is none."""
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, and not 'none'")
    return int(text)


def budget(text: str) -> str | None:
    """A budget, such as `25`, `5/day` or `5000 units/month`; `none` is none."""
    if text == "none":
        return None
    try:
        Budget.parse(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def units(text: str) -> str | None:
    """A budget in units, such as `500000` or `1000/month`; `none` is none."""
    amount, slash, per = text.partition("/")
    return budget(f"{amount} units{slash}{per}" if text != "none" else text)


def budgets(arguments: argparse.Namespace) -> dict[str, Any]:
    """The budgets that were given by --budget and --units, if any were."""
    given = given_options(arguments, ("budget", "units"))
    every = [one for some in given.values() for one in some]
    return {"budgets": [one for one in every if one is not None]} if given else {}


def parse_duration(text: str) -> float:
    """A number of seconds, or a span such as `90s`, `15m`, `24h`, `30d`."""
    if text.isdecimal():
        return float(text)
    found = _SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time, such as 15m, 24h or 30d")
    return float(found[1]) * _SECONDS[found[2]]


class TimeArgument:
    """A moment: a span from now (`30d`), or a date or time in UTC. `sign` is -1 for the past."""

    def __init__(self, sign: int = 1) -> None:
        self._sign = sign

    def __call__(self, text: str) -> float | None:
        """Unix time; None for `never`."""
        if text == "never":
            return None
        now = datetime.now(UTC).timestamp()
        if _SPAN.fullmatch(text):
            return now + self._sign * parse_duration(text)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no time: give a span (30d), a date (2027-01-31), or a time "
                f"(2027-01-31T12:00)"
            ) from None
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def parse_day(text: str) -> date:
    """A day in UTC: a date, or a span back from today."""
    moment = TimeArgument(-1)(text)
    if moment is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no day")
    return datetime.fromtimestamp(moment, UTC).date()


def given_options(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options that were given; those of argparse.SUPPRESS are not there otherwise."""
    known = vars(arguments)
    return {name: known[name] for name in names if name in known}


def read_secret(what: str) -> str:
    """A secret that is typed in, or comes from standard input: a command line is seen by others."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{what}: ").strip()
    return sys.stdin.readline().strip()
