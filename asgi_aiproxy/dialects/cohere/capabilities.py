"""What Cohere's models support. Unknown models have the capabilities of the newest.

https://docs.cohere.com/docs/models and https://docs.cohere.com/docs/reasoning
"""

from __future__ import annotations

import msgspec

# Names begin with these. `c4ai-aya` and `command-r` are earlier generations.
_WITHOUT_THINKING = ("command-r", "command-light", "command-nightly", "c4ai-", "tiny-aya")
_WITHOUT_THINKING_EXACT = frozenset({"command", "command-a-03-2025"})
_VARIANTS_WITHOUT_THINKING = ("command-a-vision", "command-a-translate")


class Model(msgspec.Struct, frozen=True):
    """`thinking`: the model supports reasoning, and accepts its own reasoning in later requests."""

    thinking: bool


def of(model: str) -> Model:
    """The capabilities of the model with this name."""
    without = (
        model in _WITHOUT_THINKING_EXACT
        or model.startswith(_WITHOUT_THINKING)
        or model.startswith(_VARIANTS_WITHOUT_THINKING)
    )
    return Model(thinking=not without)
