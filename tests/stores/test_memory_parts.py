"""The parts of MemoryStore behave as plain lists and dictionaries would."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings, strategies as st

from asgi_aiproxy.stores.memory_log import MemoryLog
from asgi_aiproxy.stores.sorted_keys import SortedKeys

KEYS = st.sampled_from([f"k{number}" for number in range(12)])
APPEND = st.tuples(st.just("append"), st.none() | st.integers(1, 6))
TRIM = st.tuples(st.just("trim"), st.integers(-1, 40))
READ = st.tuples(st.just("read"), st.none() | st.integers(0, 45), st.integers(1, 8), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.lists(APPEND | TRIM | READ, max_size=60), st.integers(0, 5))
def test_a_log_reads_what_was_appended_and_not_removed(steps: list[Any], before: int) -> None:
    held = [(number + 5, b"%d" % number) for number in range(before)]
    log = MemoryLog(held)
    last = held[-1][0] if held else 0
    for kind, *given_ in steps:
        if kind == "append":
            (maxlen,) = given_
            last += 1
            log.append(b"%d" % last, maxlen)
            held.append((last, b"%d" % last))
            held = held if maxlen is None else held[-maxlen:]
        elif kind == "trim":
            (until,) = given_
            log.trim(until)
            held = [each for each in held if each[0] > until]
        else:
            after, limit, newest = given_
            found = held[::-1] if newest else held
            if after is not None:
                found = [n for n in found if (n[0] < after if newest else n[0] > after)]
            expected = [(str(number), record) for number, record in found[:limit]]
            text = "" if after is None else str(after)
            assert log.read(text, limit, newest=newest) == expected
        assert log.last(3) == held[-3:]
        assert log.last(1000) == held


CHANGES = st.dictionaries(KEYS, st.sampled_from([b"1", None]), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(CHANGES, max_size=20), KEYS | st.just(""), st.integers(1, 6))
def test_pages_of_a_table_follow_its_changes(
    changes: list[dict[str, bytes | None]], after: str, limit: int
) -> None:
    keys = SortedKeys()
    rows: dict[str, bytes] = {}
    for change in changes:
        keys.follow("table", rows, change)
        for key, value in change.items():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        expected = sorted(key for key in rows if key > after)[:limit]
        assert keys.page("table", rows, after, limit) == expected
