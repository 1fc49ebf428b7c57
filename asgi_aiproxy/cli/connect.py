"""The command `connect`: the configuration of a client for a gateway, and whether it will work."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.cli import output
from asgi_aiproxy.cli.options import Commands, read_secret
from asgi_aiproxy.config.values import resolve_reference
from asgi_aiproxy.connect import (
    CLIENTS,
    Client,
    Finding,
    GatewayAccess,
    Report,
    Setup,
    check_gateway,
)
from asgi_aiproxy.connect.clients import TOKEN_VARIABLE
from asgi_aiproxy.connect.codex_models import codex_catalog
from asgi_aiproxy.connect.config_files import merge_config, toml_text
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.upstream import Timeouts, default_transport

_TOKEN = (
    f"the token, env:NAME for the variable that holds it, file:PATH, or - to read it from standard "
    f"input (env:{TOKEN_VARIABLE} if that is set)"
)
_CATALOG = "aiproxy-models.json"  # beside Codex's settings
_MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}
_TIMEOUTS = Timeouts(connect=10, first=120, idle=60)


def add(commands: Commands) -> None:
    """Add the command."""
    what = "print the configuration of a client for a gateway, and check that it will work"
    parser = commands.add_parser("connect", help=what, description=what.capitalize() + ".")
    parser.add_argument("client", choices=list(CLIENTS), metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:8000",
        help="where the gateway is mounted, without /v1 (http://127.0.0.1:8000)",
    )
    parser.add_argument("--token", default="", help=_TOKEN)
    parser.add_argument(
        "--model", default="", help="the model to use, by the gateway's name for it"
    )
    parser.add_argument("--call", action="store_true", help="also send one small streamed request")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the configuration file; what is in it stays, and a copy is kept",
    )
    parser.add_argument(
        "--file", metavar="PATH", help="the file to write, instead of the client's own"
    )
    parser.add_argument(
        "--catalog",
        action="store_true",
        help="codex: also write metadata of the gateway's models, made from those of the installed "
        "codex; needs --write",
    )
    parser.add_argument(
        "--context-window",
        type=parse_token_count,
        default=128_000,
        metavar="N",
        help="with --catalog: tokens that models which codex does not know can read (128000)",
    )
    parser.add_argument(
        "--show-token", action="store_true", help="print and write the token itself"
    )
    parser.add_argument(
        "--no-check", action="store_false", dest="check", help="do not connect to the gateway"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_connect)


def _connect(arguments: argparse.Namespace) -> int:
    client = CLIENTS[arguments.client]
    url = base_url(arguments.url)
    token, variable = _token(arguments.token)
    report = Report(findings=(), model=arguments.model or client.model)
    if arguments.check:
        report = asyncio.run(_check(client, url, token, arguments))
    gateway = GatewayAccess(
        url=url,
        model=report.model,
        variable=variable,
        token=token if arguments.show_token else "",
        websocket=report.websocket,
    )
    setup = client.setup(gateway)
    if setup.file is not None and arguments.file:
        file = msgspec.structs.replace(setup.file, path=arguments.file)
        setup = msgspec.structs.replace(setup, file=file)
    if arguments.catalog:
        names = report.models or (report.model,)
        setup = _with_catalog(setup, names, arguments)
    written = write(setup) if arguments.write else None
    if arguments.json:
        output.as_json({"setup": setup, "report": report, "written": written})
    else:
        _print(client, setup, report.findings, written)
    return 1 if any(finding.result == "missing" for finding in report.findings) else 0


def parse_token_count(text: str) -> int:
    """Parse a number of tokens."""
    if not text.isdecimal() or not 1000 <= int(text) <= 100_000_000:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1000, got {text!r}")
    return int(text)


def _with_catalog(setup: Setup, names: Sequence[str], arguments: argparse.Namespace) -> Setup:
    """Write the list of models for Codex; returns the settings that name it."""
    if arguments.client != "codex" or not arguments.write or setup.file is None:
        raise ConfigurationError("--catalog is for codex, together with --write.")
    program = shutil.which("codex")
    if program is None:
        raise ConfigurationError("--catalog: no program codex was found in PATH.")
    try:
        command = [program, "debug", "models"]
        ran = subprocess.run(command, capture_output=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"--catalog: 'codex debug models' failed: {error}.") from None
    catalog = codex_catalog(ran.stdout, names, context_window=arguments.context_window)
    path = Path(setup.file.path).expanduser().with_name(_CATALOG).absolute()
    text = json.dumps(catalog, indent=1, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_file(path, text, path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}.") from None
    members = {"model_catalog_json": str(path), **setup.file.members}
    file = msgspec.structs.replace(setup.file, members=members)
    return msgspec.structs.replace(setup, file=file)


def base_url(text: str) -> str:
    """The URL of the mount, without what clients add. Raises ConfigurationError."""
    url = text.strip().rstrip("/")
    for end in ("/v1beta", "/v1"):
        url = url.removesuffix(end).rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in url or "?" in url or "#" in url or not url.isprintable():
        raise ConfigurationError(
            "--url must be an http or https URL without user, password and query, such as "
            "http://127.0.0.1:8000/ai"
        )
    return url


def _token(text: str) -> tuple[str, str]:
    """The token, and the environment variable that its client shall read."""
    if text == "-":
        return read_secret("Token"), TOKEN_VARIABLE
    given = text or f"env:{TOKEN_VARIABLE}"
    variable = given.removeprefix("env:") if given.startswith("env:") else TOKEN_VARIABLE
    try:
        return resolve_reference(given), variable
    except ValueError as error:
        if text:
            raise ConfigurationError(f"--token: {error}.") from None
        return "", variable


async def _check(client: Client, url: str, token: str, arguments: argparse.Namespace) -> Report:
    transport = default_transport(timeouts=_TIMEOUTS)
    try:
        return await check_gateway(
            client, url, transport, token=token, model=arguments.model, call=arguments.call
        )
    finally:
        await transport.aclose()


def write(setup: Setup) -> Mapping[str, str]:
    """Merge the settings into the file; returns its path and that of the copy.

    Raises ConfigurationError if the client has no file, or the file is not understood.
    """
    if setup.file is None:
        raise ConfigurationError("--write: this client has no configuration file, only variables.")
    path = Path(setup.file.path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf-8") if path.exists() else ""
        changed = merge_config(text, setup.file)
        if changed == text:
            return {"path": str(path), "copy": ""}
        copy = ""
        if text:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            copy = f"{path}.{stamp}.bak"
            _write_file(Path(copy), text, path)
        _write_file(path, changed, path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be changed: {error}.") from None
    return {"path": str(path), "copy": copy}


def _write_file(path: Path, text: str, like: Path) -> None:
    """Write a file at once; it may hold a token, so others must not read it."""
    mode = like.stat().st_mode & 0o777 if like.exists() else 0o600
    new = path.with_name(path.name + ".new")
    new.touch(0o600)
    new.write_text(text, "utf-8")
    new.chmod(mode)
    new.replace(path.resolve() if path.is_symlink() else path)


def _print(
    client: Client, setup: Setup, findings: Sequence[Finding], written: Mapping[str, str] | None
) -> None:
    title = client.title
    if setup.environment:
        print(f"# Environment for {title}:\n")
        print("\n".join(environment_lines(setup)) + "\n")
    if setup.file is not None:
        print(f"# {setup.file.path}\n\n{file_text(setup)}")
    if setup.example:
        print(f"# Use it:\n\n{setup.example}\n")
    for note in setup.notes:
        print(f"# {note}")
    if written is not None:
        done = f"# {written['path']} is written."
        print(done + (f" The previous content is in {written['copy']}." if written["copy"] else ""))
    if findings:
        print("\n# Checks:\n")
    for finding in findings:
        print(f"{_MARKS[finding.result]} {_printable(finding.text)}")
        if finding.advice:
            print(f"        {finding.advice}")
    with suppress(BrokenPipeError):
        sys.stdout.flush()


def environment_lines(setup: Setup) -> list[str]:
    """The environment as lines for a POSIX shell."""
    return [f"export {name}={_quoted(value)}" for name, value in setup.environment.items()]


def file_text(setup: Setup) -> str:
    """The members for a file as it would be if it were empty."""
    file = setup.file
    if file is None:
        return ""
    return toml_text(file.members) if file.format == "toml" else merge_config("", file)


def _quoted(value: str) -> str:
    return f'"{value}"' if value.startswith("$") else shlex.quote(value)


def _printable(text: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text))
