"""The Starlette example at work: one answer from each vendor, streamed to the official SDK, and the
console, with some traffic to look at.

    scripts/demo [--once] [--port N]

Vendors whose usual key variable is set are the real ones; the others are mocks.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import secrets
import sys
from contextlib import suppress

import openai
import uvicorn

from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from examples.starlette_app.app import create_app
from examples.starlette_app.faults import faulty_gateways, faulty_vendors

SHOW = [
    ("OPENAI_API_KEY", "OpenAI", "gpt-4o-mini"),
    ("ANTHROPIC_API_KEY", "Anthropic", "claude-sonnet-4-5"),
    ("GEMINI_API_KEY", "Gemini", "gemini-2.5-flash"),
]
QUESTION = "In one sentence: why mount an AI gateway inside a service?"
MOCKED = (
    "Because your own users, sessions and limits are already there, "
    "and one import is easier to run than one more server."
)


async def main(arguments: argparse.Namespace) -> int:
    """Serve the example, show each vendor, and stay up until Ctrl-C."""
    mock = MockProvider(Answer(text=MOCKED, pace=0.03))
    admin_token = secrets.token_urlsafe(24)
    answer = Answer(text=MOCKED, pace=0.03)
    async with serve(mock) as mock_url, serve(faulty_vendors(answer)) as faulty_url:
        app = create_app(mock_url, admin_token=admin_token, playgrounds=faulty_gateways(faulty_url))
        config = uvicorn.Config(app, host="127.0.0.1", port=arguments.port, log_level="warning")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            if serving.done():
                return 1  # uvicorn has said why
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        base_url = f"http://127.0.0.1:{port}/ai/v1"
        print(f"A Starlette service with the gateway mounted: {base_url}\n")
        failed = await show(base_url)
        print(
            f"The console: http://127.0.0.1:{port}/ai-console/\n"
            f"  sign in with the administrator's token of this run: {admin_token}\n"
        )
        if not arguments.once:
            print(f"Try it yourself:\n\n{curl(base_url)}\n\nCtrl-C ends.", flush=True)
            traffic = asyncio.create_task(send_traffic(base_url, mock))
            await serving
            traffic.cancel()
        server.should_exit = True
        await serving
    return failed


async def show(base_url: str) -> int:
    """Stream one answer of each vendor; returns how many failed."""
    client = openai.AsyncOpenAI(base_url=base_url, api_key="demo-token", max_retries=0)
    failed = 0
    async with client:
        for variable, vendor, model in SHOW:
            kind = "with your key" if os.environ.get(variable) else f"a mock: {variable} is not set"
            print(f"{vendor}, model {model} ({kind})\n  ", end="", flush=True)
            try:
                stream = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": QUESTION}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async for chunk in stream:
                    for choice in chunk.choices:
                        print(choice.delta.content or "", end="", flush=True)
                    if chunk.usage:
                        used = chunk.usage
                        print(f"\n  [{used.prompt_tokens} tokens in, {used.completion_tokens} out]")
            except openai.OpenAIError as error:
                failed += 1
                print(f"failed: {error}")
            print()
    return failed


async def send_traffic(base_url: str, mock: MockProvider) -> None:
    """Send a call every second or so, now and then one that the vendor refuses."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="demo-token", max_retries=0) as client:
        for number in itertools.count():
            _, _, model = SHOW[number % len(SHOW)]
            if number % 7 == 6:
                mock.script(Fault.status(500, "The vendor is out of order."))
            with suppress(openai.OpenAIError):
                await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": QUESTION}]
                )
            await asyncio.sleep(1)


def curl(base_url: str) -> str:
    """A request for the reader's own shell."""
    return (
        f"  curl {base_url}/chat/completions \\\n"
        f"    -H 'Authorization: Bearer demo-token' -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "smart", "stream": true, '
        f'"messages": [{{"role": "user", "content": "Hello"}}]}}\''
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--once", action="store_true", help="end after the show")
    parser.add_argument("--port", type=int, default=0, help="port to bind (default: a free one)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse())))
    except KeyboardInterrupt:
        sys.exit(0)
