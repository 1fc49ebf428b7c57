"""Count what one warm chat call runs: `python -m benchmarks.call_path`.

Prints a Markdown table (docs/architecture.md has it): for each call the distinct functions of the
package that are entered, the modules that they are in, the number of function calls, and the
deepest nesting of its coroutines. The mock provider runs in a thread of its own, so that only the
gateway is counted. Comprehensions and generator expressions are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any

import msgspec

import asgi_aiproxy
from asgi_aiproxy import (
    Authenticate,
    Budget,
    Limits,
    MemoryStore,
    OpenAIShim,
    Price,
    Prices,
    Principal,
    Quota,
)
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.testing import MockProvider, serve_in_thread

PACKAGE = str(Path(asgi_aiproxy.__file__).parent)
TOKEN = "sk-benchmark"
WARM_UP_CALLS = 3
COUNTED_CALLS = 20
SWITCH_SECONDS = 0.0001
COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclass
class CallPath:
    """The code of the package that ran while `profile` was set."""

    functions: set[CodeType] = field(default_factory=set)
    calls: int = 0
    depth: int = 0

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count a call; for `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or not in_package(code):
            return
        self.functions.add(code)
        self.calls += 1
        self.depth = max(self.depth, coroutine_depth(frame))

    @property
    def modules(self) -> set[str]:
        """The files of the functions."""
        return {code.co_filename for code in self.functions}


def in_package(code: CodeType) -> bool:
    """Whether it is a named function of the package."""
    return code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<")


def coroutine_depth(frame: FrameType | None) -> int:
    """How many coroutines of the package wait for this frame, itself included."""
    depth = 0
    while frame is not None:
        depth += bool(frame.f_code.co_flags & COROUTINE) and in_package(frame.f_code)
        frame = frame.f_back
    return depth


async def chat(app: Any, *, stream: bool, path: CallPath | None = None) -> None:
    """Send one chat request to an ASGI app; with `path`, count what runs."""
    body = msgspec.json.encode(
        {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    )
    messages = [{"type": "http.request", "body": body}]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"authorization", b"Bearer " + TOKEN.encode()),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    status = 0

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    if path is not None:
        sys.setprofile(path.profile)
    try:
        await app(scope, receive, send)
    finally:
        sys.setprofile(None)
    if status != 200:
        raise RuntimeError(f"The gateway answered {status}.")


def with_authentication_and_quota(shim: OpenAIShim) -> Any:
    """The app behind a token with a request limit and a budget."""
    prices = Prices(unknown=Price(input=1, output=1), listed=False)
    limits = Limits(rpm=10**6, budgets=(Budget(2**40),))
    caller = Principal("benchmark", limits=limits)

    async def verify(token: str) -> Principal | None:
        return caller if token == TOKEN else None

    return Authenticate(Quota(shim, store=MemoryStore(), prices=prices), verify=verify)


async def measure(app: Any, *, stream: bool) -> CallPath:
    """The path of one call, after some that fill caches and open the connection.

    It is the shortest of a few: on a busy machine timers run during a call, and its response
    arrives in more pieces. The mock's thread is not kept waiting either.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    for _ in range(WARM_UP_CALLS):
        await chat(app, stream=stream)
    paths = []
    for _ in range(COUNTED_CALLS):
        paths.append(CallPath())
        await chat(app, stream=stream, path=paths[-1])
    return min(paths, key=lambda path: path.calls)


async def rows(url: str) -> list[tuple[str, CallPath]]:
    """All calls that are counted, by what they are."""

    def same() -> OpenAIShim:
        return OpenAIShim(OPENAI.using(["sk-1", "sk-2"], base_url=f"{url}/v1"))

    def translated() -> OpenAIShim:
        return OpenAIShim(ANTHROPIC.using(["sk-1", "sk-2"], base_url=url))

    return [
        ("chat", await measure(same(), stream=False)),
        ("chat, streamed", await measure(same(), stream=True)),
        (
            "chat, with `Authenticate` and `Quota`",
            await measure(with_authentication_and_quota(same()), stream=False),
        ),
        ("chat, translated to Anthropic's format", await measure(translated(), stream=False)),
        ("the same, streamed", await measure(translated(), stream=True)),
    ]


def module_sizes() -> list[int]:
    """The number of lines of each module of the package."""
    files = Path(PACKAGE).rglob("*.py")
    return [len(file.read_text("utf-8").splitlines()) for file in files]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.call_path", description=__doc__)
    parser.add_argument("--list", action="store_true", help="also list the functions of each call")
    arguments = parser.parse_args(argv)
    sizes = module_sizes()
    print(f"{len(sizes)} modules, {sum(sizes)} lines, {int(median(sizes))} in the median module\n")
    print("| one warm call | functions | modules | function calls | nested coroutines |")
    print("| --- | --- | --- | --- | --- |")
    with serve_in_thread(MockProvider()) as url:
        for name, path in asyncio.run(rows(url)):
            counts = len(path.functions), len(path.modules), path.calls, path.depth
            print(f"| {name} | {' | '.join(map(str, counts))} |")
            if arguments.list:
                names = (
                    f"{Path(code.co_filename).relative_to(PACKAGE)}: {code.co_qualname}"
                    for code in path.functions
                )
                print("", *sorted(names), "", sep="\n    ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
