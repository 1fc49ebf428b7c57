"""The translator alone, bytes to bytes, in process: prints seconds per event as JSON.

`python -m benchmarks.translator ROUNDS SECONDS`
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT
from asgi_aiproxy.messages import Request
from asgi_aiproxy.translate import StreamTranslator
from benchmarks import apps, wire

EVENTS = 200


def ours(packets: Sequence[bytes]) -> bytes:
    request = Request(model="m", messages=(), stream=True)
    framer = ANTHROPIC_MESSAGES.framer("text/event-stream")
    translator = StreamTranslator(
        framer, ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(request)
    )
    feed = translator.feed
    out = [feed(packet) for packet in packets]
    out.append(translator.close())
    return b"".join(out)


def by_hand(packets: Sequence[bytes]) -> bytes:
    rest = b""
    out = []
    translate = apps.translate
    for packet in packets:
        done, rest = translate(rest + packet)
        out.append(done)
    return b"".join(out)


def clock(run: Callable[[Sequence[bytes]], bytes], packets: list[bytes], seconds: float) -> float:
    """CPU seconds per event."""
    times, end = 0, time.perf_counter() + seconds
    began = time.process_time()
    while time.perf_counter() < end:
        for _ in range(20):
            run(packets)
        times += 20
    return (time.process_time() - began) / times / EVENTS


def main(rounds: int, seconds: float) -> None:
    stream = wire.anthropic_stream(EVENTS)
    cuts = {"burst": [b"".join(stream)], "packets": stream}
    for packets in cuts.values():
        for run in (ours, by_hand):
            found = wire.deltas_in(run(packets))
            if found != EVENTS:
                raise SystemExit(f"{run.__name__}: {found} deltas instead of {EVENTS}")
    gc.freeze()
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for name, packets in cuts.items():
            for run in (ours, by_hand):
                found_times = times.setdefault(name, {}).setdefault(run.__name__, [])
                found_times.append(clock(run, packets, seconds))
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
