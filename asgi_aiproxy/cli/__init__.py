"""Looking after a gateway from the command line, over the store that its configuration names."""

from __future__ import annotations

from asgi_aiproxy.cli import groups, keys, tokens, usage, vouchers
from asgi_aiproxy.cli.options import Commands


def add_commands(commands: Commands) -> None:
    """Add all commands to a parser's; each sets `run` to what it does."""
    for module in (tokens, keys, groups, vouchers, usage):
        module.add(commands)
