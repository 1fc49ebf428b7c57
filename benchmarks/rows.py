"""The rows of the performance budget, one function each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmarks import rivals, traffic, wire
from benchmarks.machine import ROOT
from benchmarks.report import Result
from benchmarks.rounds import Bench, Case
from benchmarks.servers import Command, Server, granian, hypercorn, plain_uvicorn, uvicorn
from benchmarks.vendors import vendors

CONNECTIONS = 32
EVENTS = 200
RATE = 50
PACED = 400
FOREVER = 1_000_000
PROBE = "paced-25-1000"  # the answer of an endless stream is checked with this one

# The origin of a row's limits. Those of "design" were set for pyreqwest as the transport; over our
# own transport a relay is several times faster, so that the gateway's own work weighs more.
DESIGN, ISSUE, OURS = "design: ", "issue 4: ", "ours: "
ISSUE_10, ISSUE_12 = "issue 10: ", "issue 12: "
LEGEND = """\
design: limits set before the implementation; issue 4: limits for the proxy; ours: rows added later.
Indented: the same in another form, or for comparison."""
PYREQWEST, OWN = ", pyreqwest on both sides", ", our transport on both sides"


def chat_whole(bench: Bench) -> list[Result]:
    """On every server, compared with the same server and an app that calls no upstream."""
    commands = {
        "uvicorn, uvloop, httptools": uvicorn,
        "uvicorn, asyncio, h11": plain_uvicorn,
        "granian": granian,
        "hypercorn": hypercorn,
    }
    body = wire.body("whole")
    with bench.servers() as servers:

        def case(name: str, command: Command, app: str) -> Case:
            return Case(name, servers.start(command, app), wire.CHAT, body)

        pairs = {
            name: (
                case(f"no upstream, {name}", command, "answer"),
                case(f"chat whole, {name}", command, "chat"),
            )
            for name, command in commands.items()
        }
        relay = case("chat relay", uvicorn, "relay")
        pyreqwest = case("chat relay, pyreqwest", uvicorn, "pyreqwest_whole")
        cases = [case for pair in pairs.values() for case in pair]
        bench.closed([*cases, relay, pyreqwest], connections=CONNECTIONS)
    results = [
        share(f"{DESIGN}chat whole, {name}", *pair, must=35, should=45)
        for name, pair in pairs.items()
    ]
    bare = cases[0]
    results[1:1] = [
        share("  a bare relay, our transport", bare, relay),
        share("  a bare relay over pyreqwest", bare, pyreqwest),
    ]
    return results


def chat_stored(bench: Bench) -> list[Result]:
    """Tokens, a ledger and limits in a store: Redis compared with memory."""
    from tests.support import redis_server

    url = redis_server.given_url()
    with ExitStack() as stack:
        if url is None:
            url = stack.enter_context(redis_server.server()).url
        servers = stack.enter_context(bench.servers())
        body = wire.body("whole")
        plain = Case("chat whole", servers.start(uvicorn, "chat"), wire.CHAT, body)
        stores = {"memory": "", "Redis": url}
        cases = [
            Case(
                f"{app}, {name}",
                servers.start(uvicorn, app, env={"BENCH_STORE": at}),
                wire.CHAT,
                body,
            )
            for app in ("kept", "limited")
            for name, at in stores.items()
        ]
        cases += [
            Case(
                f"limited of many, {name}",
                servers.start(uvicorn, "many", env={"BENCH_STORE": at}),
                wire.CHAT,
                body,
            )
            for name, at in stores.items()
        ]
        bench.closed([plain, *cases], connections=CONNECTIONS)
    kept, kept_redis, limited, limited_redis, many, many_redis = cases
    return [
        share(f"{DESIGN}chat, tokens and ledger in Redis, beside memory", kept, kept_redis, 70, 85),
        share("  in memory, beside none", plain, kept),
        share(f"{DESIGN}chat, limits too, in Redis, beside memory", limited, limited_redis, 70, 85),
        share("  in memory, beside none", plain, limited),
        share(f"{OURS}of 100,000 tokens and 10,000 keys, beside few", limited, many, 85),
        share("  the same in Redis", limited_redis, many_redis, 85),
    ]


def stream_verbatim(bench: Bench) -> list[Result]:
    with bench.servers() as servers:
        apps = {
            "relay": "relay",
            "verbatim": "chat",
            "relay, pyreqwest": "pyreqwest",
            "verbatim, pyreqwest": "chat_pyreqwest",
        }
        by_name = {name: servers.start(uvicorn, app) for name, app in apps.items()}

        def case(ask: str, by: str, *, with_usage: bool = False) -> Case:
            """The mock reports usage in both cases: the gateway always requests it."""
            ours = by.startswith("verbatim")
            name = f"{by}, {ask}{', usage requested' if with_usage and ours else ''}"
            return stream(name, by_name[by], wire.CHAT, ask, usage=with_usage or not ours)

        burst, chunks, paced = f"burst-{EVENTS}", f"chunks-{EVENTS}", f"paced-{FOREVER}-{RATE}"
        whole, cut, whole_other, cut_other = (
            (case(ask, f"relay{over}"), case(ask, f"verbatim{over}"))
            for over in ("", ", pyreqwest")
            for ask in (burst, chunks)
        )
        with_usage = case(burst, "verbatim", with_usage=True)
        slow = case(paced, "relay"), case(paced, "verbatim")
        bench.closed([*whole, with_usage, *cut, *whole_other, *cut_other], connections=CONNECTIONS)
        few = bench.options.few
        streams = bench.paced([slow[1], slow[0]], streams=PACED, rate=RATE, rounds=few)
    return [
        share(f"{DESIGN}stream verbatim{PYREQWEST}", *cut_other, must=80, should=90),
        share("  in one HTTP chunk", *whole_other, must=80, should=90),
        share(f"{OURS}stream verbatim{OWN}", *cut, must=80, should=90),
        share("  in one HTTP chunk", *whole, must=80, should=90),
        share("  in one HTTP chunk, usage requested", whole[0], with_usage),
        share(f"  paced, {streams} streams", *slow),
        share("  a bare relay over pyreqwest, beside one over ours", cut[0], cut_other[0]),
    ]


def stream_translated(bench: Bench) -> list[Result]:
    apps = {
        "": ("translating", "claude"),
        ", pyreqwest": ("pyreqwest_translating", "claude_pyreqwest"),
    }
    with bench.servers() as servers:
        pairs = []
        for over, (bare, gateway) in apps.items():
            relay, ours = servers.start(uvicorn, bare), servers.start(uvicorn, gateway)
            pairs += [
                (
                    stream(f"translating relay{over}, {ask}", relay, wire.CHAT, ask),
                    stream(f"translated{over}, {ask}", ours, wire.CHAT, ask),
                )
                for ask in (f"chunks-{EVENTS}", f"burst-{EVENTS}")
            ]
        bench.closed([case for pair in pairs for case in pair], connections=CONNECTIONS)
    cut, whole, cut_other, whole_other = pairs
    return [
        share(f"{DESIGN}stream translated burst{PYREQWEST}", *cut_other, must=60, should=80),
        share("  in one HTTP chunk", *whole_other, must=60, should=80),
        share(f"{OURS}stream translated burst{OWN}", *cut, must=60, should=80),
        share("  in one HTTP chunk", *whole, must=60, should=80),
    ]


def pairs(bench: Bench) -> list[Result]:
    """Every client API in front of every API of a vendor: CPU per event, paced and in bursts.

    Pairs that are translated are compared with the best of them, those that are not with chat in
    front of chat.
    """
    results = []
    apis = vendors()
    with bench.servers() as servers:
        started = {api: servers.start(uvicorn, "pairs", env={"BENCH_VENDOR": api}) for api in apis}

        def cases(ask: str) -> dict[tuple[str, str], Case]:
            made = {}
            for face in wire.FACES:
                for api, server in started.items():
                    path, body = wire.chat_request(face, ask)
                    case = Case(f"{face} to {api}, {ask}", server, path, body, EVENTS)
                    if not ask.startswith("burst"):
                        probe = wire.chat_request(face, PROBE)
                        case = Case(case.name, server, path, body)
                        case.probe_path, case.probe, case.deltas = *probe, 25
                    made[face, api] = case
            return made

        burst, paced = cases(f"burst-{EVENTS}"), cases(f"paced-{FOREVER}-{RATE}")
        bench.closed(list(burst.values()), connections=CONNECTIONS)
        few = bench.options.few
        bench.paced(list(paced.values()), streams=PACED // 2, rate=RATE, rounds=few)
    for kind, measured in (("burst", burst), ("paced", paced)):
        native = [(face, api) for face, api in measured if face == apis[api].native]
        best = min((p for p in measured if p not in native), key=lambda p: min(measured[p].cpu))
        for pair, case in measured.items():
            base = measured["chat", "chat"] if pair in native else measured[best]
            note = "passes through" if pair in native else f"best: {best[0]} to {best[1]}"
            row = share(f"{ISSUE_10}{kind}, {pair[0]} to {pair[1]}", base, case, must=60)
            results.append(replace(row, note=note))
    return results


def paced_translated(bench: Bench) -> list[Result]:
    with bench.servers() as servers:

        def tcp_relay(_: str, port: int) -> list[str]:
            target = str(bench.upstream.port)
            return [sys.executable, "-m", "benchmarks.tcp_relay", str(port), target]

        started = {
            ("translated", "uvicorn"): (servers.start(uvicorn, "claude"), wire.CHAT),
            ("relay", "uvicorn"): (servers.start(uvicorn, "relay"), wire.MESSAGES),
            ("translated", "granian"): (servers.start(granian, "claude"), wire.CHAT),
            ("relay", "granian"): (servers.start(granian, "relay"), wire.MESSAGES),
            ("TCP", "uvloop"): (servers.start(tcp_relay, ""), wire.MESSAGES),
            ("pyreqwest", "uvicorn"): (servers.start(uvicorn, "pyreqwest"), wire.MESSAGES),
            ("pyreqwest", "granian"): (servers.start(granian, "pyreqwest"), wire.MESSAGES),
        }

        def cases(kind: str) -> list[Case]:
            ask = f"{kind}-{FOREVER}-{RATE}"
            return [
                stream(f"{kind} {what}, {server}", process, path, ask)
                for (what, server), (process, path) in started.items()
            ]

        paced, alone = cases("paced"), cases("alone")[:5:2]
        rounds = bench.options.rounds
        streams = bench.paced(paced, streams=PACED, rate=RATE, rounds=rounds)
        few = bench.paced(alone, streams=PACED, rate=RATE, rounds=bench.options.few)
    on_uvicorn, relay_uvicorn, on_granian, relay_granian, tcp, other, other_granian = paced

    def note(streams: int) -> str:
        more = f" ({PACED} are too many for this core)" if streams < PACED else ""
        return f"{streams} streams{more}"

    return [
        times(f"{DESIGN}paced translated, uvicorn", on_uvicorn, tcp, 4.5, 3.9, note(streams)),
        times("  a bare relay, our transport", relay_uvicorn, tcp),
        times("  a bare relay over pyreqwest", other, tcp),
        times(f"{DESIGN}paced translated, granian", on_granian, tcp, 3.2, 2.7, note(streams)),
        times("  a bare relay, our transport", relay_granian, tcp),
        times("  a bare relay over pyreqwest", other_granian, tcp),
        times("  each event alone, uvicorn", alone[0], alone[2], note=note(few)),
        times("  each event alone, granian", alone[1], alone[2], note=note(few)),
    ]


def translator(bench: Bench) -> list[Result]:
    bench.progress.step("translator alone")
    rounds, seconds = str(bench.options.rounds * 2 - 1), str(bench.options.seconds / 4)
    command = [sys.executable, "-m", "benchmarks.translator", rounds, seconds]
    run = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {bench.cores.gateway}),
    )
    results = []
    for name, found in json.loads(run.stdout).items():
        ratios = [ours / base for ours, base in zip(found["ours"], found["by_hand"], strict=True)]
        best = {who: min(times) * 1e6 for who, times in found.items()}
        note = f"{best['ours']:.2f} us an event, by hand {best['by_hand']:.2f}"
        results.append(
            Result(f"{DESIGN}translator alone, {name}", ratios, "x", 2, 1.3, note=note, raw=found)
        )
    return results


def first_token(bench: Bench) -> list[Result]:
    with bench.servers() as servers:
        claude, chat = servers.start(uvicorn, "claude"), servers.start(uvicorn, "chat")
        relay = servers.start(uvicorn, "relay")
        ask = "paced-3-500"
        cases = [
            stream(f"first token, {name}", server, path, ask)
            for name, server, path in (
                ("translated", claude, wire.CHAT),
                ("direct, Anthropic", None, wire.MESSAGES),
                ("verbatim", chat, wire.CHAT),
                ("direct, OpenAI", None, wire.CHAT),
                ("bare relay", relay, wire.CHAT),
            )
        ]
        bench.closed(cases, connections=1, seconds=bench.options.seconds / 2)
    translated, to_anthropic, verbatim, to_openai, relayed = cases
    return [
        added(
            f"{DESIGN}time to first token added", translated, to_anthropic, must=0.5, should=0.25
        ),
        added("  the same dialect", verbatim, to_openai),
        added("  a bare relay, same transport", relayed, to_openai),
    ]


def memory(bench: Bench) -> list[Result]:
    streams, megabyte = 1000, 1e6
    ask = f"paced-{FOREVER}-2"
    with bench.servers() as servers:
        server = servers.start(uvicorn, "claude")
        case = stream("memory", server, wire.CHAT, ask)
        bench.verify([case])
        before = server.rss() / megabyte
        bench.progress.step(f"opening {streams} streams")
        request = wire.request(case.path, case.body)
        with traffic.load(bench.tools, bench.cores.load, server.port, streams, request) as (
            board,
            process,
        ):
            traffic.wait_for(
                lambda: board[traffic.STREAMS] == streams, "all streams to open", process
            )
            time.sleep(max(2.0, bench.options.seconds * 2))
            during = server.rss() / megabyte
            if board[traffic.ERRORS] or board[traffic.STREAMS] != streams:
                raise RuntimeError("memory: streams broke")
        bench.upstream.finish()
    each = (during - before) * 1000 / streams
    note = f"{before:.0f} MB before, {each:.0f} kB a stream"
    raw = {"before": before, "during": during}
    return [
        Result(f"{DESIGN}memory, 1,000 open streams", [during], "MB", 150, 90, note=note, raw=raw)
    ]


def imports(bench: Bench) -> list[Result]:
    def clock(code: str) -> float:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {bench.cores.gateway}),
        )
        return (time.perf_counter() - began) * 1000

    def exported() -> str:
        code = "from asgi_aiproxy import OpenAIShim"
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
        return code if run.returncode == 0 else "from asgi_aiproxy.shim import OpenAIShim"

    bench.progress.step("import")
    codes = ["pass", "import asgi_aiproxy", exported()]
    for code in codes:
        clock(code)  # once for the caches
    times: dict[str, list[float]] = {code: [] for code in codes}
    for _ in range(bench.options.rounds * 3):
        for code in codes:
            times[code].append(clock(code))
    nothing, package, shim = times.values()

    def more(row: str, found: list[float], must: float | None, should: float | None) -> Result:
        rounds = [one - base for one, base in zip(found, nothing, strict=True)]
        return Result(row, rounds, "ms", must, should, raw={"times": found, "pass": nothing})

    return [
        more(f"{DESIGN}import asgi_aiproxy", package, 150, 60),
        more(f"  {codes[2]}", shim, None, None),
    ]


def litellm(bench: Bench) -> list[Result]:
    if not bench.litellm:
        return []
    paced, few = f"paced-{FOREVER}-{RATE}", 12
    with bench.servers() as servers:
        rival = rivals.start_litellm(bench, servers, openai=["whole"], anthropic=[paced, PROBE])
        ours, claude = servers.start(uvicorn, "chat"), servers.start(uvicorn, "claude")
        body = wire.body("whole")
        whole = [
            Case("chat, LiteLLM", rival, wire.CHAT, body, exact=False),
            Case("chat, ours beside it", ours, wire.CHAT, body),
        ]
        slow = [
            stream(f"paced, {name}", server, wire.CHAT, paced)
            for name, server in (("LiteLLM", rival), ("ours beside it", claude))
        ]
        bench.closed(whole, connections=CONNECTIONS)
        bench.paced(slow, streams=few, rate=RATE, rounds=bench.options.few)
    return [
        times("LiteLLM, chat", whole[0], whole[1], note=f"{whole[0].rate[0]:.0f} requests/s"),
        times("LiteLLM, paced", slow[0], slow[1], note=f"{few} streams"),
    ]


ROWS: dict[str, Callable[[Bench], list[Result]]] = {
    "chat whole": chat_whole,
    "chat with": chat_stored,
    "stream verbatim": stream_verbatim,
    "stream translated burst": stream_translated,
    "paced translated": paced_translated,
    "translator alone": translator,
    "pairs": pairs,
    "time to first token": first_token,
    "memory": memory,
    "import": imports,
    "litellm": litellm,
}


def stream(name: str, server: Server | None, path: str, ask: str, *, usage: bool = False) -> Case:
    """A case with a streamed answer; `ask` is the model, see upstream.c."""
    count = int(ask.split("-")[1])
    body = wire.body(ask, stream=True, usage=usage)
    if count < FOREVER:
        return Case(name, server, path, body, count)
    return Case(name, server, path, body, 25, wire.body(PROBE, stream=True, usage=usage))


def share(row: str, base: Case, case: Case, must: float = 0, should: float = 0) -> Result:
    """The rate in percent of the base's."""
    rounds = [100 * one / other for one, other in zip(base.cpu, case.cpu, strict=True)]
    return Result(row, rounds, "%", must or None, should or None, higher=True, raw=raw(case, base))


def times(
    row: str, case: Case, base: Case, must: float = 0, should: float = 0, note: str = ""
) -> Result:
    """How many times the base's CPU."""
    rounds = [one / other for one, other in zip(case.cpu, base.cpu, strict=True)]
    return Result(row, rounds, "x", must or None, should or None, note=note, raw=raw(case, base))


def added(row: str, case: Case, base: Case, must: float = 0, should: float = 0) -> Result:
    """How many milliseconds later."""
    rounds = [(one - other) * 1e3 for one, other in zip(case.first, base.first, strict=True)]
    return Result(row, rounds, "ms", must or None, should or None, raw=raw(case, base))


def raw(*cases: Case) -> dict[str, Any]:
    return {"cases": [case.raw() for case in cases]}
