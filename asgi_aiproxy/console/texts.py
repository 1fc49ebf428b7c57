"""The texts of the console by language: one JSON table per language, English is in the templates.

A table maps each English text to its translation; texts may have placeholders such as `{name}`. To
add a language, add `strings/<language>.json`, and `strings/messages/<language>.json` with the
messages of the gateway (see `messages.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from asgi_aiproxy.console.messages import Messages

ENGLISH = "en"


class Texts:
    """The texts of one language, `language` is its tag for HTML; `message` translates messages of
    the gateway.
    """

    def __init__(
        self, language: str, table: Mapping[str, str], messages: Mapping[str, str]
    ) -> None:
        self.language = language
        self.message = Messages(messages)
        self._table = table

    def __call__(self, text: str, /, **values: object) -> str:
        """Return a text in this language, with its placeholders filled in."""
        found = self._table.get(text, text)
        return found.format(**values) if values else found


class Languages:
    """All languages, read from the tables in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._texts = {ENGLISH: Texts(ENGLISH, {}, {})}
        for path in sorted(folder.glob("*.json")):
            tables = (path, folder / "messages" / path.name)
            table, messages = (json.loads(each.read_text("utf-8")) for each in tables)
            self._texts[path.stem] = Texts(path.stem, table, messages)

    @property
    def tags(self) -> list[str]:
        """The language tags."""
        return list(self._texts)

    def choose(self, chosen: str | None, accepted: str) -> Texts:
        """Return the `chosen` language, else the first of `Accept-Language` that exists."""
        if chosen in self._texts:
            return self._texts[chosen]
        for tag in _by_preference(accepted):
            found = self._texts.get(tag) or self._texts.get(tag.partition("-")[0])
            if found is not None:
                return found
        return self._texts[ENGLISH]


def _by_preference(header: str) -> list[str]:
    """Return the tags of `Accept-Language`, the preferred ones first (RFC 9110, 12.5.4)."""
    found = []
    for item in header.split(",")[:20]:
        tag, _, weight = item.partition(";q=")
        try:
            quality = float(weight or 1)
        except ValueError:
            quality = 0.0
        found.append((-quality, tag.strip().lower()))
    return [tag for quality, tag in sorted(found, key=lambda pair: pair[0]) if quality < 0]
