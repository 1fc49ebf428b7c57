"""`python -m asgi_aiproxy`: serve a configuration, check one, or look after a gateway."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from asgi_aiproxy import __version__
from asgi_aiproxy.cli import add_commands
from asgi_aiproxy.cli.words import CONFIG
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.logs import configure
from asgi_aiproxy.middleware import Health


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
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
        description="An AI gateway. Mounted in a Python web service it needs no command at all; "
        "these are for those who have none.",
    )
    parser.add_argument("--version", action="version", version=f"asgi_aiproxy {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a configuration over HTTP")
    serve.add_argument("--config", metavar="FILE", help=CONFIG)
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (127.0.0.1)")
    serve.add_argument("--port", type=_port, default=8000, help="port to bind (8000)")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="say whether a configuration is right")
    check.add_argument("--config", metavar="FILE", help=CONFIG)
    check.set_defaults(run=_check)

    add_commands(commands)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: they go from 0 to 65535")
    return int(text)


def _serve(arguments: argparse.Namespace) -> int:
    from asgi_aiproxy.settings import build, load

    settings = load(arguments.config)
    configure(format=settings.log_format, level=settings.log_level)
    app = build(settings)
    front = Health(app, store=getattr(app, "store", None))
    try:
        import uvicorn
    except ImportError:
        raise ConfigurationError(
            "serving needs uvicorn: pip install 'asgi-aiproxy[serve]'."
        ) from None
    # uvicorn stops in good order and then raises the signal again: that is no failure.
    signal.signal(signal.SIGTERM, _stop)
    config = uvicorn.Config(
        front,
        host=arguments.host,
        port=arguments.port,
        log_config=None,  # its lines go where ours go
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=30,
        server_header=False,
    )
    server = uvicorn.Server(config)
    leaving = server.handle_exit

    def drain(number: int, frame: FrameType | None) -> None:
        """Say at `/ready` that no more requests should come; stop when that had time to be seen."""
        first, front.draining = not front.draining, True
        if first and settings.drain:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, settings.drain, leaving, number, frame)
        else:
            leaving(number, frame)

    server.handle_exit = drain  # type: ignore[method-assign, assignment]
    with suppress(KeyboardInterrupt):  # which is raised again, too
        server.run()
    return 0 if server.started else 3


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(0)


def _check(arguments: argparse.Namespace) -> int:
    from asgi_aiproxy.settings import build, doubts, load

    logging.getLogger("asgi_aiproxy").setLevel(logging.ERROR)  # doubts are told below
    settings = load(arguments.config)
    # (A store's file is its gateway's alone while that is running.)
    alone = {"store_file": None} if settings.redis_url is None else {}
    build(settings.model_copy(update=alone))
    for doubt in doubts(settings):
        print(f"asgi_aiproxy: {doubt}", file=sys.stderr)
    routes, providers = len(settings.routes), ", ".join(settings.providers) or "those of routes"
    print(f"The configuration is right: {routes} routes, providers: {providers}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
