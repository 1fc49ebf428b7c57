"""Warnings about base URLs that are valid, but probably not intended."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit


def base_url_warnings(where: str, address: str, usual: str) -> Iterator[str]:
    """What may be wrong with the base URL `address`, where `usual` is a correct one."""
    path = urlsplit(address).path.rstrip("/")
    end = urlsplit(usual).path.rstrip("/")
    for tail in ("/chat/completions", "/responses", "/messages", "/embeddings"):
        if path.endswith(tail):
            yield f"{where}.base_url: remove {tail!r}: it is appended for each request."
            return
    versions = [part for part in path.split("/") if part in ("v1", "v1beta")]
    if len(versions) > 1:
        yield f"{where}.base_url: the path {path!r} contains the version twice."
    elif end.endswith("/v1") and not path:
        yield f"{where}.base_url: it should probably end with '/v1': {address.rstrip('/')}/v1."
    elif not end and versions:
        yield f"{where}.base_url: remove '/{versions[0]}': it is appended for each request."
