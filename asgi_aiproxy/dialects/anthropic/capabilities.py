"""What each Claude model takes: one table, by family and version.

A model takes the row of its family with the highest version that is not above its own. A name
without a version (`claude-opus-latest`) means the newest of its family, a name that tells no family
(a deployment's own, a model of tomorrow) the newest of all: what a new model refuses, an old one
can do without, and everything left out is reported.

Sources, all below platform.claude.com/docs/en/ and read on 2026-11-30 unless the row says else:
build-with-claude/thinking (modes, forced tools, sampling, output limits), build-with-claude/effort,
build-with-claude/mid-conversation-system-messages, build-with-claude/preserved-thinking,
build-with-claude/structured-outputs, models/*/whats-new-*, models/*/migration-guide.
"""

from __future__ import annotations

import re
from typing import Literal

from asgi_aiproxy.messages import FrozenStruct

Mode = Literal["none", "budget", "either", "adaptive"]
Off = Literal["", "disabled", "between_tools"]
Version = tuple[int, int]


class Model(FrozenStruct, frozen=True, kw_only=True):
    """One row.

    `thinking`: which ways of asking for it are taken (`either` is a budget or adaptive).
    `unasked`: it thinks where nothing is said. `off`: the `thinking.type` that stops it, empty if
    nothing does. `efforts`: levels of `output_config.effort`, the least first. `forced`:
    `tool_choice` any and tool. `sampling`: how many of temperature and top_p are taken at once.
    `system`: system messages within the conversation. `structured`: `output_config.format` and
    strict tools. `limit`: the most output tokens. `preserved`: a thinking block that is sent back
    binds everything before it. `images`, `pdf`: what it sees. `source`: where the row is from, and
    when that was read, if not on the day above.
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
        """Anthropic wants a limit; this is the one where the caller has none."""
        return min(self.limit, 32_000)

    @property
    def hides_thoughts(self) -> bool:
        """From 4.7 on thoughts come without their text unless it is asked for."""
        return self.thinking == "adaptive"


_LOW_TO_HIGH = ("low", "medium", "high")
_NO_XHIGH = (*_LOW_TO_HIGH, "max")
_ALL = (*_LOW_TO_HIGH, "xhigh", "max")


def _today(family: str, since: Version, source: str, **other: object) -> Model:
    """A model of 4.7 or later: what they have in common."""
    common = {"thinking": "adaptive", "efforts": _ALL, "sampling": 0, "structured": True}
    members = {**common, "limit": 128_000, **other}
    return Model(family=family, since=since, source=source, **members)  # type: ignore[arg-type]


_NEWEST = {"unasked": True, "off": "", "forced": False, "system": True, "preserved": True}

TABLE: tuple[Model, ...] = (
    # Fable and Mythos
    _today("fable", (5, 1), "models/fable-5-1/whats-new-fable-5-1, 2026-09-28", **_NEWEST),
    _today("fable", (5, 0), "build-with-claude/thinking", **{**_NEWEST, "preserved": False}),
    _today("mythos", (5, 1), "models/fable-5-1/whats-new-fable-5-1, 2026-09-28", **_NEWEST),
    _today("mythos", (5, 0), "build-with-claude/thinking", **{**_NEWEST, "preserved": False}),
    _today(
        "mythos-preview",
        (0, 0),
        "build-with-claude/effort, and AWS: bedrock/claude-messages-adaptive-thinking",
        unasked=True,
        off="",
        efforts=_NO_XHIGH,
    ),
    # Opus
    _today("opus", (5, 5), "models/opus-5-5/whats-new-opus-5-5, 2026-09-22", **_NEWEST),
    _today("opus", (5, 0), "build-with-claude/thinking", unasked=True, system=True),
    _today("opus", (4, 8), "about-claude/models/whats-new-claude-4-8, 2026-05-28", system=True),
    _today("opus", (4, 7), "build-with-claude/thinking"),
    Model(
        family="opus",
        since=(4, 6),
        thinking="either",
        efforts=_NO_XHIGH,
        sampling=1,
        structured=True,
        limit=128_000,
        source="build-with-claude/effort",
    ),
    Model(
        family="opus",
        since=(4, 5),
        thinking="budget",
        efforts=_LOW_TO_HIGH,
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
    _today(
        "sonnet",
        (5, 5),
        "models/sonnet-5-5/whats-new-sonnet-5-5, 2026-09-30",
        **{**_NEWEST, "off": "between_tools"},
    ),
    _today("sonnet", (5, 0), "models/sonnet-5/migration-guide", unasked=True),
    Model(
        family="sonnet",
        since=(4, 6),
        thinking="either",
        efforts=_NO_XHIGH,
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
    _today(
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
    # Before there were families
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
    """The generation that a name tells, if it does."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def of(name: str) -> Model:
    """The row for a model's name, as any platform spells it."""
    name = name.lower()
    named, own = _FAMILY.search(name), version(name)
    family = named[0] if named else ""
    if not family and (own is None or own >= (3, 0)):
        return NEWEST
    rows = [row for row in TABLE if row.family == family]  # the newest first
    if own is None:
        return rows[0]
    return next((row for row in rows if row.since <= own), rows[-1])
