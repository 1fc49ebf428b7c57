"""Find out which program's file this is, and read it into a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.importer import yaml_files
from asgi_aiproxy.importer.adapter_yaml import plan_adapter
from asgi_aiproxy.importer.lists import LISTS, plan_access_tokens
from asgi_aiproxy.importer.oneapi_tables import plan_csv_table, plan_json_tables, plan_sqlite
from asgi_aiproxy.importer.plan import Plan

FORMATS = ("aiproxy", "adapter", "litellm", "oneapi", "access_tokens", "api_keys", "proxies")
_SQLITE = b"SQLite format 3\x00"
_YAML = {
    "aiproxy": yaml_files.plan_aiproxy,
    "adapter": plan_adapter,
    "litellm": yaml_files.plan_litellm,
}


def read_source(path: Path, format: str = "") -> Plan:
    """Read a file of an earlier gateway into a plan.

    Arguments:

    - `path`: the file.
    - `format`: one of `FORMATS`, or empty to find out.

    Raises ConfigurationError if the file cannot be read or is not recognized.
    """
    plan = Plan()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}.") from error
    if data.startswith(_SQLITE):
        plan_sqlite(path, plan)
        return plan
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text.") from error
    _read_text(path, text, format, plan)
    return plan


def _read_text(path: Path, text: str, format: str, plan: Plan) -> None:
    end = path.suffix.lower()
    if format in LISTS or (not format and path.stem in LISTS and end == ".txt"):
        LISTS[format or path.stem](text, plan)
    elif end == ".csv":
        plan_csv_table(text, plan, path.stem)
    elif end == ".json" or format == "access_tokens":
        _read_json(_parsed(path, text), format, plan)
    elif end in (".yaml", ".yml") or format in _YAML:
        found = yaml_files.read_yaml(text)
        kind = format or yaml_files.kind_of_yaml(found)
        if kind not in _YAML:
            raise _unknown(path)
        _YAML[kind](found, plan)
    else:
        raise _unknown(path)


def _read_json(found: Any, format: str, plan: Plan) -> None:
    is_tokens = isinstance(found, list) and any(
        isinstance(item, str) or (isinstance(item, dict) and "token" in item) for item in found
    )
    if format == "access_tokens" or (format != "oneapi" and is_tokens):
        if not isinstance(found, list):
            raise ConfigurationError("The file must be a JSON array of tokens.")
        plan_access_tokens(found, plan)
    else:
        plan_json_tables(found, plan)


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: is not valid JSON: {error}.") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: is nested too deeply.") from None


def _unknown(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: is not recognized. Name its format with --format: {', '.join(FORMATS)}."
    )
