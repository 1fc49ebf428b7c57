"""What each of Google's models takes: one table, read off their names.

The first row whose pattern is found in a name counts. A name that tells no version
(`gemini-flash-latest`, a tuned model's, one of tomorrow) means the newest: what a new model refuses
an old one can do without, and everything left out is reported.

Sources, read on 2026-11-30: ai.google.dev/gemini-api/docs/thinking (levels, budgets, models that
cannot think), .../docs/gemini-3 (what is new), .../docs/structured-output and
.../docs/function-calling (together from Gemini 3 on), .../docs/thought-signatures;
docs.cloud.google.com/gemini-enterprise-agent-platform/models/thinking (levels by model) and
.../models/gemini/3-5-flash-lite (sampling and penalties).
"""

from __future__ import annotations

import re
from typing import Literal

from asgi_aiproxy.messages import FrozenStruct

Level = Literal["minimal", "low", "medium", "high"]


class Model(FrozenStruct, frozen=True, kw_only=True):
    """One row.

    `levels`: what `thinkingLevel` takes, the least first; thinking cannot be turned off then.
    `budget`: the least and the most tokens of `thinkingBudget`. Without either it cannot think.
    `off`: a budget of 0 turns thinking off. `both`: tools beside an output schema. `signatures`:
    function calls must come back signed. `sampling`: temperature, top_p and top_k have an effect.
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
        """Whether it can be asked to think."""
        return bool(self.levels) or self.budget is not None


_ALL: tuple[Level, ...] = ("minimal", "low", "medium", "high")

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
    Model(name=r"gemini-3(\.1)?-flash", levels=_ALL, budget=(1, 24_576)),
    Model(name=r"gemini-3\.5-flash-lite", levels=_ALL, sampling=False, penalties=False),
    Model(name=r"gemini-3\.5-flash", levels=_ALL),
    Model(name=r"gemini-3\.5-", levels=("low", "medium", "high")),
    Model(name=r"gemini-3\.6-flash", levels=_ALL, sampling=False, penalties=False),
    # Gemini 3.7, 3.8, and those to come.
    Model(name=r"gemini-", levels=("low", "medium", "high"), sampling=False, penalties=False),
    Model(name=r"", levels=("low", "medium", "high")),
)


def of(name: str) -> Model:
    """The row of a model."""
    return next(row for row in ROWS if re.search(row.name, name))
