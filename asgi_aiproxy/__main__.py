"""`python -m asgi_aiproxy`: serve a configuration, check it, or manage a gateway."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args

from asgi_aiproxy import __version__
from asgi_aiproxy.cli import add_commands
from asgi_aiproxy.cli.options import CONFIG
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.logs import LogLevel


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status.

    0: done; 1: failed; 2: invalid arguments or settings.
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except ConfigurationError as error:
        print(f"asgi_aiproxy: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asgi_aiproxy",
        description="An AI gateway. Inside a Python web service it needs no command; these run it "
        "as a server of its own and manage its tokens, keys and budgets.",
    )
    parser.add_argument("--version", action="version", version=f"asgi_aiproxy {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a configuration over HTTP")
    serve.add_argument("--config", metavar="FILE", help=CONFIG)
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (127.0.0.1)")
    serve.add_argument("--port", type=_port, default=8000, help="port to bind (8000)")
    serve.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="number of processes (1); with redis_url they share limits and budgets",
    )
    serve.add_argument(
        "--log-level", choices=get_args(LogLevel), help="overrides the setting log_level"
    )
    serve.add_argument(
        "--forwarded-allow-ips",
        metavar="LIST",
        help="comma-separated addresses of reverse proxies whose X-Forwarded-For and -Proto are "
        "trusted, or '*' (FORWARDED_ALLOW_IPS, else 127.0.0.1)",
    )
    serve.add_argument("--ssl-certfile", metavar="FILE", help="serve HTTPS with this PEM file")
    serve.add_argument(
        "--ssl-keyfile", metavar="FILE", help="its private key, if that is not in the same file"
    )
    serve.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="path at which a reverse proxy mounts this server",
    )
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="validate a configuration")
    check.add_argument("--config", metavar="FILE", help=CONFIG)
    check.set_defaults(run=_check)

    add_commands(commands)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 65535, got {text!r}")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to 1024, got {text!r}")
    return int(text)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from asgi_aiproxy.serving import ServeOptions, serve
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise ConfigurationError(
            "serve requires uvicorn: pip install 'asgi-aiproxy[serve]'."
        ) from None
    names = {field.name for field in fields(ServeOptions)}
    return serve(ServeOptions(**{k: v for k, v in vars(arguments).items() if k in names}))


def _check(arguments: argparse.Namespace) -> int:
    from asgi_aiproxy.config.settings import build, configuration_warnings, load

    logging.getLogger("asgi_aiproxy").setLevel(logging.ERROR)  # warnings are printed below
    settings = load(arguments.config)
    # (A running gateway locks its store file.)
    without_file = {"store_file": None} if settings.redis_url is None else {}
    build(settings.model_copy(update=without_file))
    for warning in configuration_warnings(settings):
        print(f"asgi_aiproxy: {warning}", file=sys.stderr)
    routes, providers = len(settings.routes), ", ".join(settings.providers) or "from routes"
    print(f"The configuration is valid: {routes} routes, providers: {providers}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
