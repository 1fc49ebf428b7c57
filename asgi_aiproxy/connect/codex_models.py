"""A list of models for Codex, in which the gateway's models have their metadata.

Codex knows OpenAI's models; for others it warns, offers fewer tools and takes a general context
size. Its setting `model_catalog_json` names a file with other metadata. The format of that file is
internal to Codex and changes with its versions. So each entry is a copy of one of the installed
version (`codex debug models`), in which only what names the model is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.errors import ConfigurationError

# What marks the entries of models that take their tools in OpenAI's own ways only.
_SPECIAL = ("tool_mode", "use_responses_lite")


def codex_catalog(installed: bytes, names: Sequence[str], *, context_window: int) -> dict[str, Any]:
    """The list of models `names`, from the JSON that the installed Codex prints.

    Models that Codex knows keep their entries; others get `context_window` in tokens. Raises
    ConfigurationError if the JSON is not understood.
    """
    entries = _entries(installed)
    known = {entry["slug"]: entry for entry in entries}
    plain = [entry for entry in entries if not any(map(entry.get, _SPECIAL))]
    template = (plain or entries)[0]
    made = [
        known.get(name) or _entry(template, name, at, context_window)
        for at, name in enumerate(names, 1)
    ]
    return {"models": made}


def _entries(installed: bytes) -> list[dict[str, Any]]:
    try:
        found = _json.loads(installed)
    except _json.NotJSONError:
        found = None
    entries = found.get("models") if isinstance(found, dict) else None
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(each, dict) and isinstance(each.get("slug"), str) for each in entries)
    ):
        raise ConfigurationError(
            "The list of models of the installed Codex ('codex debug models') is not understood: "
            "leave out --catalog."
        )
    return entries


def _entry(
    template: Mapping[str, Any], name: str, priority: int, context_window: int
) -> dict[str, Any]:
    own = {
        "slug": name,
        "display_name": name,
        "description": "A model of the AI gateway.",
        "context_window": context_window,
        "max_context_window": context_window,
        "priority": priority,
        "visibility": "list",
        # Offers of OpenAI for the model that was copied.
        "upgrade": None,
        "availability_nux": None,
        "service_tiers": [],
        "additional_speed_tiers": [],
    }
    return {**template, **{key: value for key, value in own.items() if key in template}}
