"""What an import will do: settings to write, keys to store, rows of One API, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Outcome = Literal["taken", "left", "invalid"]


class ReportLine(msgspec.Struct, frozen=True):
    """One line of the report: the place in the file, and what was taken, or why it was not."""

    place: str
    outcome: Outcome
    text: str


class PlannedKey(msgspec.Struct, frozen=True):
    """An API key to store, encrypted, in the pool of a provider. `fields` are those of `Key`."""

    provider: str
    secret: str
    place: str
    fields: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"PlannedKey({self.provider!r}, {self.place!r})"


class PlannedToken(msgspec.Struct, frozen=True):
    """A token for callers of the gateway that existed before."""

    name: str
    secret: str
    place: str

    def __repr__(self) -> str:
        return f"PlannedToken({self.name!r})"


class Plan:
    """Collects what a file contains.

    `settings` are the members of `aiproxy.toml`, `keys`, `tokens` and `tables` what belongs in the
    store, `tables` being the rows of One API by table.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.keys: list[PlannedKey] = []
        self.tokens: list[PlannedToken] = []
        self.tables: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.report: list[ReportLine] = []

    def take(self, place: str, text: str) -> None:
        """Report that something is taken."""
        self.report.append(ReportLine(place, "taken", text))

    def leave(self, place: str, text: str) -> None:
        """Report that something is not taken, and why."""
        self.report.append(ReportLine(place, "left", text))

    def reject(self, place: str, text: str) -> None:
        """Report that something is invalid, and why."""
        self.report.append(ReportLine(place, "invalid", text))

    def set(self, *path_and_value: Any) -> None:
        """Set a setting: the steps of its path, and its value."""
        *path, name, value = path_and_value
        table = self.settings
        for step in path:
            table = table.setdefault(step, {})
        table[name] = value

    def add_key(self, provider: str, secret: object, place: str, **fields: Any) -> None:
        """Take an API key, or reject it if it is not one."""
        if not isinstance(secret, str) or not secret.strip():
            self.reject(place, "the key is empty")
            return
        text = secret.strip()
        if not text.isascii() or not text.isprintable():
            self.reject(place, "the key has characters that cannot be sent in a header")
            return
        kept = {name: value for name, value in fields.items() if value not in (None, "", {})}
        self.settings.setdefault("providers", {}).setdefault(provider, {})
        self.keys.append(PlannedKey(provider, text, place, kept))

    def take_secret(self, planned: PlannedKey | PlannedToken) -> None:
        """Report that a key or a token is taken."""
        if isinstance(planned, PlannedKey):
            what = f"a key of the provider {planned.provider}, encrypted in the store"
        else:
            what = "a token for callers; only its digest is stored"
        self.take(planned.place, what)

    @property
    def invalid(self) -> list[ReportLine]:
        """The lines about what is invalid."""
        return [line for line in self.report if line.outcome == "invalid"]
