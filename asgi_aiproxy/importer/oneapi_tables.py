"""Read One API's tables: its SQLite file, or tables exported as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.importer.plan import Plan

TABLES = ("users", "channels", "tokens", "redemptions", "options")
_IGNORED = {
    "abilities": "follows from the channels",
    "logs": "earlier usage stays in the old database",
}
# A column that only this table has.
_MARKS = {
    "channels": {"model_mapping", "base_url"},
    "tokens": {"unlimited_quota"},
    "users": {"aff_code", "display_name"},
    "redemptions": {"redeemed_time"},
    "options": {"key", "value"},
}


def plan_sqlite(path: Path, plan: Plan) -> None:
    """Take the tables of an SQLite file, which is opened for reading only.

    Raises ConfigurationError if it is not a database of One API.
    """
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path}: cannot be opened: {error}.") from error
    try:
        database.row_factory = sqlite3.Row
        query = "select name from sqlite_master where type = 'table'"
        names = [row[0] for row in database.execute(query)]
        for name in names:
            if name in TABLES:
                rows = database.execute(f'select * from "{name}"')  # noqa: S608 (a known name)
                add_table(plan, name, [dict(row) for row in rows])
            elif name in _IGNORED:
                plan.leave(name, _IGNORED[name])
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}.") from error
    finally:
        database.close()
    _finish(plan, str(path))


def plan_json_tables(found: object, plan: Plan) -> None:
    """Take exported JSON: an object with lists by table, or the rows of one table."""
    tables: Mapping[str, Any]
    if isinstance(found, list):
        tables = {table_of(found[0] if found else {}): found}
    elif isinstance(found, dict) and isinstance(found.get("data"), list):
        rows = found["data"]
        tables = {table_of(rows[0] if rows else {}): rows}
    else:
        tables = found if isinstance(found, dict) else {}
    for name, rows in tables.items():
        if name in TABLES and isinstance(rows, list):
            add_table(plan, name, rows)
        elif name in _IGNORED:
            plan.leave(name, _IGNORED[name])
    _finish(plan, "the JSON file")


def plan_csv_table(text: str, plan: Plan, name: str) -> None:
    """Take one table exported as CSV with a head. `name` is the file's, without its end."""
    rows = list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"))))
    table = name if name in TABLES else table_of(rows[0] if rows else {})
    if table not in TABLES:
        raise ConfigurationError("The columns of the CSV file are those of no table of One API.")
    add_table(plan, table, [{k: _from_csv(v) for k, v in row.items() if k} for row in rows])
    _finish(plan, "the CSV file")


def add_table(plan: Plan, name: str, rows: list[Any]) -> None:
    """Add the rows of a table; those that are not objects are rejected."""
    known = plan.tables.setdefault(name, [])
    for index, row in enumerate(rows):
        place = f"{name}[{index}]"
        if not isinstance(row, dict):
            plan.reject(place, "must be an object")
            continue
        label = row.get("id") if name != "options" else row.get("key")
        known.append((f"{name} {label}" if label is not None else place, row))


def table_of(row: object) -> str:
    """Return the table that a row is of; empty if that is unknown."""
    columns = set(row) if isinstance(row, dict) else set()
    return next((name for name, marks in _MARKS.items() if marks <= columns), "")


def _from_csv(text: object) -> Any:
    """Return a number, a boolean or a text."""
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def _finish(plan: Plan, where: str) -> None:
    if not any(plan.tables.values()):
        raise ConfigurationError(f"{where} has no tables of One API.")
    plan.set("compat", "oneapi", "/")
