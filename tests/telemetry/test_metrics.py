"""Prometheus metrics, read back by Prometheus's own parser."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgi_aiproxy import (
    ConfigurationError,
    Key,
    KeyPool,
    Ledger,
    MemoryStore,
    OpenAIShim,
    Price,
    Prices,
    ProviderRouter,
    lifespan,
    tee,
)
from asgi_aiproxy.config.factory import build_app
from asgi_aiproxy.config.settings import Settings, configuration_warnings
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.telemetry import series as collected
from asgi_aiproxy.telemetry.metrics import Metrics
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi, waiting
from tests.support.redis_server import free_port, until
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(app: Any, **headers: str) -> Series:
    answer = await asgi.request(app, "GET", "/metrics", headers=headers)
    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/plain")
    return read(answer.body.decode())


def value(series: Series, name: str, **labels: str) -> float:
    """The sum of the series with these labels; 0 without any."""
    wanted = set(labels.items())
    return sum(found for (known, has), found in series.items() if known == name and wanted <= has)


def gateway(upstream: Upstream, metrics: Metrics, router: Any) -> OpenAIShim:
    return OpenAIShim(router, transport=upstream.transport, record=metrics.record, backoff=0.0)


async def test_exchanges_attempts_tokens_and_cost_are_counted() -> None:
    upstream = Upstream(refuses(500), answers(), streams(), refuses(400))
    router = ProviderRouter({"m": [OPENAI.using("a"), OPENAI.using("b", name="backup")]})
    prices = Prices({"m": Price(input=1000, output=2000)}, listed=False)
    metrics = Metrics(router=router, prices=prices)
    async with gateway(upstream, metrics, router) as shim:
        assert (await asgi.chat(shim, model="m")).status == 200
        assert (await asgi.chat(shim, model="m", stream=True)).status == 200
        assert (await asgi.chat(shim, model="m")).status == 400
        assert (await asgi.chat(shim, model="unknown")).status == 404
    series = await scrape(metrics)
    count = "aiproxy_exchanges_total"
    assert value(series, count, model="m", face="openai_chat", outcome="done") == 2
    assert value(series, count, model="m", outcome="refused") == 1
    assert value(series, count, model="other", outcome="refused") == 1
    assert value(series, "aiproxy_refused_total", reason="invalid_request") == 1
    assert value(series, "aiproxy_refused_total", reason="not_found") == 1
    assert value(series, "aiproxy_attempts_total", result="500") == 1
    assert value(series, "aiproxy_attempts_total") == 5
    assert value(series, "aiproxy_tokens_total", type="input") == 6
    assert value(series, "aiproxy_tokens_total", type="output") == 4
    # 3 tokens in and 2 out, twice, at 1,000 and 2,000 dollars a million
    assert value(series, "aiproxy_cost_dollars_total") == pytest.approx(2 * (0.003 + 0.004))
    assert value(series, "aiproxy_duration_seconds_count") == 4
    assert value(series, "aiproxy_first_content_seconds_count") == 2
    assert value(series, "aiproxy_build_info") == 1


async def test_names_that_callers_make_up_do_not_become_series() -> None:
    upstream = Upstream(refuses(404))
    router = ProviderRouter({"known": OPENAI.using("a"), "*": OPENAI.using("b", name="rest")})
    metrics = Metrics(router=router)
    async with gateway(upstream, metrics, router) as shim:
        assert (await asgi.chat(shim, model="known")).status == 404
        for number in range(5):
            await asgi.chat(shim, model=f"first-{number}\n{{}}")
        before = len(await drained(metrics, shim))
        for number in range(200):
            await asgi.chat(shim, model=f"junk-{number}\n{{}}")
        after = await drained(metrics, shim)
    assert len(after) == before
    assert value(after, "aiproxy_exchanges_total", model="other") == 205


async def drained(metrics: Metrics, shim: OpenAIShim) -> Series:
    async with asyncio.timeout(30):
        seen = -1.0
        while (now := value(await scrape(metrics), "aiproxy_exchanges_total")) != seen or not now:
            seen = now
            await asyncio.sleep(0.05)
    return await scrape(metrics)


async def test_models_that_answer_are_named_up_to_a_limit() -> None:
    upstream = Upstream(answers())
    router = ProviderRouter({"*": OPENAI.using("a")})
    metrics = Metrics(router=router, max_models=3)
    async with gateway(upstream, metrics, router) as shim:
        for number in range(10):
            assert (await asgi.chat(shim, model=f"local-{number}")).status == 200
    series = await scrape(metrics)
    assert [value(series, "aiproxy_exchanges_total", model=f"local-{n}") for n in range(4)] == [
        1,
        1,
        1,
        0,
    ]
    assert value(series, "aiproxy_exchanges_total", model="other") == 7


async def test_requests_in_flight_are_counted() -> None:
    metrics = Metrics()
    entered, release = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await release.wait()
        raise RuntimeError("the app fails")

    running = asyncio.create_task(asgi.request(metrics.track(app), "GET", "/"))
    await asyncio.wait_for(entered.wait(), 30)
    assert value(await scrape(metrics), "aiproxy_in_flight") == 1
    release.set()
    with pytest.raises(RuntimeError):
        await running
    assert value(await scrape(metrics), "aiproxy_in_flight") == 0


async def test_keys_are_counted_by_state_and_their_names_are_not_shown() -> None:
    keys = KeyPool([Key("sk-secret-1", id="alpha"), Key("sk-secret-2", id="beta")])
    metrics = Metrics(providers=[OPENAI.using(keys), ANTHROPIC])
    await keys.disable("alpha")
    answer = await asgi.request(metrics, "GET", "/")
    series = read(answer.body.decode())
    assert value(series, "aiproxy_keys", provider="openai", state="ok") == 1
    assert value(series, "aiproxy_keys", provider="openai", state="dead") == 1
    assert not any(word in answer.body.decode() for word in ("secret", "alpha", "beta"))


class Away(MemoryStore):
    async def version(self, name: str) -> int:
        raise StoreUnavailableError("away")


async def test_the_store_and_the_ledger_are_reported() -> None:
    store = MemoryStore()
    metrics = Metrics(store=store, ledger=Ledger(store))
    series = await scrape(metrics)
    assert value(series, "aiproxy_store_up") == 1
    assert value(series, "aiproxy_ledger_backlog") == 0
    assert value(await scrape(Metrics(store=Away())), "aiproxy_store_up") == 0


async def test_a_loop_that_is_held_up_shows_its_lag() -> None:
    metrics = Metrics()
    async with metrics:
        await asyncio.sleep(0)
        time.sleep(0.8)  # noqa: ASYNC251 (longer than the interval of the measurement)
        async with asyncio.timeout(30):
            lag = 0.0
            while lag < 0.2:
                lag = max(lag, value(await scrape(metrics), "aiproxy_loop_lag_seconds"))
                await asyncio.sleep(0.05)


async def test_a_host_exposes_its_own_registry_with_the_gauges_kept_up_to_date() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("http_requests", "The host's own.", registry=registry)
    metrics = Metrics(registry=registry, store=MemoryStore(), sample_seconds=0.01)
    async with lifespan(metrics)(None), asyncio.timeout(30):
        while not value(
            read(prometheus_client.generate_latest(registry).decode()), "aiproxy_store_up"
        ):
            await asyncio.sleep(0.01)
    with pytest.raises(ConfigurationError, match="the registry already has these metrics"):
        Metrics(registry=registry)


async def test_open_metrics_is_served_where_it_is_accepted_and_other_methods_are_refused() -> None:
    metrics = Metrics()
    accept = "application/openmetrics-text; version=1.0.0"
    answer = await asgi.request(metrics, "GET", "/", headers={"accept": accept})
    assert (answer.header("content-type") or "").startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    head = await asgi.request(metrics, "HEAD", "/")
    assert (head.status, head.body) == (200, b"")
    posted = await asgi.request(metrics, "POST", "/")
    assert (posted.status, posted.header("allow")) == (405, "GET, HEAD")


WORKER = """
import asyncio, os, sys
from asgi_aiproxy.telemetry.metrics import Metrics
from asgi_aiproxy.usage.record import UsageRecord
metrics = Metrics(multiprocess=sys.argv[1])
asyncio.run(metrics.record(UsageRecord(id="1", face="openai_chat", operation="chat.completions")))

async def app(scope, receive, send):
    os._exit(0)  # the process ends while the request is in flight

asyncio.run(metrics.track(app)({"type": "http"}, None, None))
"""
SCRAPE = """
import asyncio, sys
from asgi_aiproxy.telemetry.metrics import Metrics
metrics = Metrics(multiprocess=sys.argv[1])
async def send(message):
    if message.get("body"):
        print(message["body"].decode())
scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
asyncio.run(metrics(scope, None, send))
"""


def test_a_scrape_answers_for_all_worker_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(WORKER)
    run(WORKER)
    series = read(run(SCRAPE))
    assert value(series, "aiproxy_exchanges_total", face="openai_chat") == 2
    assert value(series, "aiproxy_in_flight") == 0, "requests of processes that have ended"


def test_several_processes_without_their_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PROMETHEUS_MULTIPROC_DIR"):
        Metrics(multiprocess=tmp_path)


async def test_serve_answers_scrapes_that_show_the_token() -> None:
    settings = Settings(
        providers={"openai": {"keys": ["sk-x"]}}, metrics=True, metrics_token="scrape-token"
    )
    app = build_app(settings)
    assert (await asgi.request(app, "GET", "/metrics")).status == 401
    assert (await asgi.request(app, "GET", "/v1/models/m")).status == 200
    series = await scrape(app, authorization="Bearer scrape-token")
    assert value(series, "aiproxy_build_info") == 1
    assert value(series, "aiproxy_keys", provider="openai", state="ok") == 1
    warned = configuration_warnings(settings.model_copy(update={"metrics_token": None}))
    assert any("Set metrics_token" in words for words in warned)


def test_all_workers_of_serve_are_in_one_scrape(tmp_path: Path) -> None:
    config = tmp_path / "aiproxy.toml"
    config.write_text(
        "metrics = true\nattempts = 1\n[providers.openai]\n"
        'keys = ["sk-x"]\nbase_url = "http://127.0.0.1:1/v1"\n'
    )
    port = free_port()
    command = [sys.executable, "-m", "asgi_aiproxy", "serve", "--config", str(config)]
    server = subprocess.Popen(
        [*command, "--workers", "2", "--port", str(port)], stderr=subprocess.PIPE
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def count() -> float:
            try:
                with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
                    return value(read(answer.read().decode()), "aiproxy_exchanges_total")
            except OSError:
                return -1.0

        until(lambda: count() == 0, "the server answers")
        for _ in range(20):  # on connections of their own, so that both workers get some
            request = urllib.request.Request(f"{url}/v1/chat/completions", b'{"model": 1}')
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(request, timeout=30)
            good = urllib.request.Request(
                f"{url}/v1/chat/completions",
                b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}',
            )
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(good, timeout=30)
        until(lambda: count() == 20, "a scrape shows the exchanges of both workers")
        assert [count() for _ in range(10)] == [20.0] * 10
    finally:
        server.terminate()
        server.communicate(timeout=60)


async def test_exchanges_that_cannot_be_added_to_the_metrics_do_not_stop_the_others() -> None:
    written: list[tuple[str, int]] = []

    def key_of(record: UsageRecord) -> collected.Key:
        if record.provider == "unknown":
            raise LookupError("no labels")
        return "", "", record.provider, "", ""

    def write(series: collected.Series) -> None:
        if series.key[2] == "broken":
            raise ValueError("no space left")
        written.append((series.key[2], series.count))

    collector = collected.Collector(key_of, lambda record: None, write, at_once=False)
    for provider in ("one", "broken", "unknown", "two"):
        await collector(UsageRecord(id="1", provider=provider))
    collector.flush()
    await collector(UsageRecord(id="2", provider="one"))
    collector.flush()
    assert sorted(written) == [("one", 1), ("one", 1), ("two", 1)]


async def test_a_scrape_shows_every_call_that_has_ended() -> None:
    upstream = Upstream(answers())
    router = ProviderRouter({"m": OPENAI.using("a")})
    metrics = Metrics(router=router)
    sinks = tee(metrics.record, tee(metrics.record))  # (twice, also in a tee)
    shim = OpenAIShim(router, transport=upstream.transport, record=sinks)
    async with shim:
        for number in range(1, 4):
            assert (await asgi.chat(shim, model="m")).status == 200
            series = await scrape(metrics)
            assert value(series, "aiproxy_exchanges_total", model="m") == 2 * number
            assert value(series, "aiproxy_attempts_total", result="200") == 2 * number


async def test_a_host_that_reads_its_registry_in_a_thread_misses_no_call() -> None:
    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(registry=registry)

    def read_often() -> float:
        counted = 0.0
        for _ in range(50):
            counted = registry.get_sample_value("aiproxy_duration_seconds_count", LABELS) or 0.0
        return counted

    reading = asyncio.get_running_loop().run_in_executor(None, read_often)
    for number in range(2_000):
        await metrics.record(UsageRecord(id=str(number), face="f", provider="p"))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await reading
    assert await asyncio.to_thread(read_often) == 2_000


LABELS = {"face": "f", "provider": "p"}


async def test_many_series_are_written_a_few_at_a_time_and_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collected, "_FLUSH_SECONDS", 0.01)
    written: list[int] = []
    collector = collected.Collector(
        lambda record: ("", "", record.provider, "", ""),
        lambda record: None,
        lambda series: written.append(series.count),
        at_once=False,
    )
    for number in range(300):
        await collector(UsageRecord(id="", provider=str(number % 100)))
    await waiting.until(lambda: sum(written) == 300)
    assert len(written) >= 100
