"""The settings in effect, as operators see them: without secrets, with their origin."""

from __future__ import annotations

from typing import Literal

import msgspec

Origin = Literal["environment", "file", "default"]


class SettingOut(msgspec.Struct, frozen=True):
    """A setting: its `name` as in the file, its `value` as text with secrets masked, its origin."""

    name: str
    value: str
    origin: Origin
