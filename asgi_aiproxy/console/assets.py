"""The static files: served under names that contain a hash of their content, cached for a year."""

from __future__ import annotations

import hashlib
from pathlib import Path

from asgi_aiproxy._asgi import RawHeaders

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
ASSET_HEADERS: RawHeaders = [
    (b"cache-control", b"public, max-age=31536000, immutable"),
    (b"x-content-type-options", b"nosniff"),
]


class Assets:
    """The files of a folder that browsers load."""

    def __init__(self, folder: Path) -> None:
        self._names: dict[str, str] = {}
        self._files: dict[str, tuple[bytes, str]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix in _TYPES:
                content = path.read_bytes()
                digest = hashlib.sha256(content).hexdigest()[:12]
                hashed = f"{path.stem}.{digest}{path.suffix}"
                self._names[path.name] = hashed
                self._files[hashed] = content, _TYPES[path.suffix]

    def hashed(self, name: str) -> str:
        """Return the name under which a file is served."""
        return self._names[name]

    def find(self, hashed: str) -> tuple[bytes, str] | None:
        """Return content and media type of a file, or None."""
        return self._files.get(hashed)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each file in bytes."""
        return {name: len(self._files[hashed][0]) for name, hashed in self._names.items()}
