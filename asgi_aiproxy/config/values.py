"""Types of settings: references to variables and files, secrets, proxies, networks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks

# How other tools refer to a variable; here the text would be taken for the secret itself.
_FOREIGN_REFERENCE = re.compile(r"\$\{?(\w+)\}?|os\.environ/(\w+)|%(\w+)%|\{\{\s*(\w+)\s*\}\}")


def _dereferenced(value: Any) -> Any:
    """Replace `env:NAME` by the value of the environment variable NAME, and `file:PATH` by the
    contents of a file without its final line break."""
    if not isinstance(value, str):
        return value
    if value.startswith("env:"):
        name = value.removeprefix("env:")
        found = os.environ.get(name)
        if not found:
            raise ValueError(f"the environment variable {name} is not set")
        return found
    if value.startswith("file:"):
        path = value.removeprefix("file:")
        try:
            return Path(path).read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {path} is not UTF-8 text") from None
    if foreign := _FOREIGN_REFERENCE.fullmatch(value.strip()):
        name = next(group for group in foreign.groups() if group)
        raise ValueError(f'write "env:{name}" to take the value of an environment variable')
    return value


def resolve_reference(value: str) -> str:
    """The secret that `env:NAME` or `file:PATH` refers to, or the value. Raises ValueError."""
    return str(_dereferenced(value))


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("must not be empty")
    return value


def _check_proxy(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("must be a URL that begins with http://, https:// or socks5://")
    return value


def _check_network(value: str) -> str:
    try:
        check_networks((value,))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


Text = Annotated[str, BeforeValidator(_dereferenced)]
Secret = Annotated[SecretStr, BeforeValidator(_dereferenced), AfterValidator(_not_empty)]
Proxy = Annotated[Secret, AfterValidator(_check_proxy)]
Network = Annotated[str, AfterValidator(_check_network)]
