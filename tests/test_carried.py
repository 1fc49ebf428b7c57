"""No member of a chat request is lost silently, and docs/errors.md lists what happens to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.stream_fixtures import UPDATE
from tests.support.translation_table import CHAT, ROWS, TARGETS, Members, fate, table, write

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
BEGIN, END = "<!-- carried: written by tests/test_carried.py -->\n", "\n<!-- /carried -->"

# Asking a model not to think that does not do so anyway.
NEEDLESS = {"`reasoning_effort`: none"}


def test_the_page_lists_what_happens_to_each_member() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    found, _, after = rest.partition(END)
    assert after, "docs/errors.md has no place for the table"
    made = table()
    if UPDATE:
        PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}", encoding="utf-8")
    else:
        assert found == made, "run this test with AIPROXY_UPDATE_GOLDEN=1 and read the diff"


@pytest.mark.parametrize(("target", "provider", "model"), TARGETS, ids=lambda v: str(v)[:30])
@pytest.mark.parametrize(("label", "members", "anyway"), ROWS, ids=lambda v: str(v)[:40])
def test_every_member_is_carried_or_reported_or_refused(
    target: str, provider: Any, model: str, label: str, members: Members, anyway: Members
) -> None:
    silent = fate(provider, model, members, anyway) == "left out"
    assert not silent or label in NEEDLESS


@pytest.mark.parametrize(("target", "provider", "model"), TARGETS, ids=lambda v: str(v)[:30])
def test_a_plain_request_is_translated_completely(target: str, provider: Any, model: str) -> None:
    draft = write(provider, model, {})
    assert draft.ignored == ()
    assert provider.native_operations >= {CHAT.name} or draft.body
