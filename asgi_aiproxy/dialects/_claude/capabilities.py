"""The capabilities of each Claude model: one table, by family and version.

A model has the row of its family with the highest version that is not above its own. A name without
a version (`claude-opus-latest`) gets the newest row of its family. A name without a family (a
deployment, a future model) gets the newest row of all: parameters that a new model rejects are
optional for older ones, and everything left out is reported.

Sources, all below platform.claude.com/docs/en/ and read on 2026-11-30 unless the row says else:
build-with-claude/thinking (modes, forced tools, sampling, output limits), build-with-claude/effort,
build-with-claude/mid-conversation-system-messages, build-with-claude/preserved-thinking,
build-with-claude/structured-outputs, models/*/whats-new-*, models/*/migration-guide.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from asgi_aiproxy.messages import FrozenStruct

Mode = Literal["none", "budget", "either", "adaptive"]
Off = Literal["", "disabled", "between_tools"]
Version = tuple[int, int]


class Model(FrozenStruct, frozen=True, kw_only=True):
    """One row.

    `thinking`: the supported values of `thinking` (`either`: a budget or adaptive). `unasked`: the
    model thinks by default. `off`: the `thinking.type` that disables it, empty if nothing does.
    `efforts`: levels of `output_config.effort`, lowest first. `forced`: whether `tool_choice` any
    and tool are supported. `sampling`: how many of temperature and top_p may be set together.
    `system`: system messages within the conversation. `structured`: `output_config.format` and
    strict tools. `limit`: maximum output tokens. `preserved`: a thinking block that is sent back is
    only valid after exactly the same messages. `images`, `pdf`: supported input. `source`: the page
    of the row, and when it was read, if not on the day above.
    """

    family: str
    since: Version
    thinking: Mode = "none"
    unasked: bool = False
    off: Off = "disabled"
    efforts: tuple[str, ...] = ()
    forced: bool = True
    sampling: Literal[0, 1, 2] = 2
    system: bool = False
    structured: bool = False
    limit: int = 4_096
    preserved: bool = False
    images: bool = True
    pdf: bool = True
    source: str

    @property
    def default_limit(self) -> int:
        """The `max_tokens` to send if the caller gives none: Anthropic requires one."""
        return min(self.limit, 32_000)

    @property
    def hides_thoughts(self) -> bool:
        """Whether thinking is returned without its text by default (from 4.7 on)."""
        return self.thinking == "adaptive"


_BASIC_EFFORTS = ("low", "medium", "high")
_EFFORTS_WITHOUT_XHIGH = (*_BASIC_EFFORTS, "max")
_ALL_EFFORTS = (*_BASIC_EFFORTS, "xhigh", "max")


def _adaptive(family: str, since: Version, source: str, **other: object) -> Model:
    """A row of version 4.7 or later, with what these have in common."""
    common = {"thinking": "adaptive", "efforts": _ALL_EFFORTS, "sampling": 0, "structured": True}
    members = {**common, "limit": 128_000, **other}
    return Model(family=family, since=since, source=source, **members)  # type: ignore[arg-type]


_NEWEST = {"unasked": True, "off": "", "forced": False, "system": True, "preserved": True}

TABLE: tuple[Model, ...] = (
    # Fable and Mythos
    _adaptive("fable", (5, 1), "models/fable-5-1/whats-new-fable-5-1, 2026-09-28", **_NEWEST),
    _adaptive("fable", (5, 0), "build-with-claude/thinking", **{**_NEWEST, "preserved": False}),
    _adaptive("mythos", (5, 1), "models/fable-5-1/whats-new-fable-5-1, 2026-09-28", **_NEWEST),
    _adaptive("mythos", (5, 0), "build-with-claude/thinking", **{**_NEWEST, "preserved": False}),
    _adaptive(
        "mythos-preview",
        (0, 0),
        "build-with-claude/effort, and AWS: bedrock/claude-messages-adaptive-thinking",
        unasked=True,
        off="",
        efforts=_EFFORTS_WITHOUT_XHIGH,
    ),
    # Opus
    _adaptive("opus", (5, 5), "models/opus-5-5/whats-new-opus-5-5, 2026-09-22", **_NEWEST),
    _adaptive("opus", (5, 0), "build-with-claude/thinking", unasked=True, system=True),
    _adaptive("opus", (4, 8), "about-claude/models/whats-new-claude-4-8, 2026-05-28", system=True),
    _adaptive("opus", (4, 7), "build-with-claude/thinking"),
    Model(
        family="opus",
        since=(4, 6),
        thinking="either",
        efforts=_EFFORTS_WITHOUT_XHIGH,
        sampling=1,
        structured=True,
        limit=128_000,
        source="build-with-claude/effort",
    ),
    Model(
        family="opus",
        since=(4, 5),
        thinking="budget",
        efforts=_BASIC_EFFORTS,
        sampling=1,
        structured=True,
        limit=64_000,
        source="build-with-claude/effort",
    ),
    Model(
        family="opus",
        since=(4, 1),
        thinking="budget",
        sampling=1,
        structured=True,
        limit=32_000,
        source="build-with-claude/structured-outputs, 2025-11-14",
    ),
    Model(
        family="opus",
        since=(4, 0),
        thinking="budget",
        limit=32_000,
        source="about-claude/models/overview, 2025-08-05",
    ),
    Model(
        family="opus", since=(3, 0), pdf=False, source="about-claude/models/overview, 2024-03-04"
    ),
    # Sonnet
    _adaptive(
        "sonnet",
        (5, 5),
        "models/sonnet-5-5/whats-new-sonnet-5-5, 2026-09-30",
        **{**_NEWEST, "off": "between_tools"},
    ),
    _adaptive("sonnet", (5, 0), "models/sonnet-5/migration-guide", unasked=True),
    Model(
        family="sonnet",
        since=(4, 6),
        thinking="either",
        efforts=_EFFORTS_WITHOUT_XHIGH,
        sampling=1,
        structured=True,
        limit=128_000,
        source="build-with-claude/effort",
    ),
    Model(
        family="sonnet",
        since=(4, 5),
        thinking="budget",
        sampling=1,
        structured=True,
        limit=64_000,
        source="build-with-claude/structured-outputs, 2025-11-14",
    ),
    Model(
        family="sonnet",
        since=(3, 7),
        thinking="budget",
        limit=64_000,
        source="about-claude/models/overview, 2025-08-05",
    ),
    Model(
        family="sonnet",
        since=(3, 5),
        limit=8_192,
        source="about-claude/models/overview, 2025-08-05",
    ),
    Model(
        family="sonnet", since=(3, 0), pdf=False, source="about-claude/models/overview, 2024-03-04"
    ),
    # Haiku
    _adaptive(
        "haiku",
        (5, 5),
        "models/haiku-5-5/migration-guide, 2026-10-07",
        unasked=True,
        system=True,
        preserved=True,
    ),
    Model(
        family="haiku",
        since=(4, 5),
        thinking="budget",
        sampling=1,
        structured=True,
        limit=64_000,
        source="build-with-claude/structured-outputs, 2025-11-14",
    ),
    Model(
        family="haiku", since=(3, 5), limit=8_192, source="about-claude/models/overview, 2025-08-05"
    ),
    Model(
        family="haiku", since=(3, 0), pdf=False, source="about-claude/models/overview, 2024-03-13"
    ),
    # Models before Claude 3
    Model(
        family="",
        since=(0, 0),
        images=False,
        pdf=False,
        source="about-claude/models/overview, 2024-03-04",
    ),
)
NEWEST = TABLE[0]

_FAMILY = re.compile(r"mythos-preview|fable|mythos|opus|sonnet|haiku")
_VERSION = re.compile(
    r"(?:claude-(?:[a-z]+-)?|(?:fable|mythos|opus|sonnet|haiku)-)(\d+)(?:[-.](\d{1,2}))?(?!\d)"
)


def version(model: str) -> Version | None:
    """The version in a model's name; None if there is none."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


@lru_cache(maxsize=1024)
def of(name: str) -> Model:
    """The row for the name of a model, in the spelling of any platform."""
    name = name.lower()
    named, own = _FAMILY.search(name), version(name)
    family = named[0] if named else ""
    if not family and (own is None or own >= (3, 0)):
        return NEWEST
    rows = [row for row in TABLE if row.family == family]  # the newest first
    if own is None:
        return rows[0]
    return next((row for row in rows if row.since <= own), rows[-1])
