"""The capabilities of each of Google's models: one table, by patterns of their names.

The first row whose pattern is found in a name applies. A name without a version
(`gemini-flash-latest`, a tuned or future model) gets the newest row: parameters that a new model
rejects are optional for older ones, and everything left out is reported.

Sources, read on 2026-11-30: ai.google.dev/gemini-api/docs/thinking (levels, budgets, models that
cannot think), .../docs/gemini-3 (what is new), .../docs/structured-output and
.../docs/function-calling (together from Gemini 3 on), .../docs/thought-signatures;
docs.cloud.google.com/gemini-enterprise-agent-platform/models/thinking (levels by model) and
.../models/gemini/3-5-flash-lite (sampling and penalties).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from asgi_aiproxy.messages import FrozenStruct

Level = Literal["minimal", "low", "medium", "high"]


class Model(FrozenStruct, frozen=True, kw_only=True):
    """One row.

    `levels`: values of `thinkingLevel`, lowest first; thinking cannot be disabled then. `budget`:
    minimum and maximum of `thinkingBudget`. Without either it cannot think. `off`: a budget of 0
    disables thinking. `both`: tools and an output schema in one request. `signatures`: function
    calls must be sent back with their signatures.
    `sampling`: temperature, top_p and top_k have an effect.
    `penalties`: of presence and frequency. `system`: a system instruction.
    """

    name: str
    levels: tuple[Level, ...] = ()
    budget: tuple[int, int] | None = None
    off: bool = False
    both: bool = True
    signatures: bool = True
    sampling: bool = True
    penalties: bool = True
    system: bool = True

    @property
    def thinks(self) -> bool:
        """Whether the model supports thinking."""
        return bool(self.levels) or self.budget is not None


_ALL_LEVELS: tuple[Level, ...] = ("minimal", "low", "medium", "high")

ROWS = (
    Model(name=r"gemma-[123]", system=False, both=False, signatures=False),
    Model(name=r"gemma-", signatures=False),
    Model(name=r"gemini-(1|2\.0)", both=False, signatures=False),
    Model(name=r"gemini-2\.5-.*(image|tts|audio)", both=False, signatures=False),
    Model(name=r"gemini-2\.5-pro", budget=(128, 32_768), both=False, signatures=False),
    Model(
        name=r"gemini-2\.5-flash-lite", budget=(512, 24_576), off=True, both=False, signatures=False
    ),
    Model(name=r"gemini-2", budget=(1, 24_576), off=True, both=False, signatures=False),
    Model(name=r"gemini-3.*(image|tts|audio)"),
    Model(name=r"gemini-3-pro", levels=("low", "high"), budget=(128, 32_768)),
    Model(name=r"gemini-3\.1-pro", levels=("low", "medium", "high"), budget=(128, 32_768)),
    Model(name=r"gemini-3(\.1)?-flash", levels=_ALL_LEVELS, budget=(1, 24_576)),
    Model(name=r"gemini-3\.5-flash-lite", levels=_ALL_LEVELS, sampling=False, penalties=False),
    Model(name=r"gemini-3\.5-flash", levels=_ALL_LEVELS),
    Model(name=r"gemini-3\.5-", levels=("low", "medium", "high")),
    Model(name=r"gemini-3\.6-flash", levels=_ALL_LEVELS, sampling=False, penalties=False),
    # Gemini 3.7, 3.8, and those to come.
    Model(name=r"gemini-", levels=("low", "medium", "high"), sampling=False, penalties=False),
    Model(name=r"", levels=("low", "medium", "high")),
)


@lru_cache(maxsize=1024)
def of(name: str) -> Model:
    """The row of a model."""
    return next(row for row in ROWS if re.search(row.name, name))
