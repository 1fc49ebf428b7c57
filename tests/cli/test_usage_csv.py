"""`usage --csv`."""

from __future__ import annotations

import csv
import io

from tests.cli.conftest import Run


def test_sums_and_records_are_printed_as_csv(run: Run) -> None:
    for arguments, column in (
        (("--by", "tag"), "not_charged_usd"),
        (("--last", "all"), "requested_model"),
        (("--last", "5", "--tag", "team=a"), "requested_model"),
    ):
        ran = run("usage", "--csv", *arguments)
        assert ran.status == 0, ran.err
        (heads,) = csv.reader(io.StringIO(ran.out))
        assert column in heads
    assert run("usage", "--last", "all").status == 2
