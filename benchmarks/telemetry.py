"""What metrics, logs and traces cost, compared with the same gateway without them.

The gateway without telemetry has a usage record, too, and drops it. Spans go to an exporter that
drops them; sending them costs more, in a thread of the same process.
"""

from __future__ import annotations

from benchmarks import wire
from benchmarks.report import Result
from benchmarks.rounds import Bench, Case
from benchmarks.rows import CONNECTIONS, ISSUE_12, share
from benchmarks.servers import uvicorn

MUST = 95.0  # percent of the calls without telemetry
KINDS = {
    "metrics": "metrics",
    "logs": "logs as JSON lines",
    "metrics,logs": "metrics and logs",
    "traces=0": "traces, none sampled",
    "traces=0.1": "traces, 10 % sampled",
    "traces=1": "traces, all sampled",
    "metrics,logs,traces=0.1": "all, 10 % of the traces sampled",
}
LIMITED = frozenset({"metrics,logs", "metrics,logs,traces=0.1"})


def telemetry(bench: Bench) -> list[Result]:
    body = wire.body("whole")
    with bench.servers() as servers:
        plain = Case("chat whole", servers.start(uvicorn, "chat"), wire.CHAT, body)
        cases = {
            kind: Case(
                f"chat whole, {name}",
                servers.start(uvicorn, "observed", env={"BENCH_TELEMETRY": kind}),
                wire.CHAT,
                body,
            )
            for kind, name in KINDS.items()
        }
        bench.closed([plain, *cases.values()], connections=CONNECTIONS)
    return [
        share(
            f"{ISSUE_12}{case.name}, beside none",
            plain,
            case,
            must=MUST if kind in LIMITED else 0,
        )
        for kind, case in cases.items()
    ]
