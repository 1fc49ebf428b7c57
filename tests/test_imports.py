"""What imports load and do: nothing heavy without need, no output, no tasks, no threads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.test_architecture import FILES, PACKAGE, PURE, name_of


def after(code: str) -> list[str]:
    """What a new interpreter prints as JSON after some code; it must print nothing else."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1, done.stdout
    found: list[str] = json.loads(done.stdout)
    return found


HEAVY = ["asyncio", "anyio", "httpx", "httpx2", "pydantic", "pydantic_settings", "pyreqwest"]
HEAVY += ["redis", "ssl", "sse_starlette", "starlette", "uvicorn"]
LOADED = "import json, sys; print(json.dumps(sorted(sys.modules)))"


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_loads_nothing_heavy(name: str) -> None:
    assert not set(after(f"import {PACKAGE}.{name}; {LOADED}")) & set(HEAVY)


def test_importing_the_package_loads_no_module_of_it() -> None:
    loaded = after(f"import {PACKAGE}; {LOADED}")
    assert [name for name in loaded if name.startswith(PACKAGE)] == [PACKAGE, f"{PACKAGE}._lazy"]


def test_a_gateway_loads_no_framework_and_no_settings() -> None:
    loaded = after(f"from {PACKAGE} import OpenAIShim, KeyPool, lifespan, Dispatcher; {LOADED}")
    unwanted = {"starlette", "redis", "pydantic", "sse_starlette", "uvicorn", "httpx", "anyio"}
    assert not unwanted & set(loaded)


SHIM = f"from {PACKAGE} import OpenAIShim; "
MADE = f"from {PACKAGE}.providers import OPENAI; OpenAIShim(OPENAI.using('sk-1')); "


@pytest.mark.parametrize("code", [SHIM, SHIM + MADE], ids=["imported", "made"])
def test_a_shim_loads_no_dialect_price_or_operation_that_it_does_not_use(code: str) -> None:
    loaded = after(code + LOADED)
    parts = ("anthropic", "bedrock", "cohere", "coze", "gemini", "ollama", "usage_extraction")
    unwanted = {f"{PACKAGE}.dialects.{name}" for name in parts}
    unwanted |= {f"{PACKAGE}.{name}" for name in ("inprocess", "typed_calls", "responses_state")}
    unwanted |= {f"{PACKAGE}.prices.price_list", f"{PACKAGE}.operations.embeddings"}
    assert not unwanted & set(loaded)


IMPORT_ALL = """
import json, os, signal, sys, threading
before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
import importlib
for name in {names!r}:
    importlib.import_module(name)
import asyncio
sockets = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)
           and os.readlink("/proc/self/fd/" + fd).startswith("socket:")] if os.path.isdir(
           "/proc/self/fd") else []
started = [thread.name for thread in threading.enumerate()]
after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
loop = asyncio._get_running_loop()
print(json.dumps([started, sockets, before == after, loop is None, "sse_starlette" in sys.modules]))
"""


def test_importing_everything_prints_nothing_and_starts_nothing() -> None:
    names = [f"{PACKAGE}.{name_of(path)}".rstrip(".") for path in FILES]
    assert after(IMPORT_ALL.format(names=names)) == [["MainThread"], [], True, True, False]
