"""The command line: manage tokens, keys, groups, users, vouchers and usage over the
configured store, and connect clients.

Each module adds one command with argparse; those over the store call the same services as the admin
API.
"""

from __future__ import annotations

from asgi_aiproxy.cli import (
    audit,
    connect,
    explain,
    groups,
    importing,
    keys,
    models,
    tokens,
    usage,
    users,
    vouchers,
)
from asgi_aiproxy.cli.options import Commands


def add_commands(commands: Commands) -> None:
    """Add all commands to a parser; each sets `run`, which takes the arguments and returns the exit
    status."""
    for module in (
        tokens,
        keys,
        groups,
        users,
        vouchers,
        usage,
        models,
        explain,
        audit,
        importing,
        connect,
    ):
        module.add(commands)
