"""`python -m benchmarks`: measure the budget of the hot path, and print the ratios."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import machine, report
from benchmarks.bulk import bulk, sockets
from benchmarks.console import ROWS as CONSOLE
from benchmarks.host_protection import host_protection
from benchmarks.machine import Cores, Neighbours
from benchmarks.passthrough import passthrough
from benchmarks.report import Progress, Result
from benchmarks.rounds import Bench, Options
from benchmarks.rows import LEGEND, ROWS as OURS
from benchmarks.telemetry import telemetry
from benchmarks.traffic import Tools, Upstream

ROWS = {
    **OURS,
    "passthrough": passthrough,
    "passthrough bulk": bulk,
    "passthrough sockets": sockets,
    "host protection": host_protection,
    **CONSOLE,
    "telemetry": telemetry,
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended
    wanted = [name for name in ROWS if re.search(arguments.only, name)]
    if not wanted:
        print(f"No row matches. There are: {', '.join(ROWS)}.", file=sys.stderr)
        return 2
    options = Options(
        seconds=arguments.seconds or (0.4 if arguments.quick else 1.0),
        rounds=2 if arguments.quick else 5,
        few=1 if arguments.quick else 3,
    )
    cores = Cores.choose()
    if not cores.apart:
        print("One core only: the load competes with the gateway.", file=sys.stderr)
    neighbours = Neighbours(cores.gateway)
    results: list[Result] = []
    broken: list[str] = []  # rows
    with tempfile.TemporaryDirectory(prefix="asgi_aiproxy-bench-") as folder:
        tools = Tools(Path(folder), compiled=not arguments.python_load)
        upstream = Upstream(tools, cores.load)
        os.sched_setaffinity(0, {cores.load})
        progress = Progress()
        bench = Bench(options, cores, tools, upstream, neighbours, progress, arguments.litellm)
        try:
            for name in wanted:
                try:
                    results += ROWS[name](bench)
                except Exception:
                    broken.append(name)
                    traceback.print_exc()
        finally:
            upstream.stop()
    about = machine.describe()
    about["load"] = tools.how
    about["stolen_percent"] = round(mean(neighbours.stolen or [0.0]), 2)
    about["others_percent"] = round(mean(neighbours.others or [0.0]), 2)
    print(head(about, options))
    print(report.table(results))
    print(f"\n{LEGEND}\n")
    print(report.costs(results))
    if arguments.json:
        rows = [result.as_json() for result in results]
        report_data = {"machine": about, "rows": rows, "broken": broken}
        Path(arguments.json).write_text(json.dumps(report_data, indent=1) + "\n")
    if broken:
        print(f"Could not be measured: {', '.join(broken)}.", file=sys.stderr)
        return 1
    missed = [result.row for result in results if result.passes(result.must) is False]
    return 1 if arguments.check and missed else 0


def head(about: dict[str, Any], options: Options) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, "
        f"revision {about['revision'] or 'unknown'}\n{versions}\n"
        f"load and mock in {about['load']}; {options.rounds} rounds of {options.seconds:g} s; "
        f"of the gateway's core, other processes took {about['others_percent']} %, "
        f"other machines {about['stolen_percent']} %\n"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--quick", action="store_true", help="some two minutes, and noisier")
    made.add_argument("--only", metavar="REGEX", default="", help="only rows that match")
    made.add_argument("--seconds", type=float, metavar="S", help="length of a window (1)")
    made.add_argument("--json", metavar="FILE", help="write everything measured there")
    made.add_argument("--check", action="store_true", help="exit with 1 if a 'must' is missed")
    made.add_argument("--litellm", metavar="VENV", default="", help="a venv with litellm[proxy]")
    made.add_argument(
        "--python-load", action="store_true", help="mock and load in Python even if C compiles"
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
