"""How much more a request costs by what it requests besides its model.

Vendors process requests faster, or in one region only, at a multiple of their list price, and the
caller decides it by a member of the request. Budgets would be overspent if only the model counted.

- OpenAI, `service_tier` "priority", which is also called "fast": twice the price, 2.5 times for
  GPT-5.5. https://openai.com/api-fast-mode/ (2026-11)
- Anthropic, `speed` "fast": six times the price of Opus 4.6 and 4.7, twice that of later models;
  `inference_geo` "us": 1.1 times. https://docs.claude.com/en/docs/about-claude/pricing (2026-11)

Cheaper ways (`flex`, batches) are charged at the full price, as an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL_PRICE = 1_000_000  # millionths

# Of a member and its value: parts of model names with their factors; "" is for all other models.
_FACTORS: dict[tuple[str, str], dict[str, int]] = {
    ("service_tier", "priority"): {"gpt-5.5": 2_500_000, "": 2_000_000},
    ("service_tier", "fast"): {"gpt-5.5": 2_500_000, "": 2_000_000},
    ("speed", "fast"): {"opus-4-6": 6_000_000, "opus-4-7": 6_000_000, "": 2_000_000},
    ("inference_geo", "us"): {"": 1_100_000},
}
SURCHARGED = frozenset(name for name, _ in _FACTORS)  # the members that decide


def price_factor(model: str, members: Mapping[str, Any]) -> int:
    """The factor of the price of a request to `model`, in millionths.

    `members` are the values of those of `SURCHARGED` that are sent.
    """
    factor = FULL_PRICE
    for name, value in members.items():
        if isinstance(value, str) and (of := _FACTORS.get((name, value.strip().lower()))):
            by_model = next(times for part, times in of.items() if part in model)
            factor = factor * by_model // FULL_PRICE
    return factor
