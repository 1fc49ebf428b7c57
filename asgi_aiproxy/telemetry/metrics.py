"""`Metrics`: Prometheus metrics of exchanges, keys, store and event loop.

Theory of operation. Counters and histograms are filled from usage records, by the sink
`Metrics.record`: an exchange costs nothing more while it runs. They are queued, summed up, and
added when the metrics are scraped, or once a second (see `telemetry.series`). Gauges of shared
state (keys, store) are read when the metrics are scraped; where the host exposes its own registry,
every `sample_seconds` instead. `Metrics.track` counts the requests in flight of the app that it
wraps.

The number of time series is bounded, whatever callers send: `provider`, `face` and `operation` are
names of this installation, `status` is one of a few hundred. `model` is a name that `router` has,
or one under which a provider has finished an exchange, for the first `max_models` of them; every
other one is `other`. No label holds a caller, an account, a key or a request.

Names begin with `aiproxy_`, so that they cannot be those of the host; units are base units
(https://prometheus.io/docs/practices/naming/).

Several worker processes write their values into files of one folder, which
`PROMETHEUS_MULTIPROC_DIR` names before prometheus-client is imported; with `multiprocess=` this
folder, each scrape answers for all of them
(https://prometheus.github.io/client_python/multiprocess/). Gauges of processes that have ended are
removed at the next scrape.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy._background_tasks import FailureLog, repeat, start
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.load_shedder import LoadShedder
from asgi_aiproxy.prices.pricing import Pricing
from asgi_aiproxy.providers.base import Provider, Router
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.telemetry.series import SECONDS, TOKEN_TYPES, Collector, Key, Series
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.pricing import cost_of
from asgi_aiproxy.usage.record import Outcome, UsageRecord
from asgi_aiproxy.usage.recorder import UsageSink

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OTHER = "other"
_STORE_TIMEOUT_SECONDS = 2.0
_LAG_INTERVAL_SECONDS = 0.5
# Reasons for refusals by status, as the shims, the quota and the upstreams use it.
_REASONS = {
    400: "invalid_request",
    401: "unauthorized",
    402: "budget",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    415: "content_encoding",
    429: "rate_limit",
}


class Metrics:
    """Prometheus metrics: an ASGI app that is scraped, and a usage sink (extra `metrics`).

    Arguments:

    - `registry`: the host's registry, which the host exposes; default: one of its own, which this
      app exposes.
    - `router`: its model names become values of the label `model`.
    - `providers`: the state of their keys is reported.
    - `store`: reports whether it can be reached, and how long that takes.
    - `ledger`: reports how many usage records wait to be written.
    - `prices`: cost of exchanges without a quota, whose records have no cost.
    - `max_models`: how many further model names become values of the label.
    - `sample_seconds`: how often gauges are read for a registry of the host, once it is opened.
    - `multiprocess`: the folder of `PROMETHEUS_MULTIPROC_DIR`: a scrape answers for all processes.

    Open it with the host's lifespan (`lifespan(metrics, ai)`), to measure the event loop's lag.
    Raises ConfigurationError if prometheus-client is missing, or does not
    write into the folder of `multiprocess`.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        router: Router | None = None,
        providers: Iterable[Provider] = (),
        store: Store | None = None,
        ledger: Ledger | None = None,
        prices: Pricing | None = None,
        max_models: int = 100,
        sample_seconds: float = 10.0,
        multiprocess: str | Path | None = None,
    ) -> None:
        self._client = client = _import_client()
        self._own = registry is None
        self.registry = registry if registry is not None else client.CollectorRegistry()
        self._folder = None if multiprocess is None else _check_multiprocess(client, multiprocess)
        self._providers = tuple(providers)
        self._store = store
        self._ledger = ledger
        self._prices = prices
        self._models = set() if router is None else set(router.models())
        self._max_models = len(self._models) + max_models
        self._sample_seconds = sample_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._users = 0
        self._log = FailureLog("reading gauges for metrics")
        try:
            self._define()
        except ValueError as error:  # of the host's registry
            raise ConfigurationError(
                f"Metrics: the registry already has these metrics ({error}). Make one Metrics "
                "object for each registry."
            ) from error

    def __repr__(self) -> str:
        return f"Metrics(models={len(self._models)}, own_registry={self._own})"

    def _define(self) -> None:
        from asgi_aiproxy.telemetry.histogram import BatchHistogram  # (of the extra, too)

        made = self._client
        at_once = self._folder is not None
        self._collector = Collector(self._key_of, self._cost_of, self._write, at_once=at_once)
        self.registry.register(self._collector)

        def counter(name: str, text: str, *labels: str) -> Any:
            return made.Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str) -> Any:
            return BatchHistogram(name, text, labels, registry=self.registry, buckets=SECONDS)

        def gauge(name: str, text: str, *labels: str, mode: str = "mostrecent") -> Any:
            return made.Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)

        self._exchanges = counter(
            "aiproxy_exchanges_total",
            "Exchanges by how they ended.",
            *("face", "operation", "provider", "model", "outcome"),
        )
        self._attempts = counter(
            "aiproxy_attempts_total",
            "Requests to providers, by the status of the response; no_response without one.",
            *("provider", "result"),
        )
        self._refused = counter(
            "aiproxy_refused_total", "Exchanges that were refused.", "face", "reason"
        )
        self._duration = histogram(
            "aiproxy_duration_seconds", "Duration of exchanges.", "face", "provider"
        )
        self._first = histogram(
            "aiproxy_first_content_seconds",
            "Time from the request to the first content of the response.",
            *("face", "provider"),
        )
        self._gap = histogram(
            "aiproxy_chunk_gap_seconds",
            "Longest time without data within a response, after its first content.",
            *("face", "provider"),
        )
        self._tokens = counter(
            "aiproxy_tokens_total",
            "Tokens; cache_read and cache_write are parts of input, reasoning of output.",
            *("provider", "model", "type"),
        )
        self._cost = counter(
            "aiproxy_cost_dollars_total", "Cost of exchanges.", "provider", "model"
        )
        self._unpriced = counter(
            "aiproxy_unpriced_total", "Exchanges without a price.", "provider", "model"
        )
        self._in_flight = gauge(
            "aiproxy_in_flight", "Requests in flight, where counted.", mode="livesum"
        )
        self._lag = gauge(
            "aiproxy_loop_lag_seconds",
            "How late the event loop runs what is due: the longest delay since the last scrape.",
            mode="livemax",
        )
        self._lag_peak = 0.0
        self._shedders: list[LoadShedder] = []
        self._shed = counter(
            "aiproxy_shed_total",
            "Requests that a LoadShedder refused: load, or memory of request bodies.",
            *("reason", "priority"),
        )
        self._load_limit = gauge(
            "aiproxy_load_limit", "Requests that may be in flight, by load.", mode="livesum"
        )
        if self._providers:
            self._keys = gauge("aiproxy_keys", "Keys by state.", "provider", "state")
        if self._store is not None:
            self._store_up = gauge("aiproxy_store_up", "Whether the store can be reached.")
            self._store_seconds = gauge("aiproxy_store_seconds", "Time of one read of the store.")
        if self._ledger is not None:
            self._waiting = gauge(
                "aiproxy_ledger_backlog", "Usage records that are not written yet.", mode="livesum"
            )
        build = gauge("aiproxy_build_info", "The version that runs.", "version", mode="max")
        from asgi_aiproxy import __version__

        build.labels(__version__).set(1)

    # usage records

    @property
    def record(self) -> UsageSink:
        """The usage sink that counts exchanges, as in `record=tee(log_usage, metrics.record)`."""
        return self._collector

    def _key_of(self, record: UsageRecord) -> Key:
        """The labels of an exchange."""
        model = record.requested_model
        if model not in self._models:
            model = self._other_model(record)
        outcome = "done" if record.outcome is Outcome.DONE else record.outcome.value
        provider = record.provider or "none"
        return record.face or OTHER, record.operation or OTHER, provider, model, outcome

    def _other_model(self, record: UsageRecord) -> str:
        """The value of the label `model`, where the requested one has no series."""
        name = record.upstream_model
        if name in self._models:
            return name
        if name and record.outcome is Outcome.DONE and len(self._models) < self._max_models:
            self._models.add(name)
            return name
        return OTHER

    def _cost_of(self, record: UsageRecord) -> int | None:
        if record.cost is None and record.usage is not None and self._prices is not None:
            return cost_of(record, self._prices)
        return record.cost

    def _write(self, series: Series) -> None:
        """Add a series to the metrics."""
        face, _, provider, model, _ = series.key
        self._exchanges.labels(*series.key).inc(series.count)
        for status, count in series.refused.items():
            self._refused.labels(face, _REASONS.get(status, OTHER)).inc(count)
        for histogram, times in (
            (self._duration, series.durations),
            (self._first, series.firsts),
            (self._gap, series.gaps),
        ):
            if any(times.counts):
                histogram.labels(face, provider).add(times.counts, times.total)
        for (by, result), count in series.attempts.items():
            self._attempts.labels(by, result).inc(count)
        if series.first_attempts:
            self._attempts.labels(provider, "200").inc(series.first_attempts)
        for kind in TOKEN_TYPES:
            if count := getattr(series, kind):
                self._tokens.labels(provider, model, kind).inc(count)
        if series.unpriced:
            self._unpriced.labels(provider, model).inc(series.unpriced)
        if series.priced:
            self._cost.labels(provider, model).inc(series.cost / 1e6)

    # requests in flight

    def track(self, app: ASGIApp) -> ASGIApp:
        """Wrap `app`, to count its requests in flight (HTTP and WebSocket)."""
        return _Tracked(app, self._in_flight)

    def watch(self, shedder: LoadShedder) -> None:
        """Report what a `LoadShedder` refuses, and its limit."""
        shedder.on_refused = self._count_shed
        self._shedders.append(shedder)

    def _count_shed(self, reason: str, priority: str) -> None:
        self._shed.labels(reason, priority).inc()

    # gauges

    async def sample(self) -> None:
        """Read the gauges of keys, store, ledger and event loop."""
        self._lag.set(self._lag_peak)
        self._lag_peak = 0.0
        if self._shedders:
            self._load_limit.set(sum(each.status.limit for each in self._shedders))
        if self._ledger is not None:
            self._waiting.set(self._ledger.waiting)
        if self._store is not None:
            loop = asyncio.get_running_loop()
            began, up = loop.time(), 1
            try:
                async with asyncio.timeout(_STORE_TIMEOUT_SECONDS):
                    await self._store.version("metrics")
            except (StoreUnavailableError, TimeoutError):
                up = 0
            self._store_up.set(up)
            self._store_seconds.set(loop.time() - began)
        for provider in self._providers:
            if provider.keys is None:
                continue
            counts = dict.fromkeys(Health, 0)
            for status in await provider.keys.status():
                counts[status.health] += 1
            for health, count in counts.items():
                self._keys.labels(provider.name, health.value).set(count)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + _LAG_INTERVAL_SECONDS
        await asyncio.sleep(_LAG_INTERVAL_SECONDS)
        self._lag_peak = max(self._lag_peak, loop.time() - due)

    async def _sample_regularly(self) -> None:
        await self.sample()
        await asyncio.sleep(self._sample_seconds)

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._users == 1:
            self._tasks = [start(repeat(self._measure_lag, what="measuring the loop"), what="lag")]
            if not self._own:
                what = "reading gauges for metrics"
                self._tasks.append(start(repeat(self._sample_regularly, what=what), what=what))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if self._users == 0:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            self._collector.flush()
            await asyncio.gather(*tasks, return_exceptions=True)

    # scraping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scrape, in the text format or as OpenMetrics."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
            return
        if scope["type"] != "http":
            return
        status, media_type, body = 200, b"text/plain; charset=utf-8", b""
        extra = [(b"cache-control", b"no-store")]
        if scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b"Send GET.\n"
            extra.append((b"allow", b"GET, HEAD"))
        else:
            try:
                await self.sample()
            except Exception as error:  # what there is is better than nothing
                self._log.log_failure(error, unexpected=True)
            else:
                self._log.log_recovery()
            self._collector.flush()  # (the files of several processes are not read from it)
            accept = _asgi.headers(scope, {b"accept": "accept"}).get("accept", "")
            encode, named = self._client.exposition.choose_encoder(accept)
            body = await asyncio.to_thread(encode, self._exposed())
            media_type = named.encode("ascii")
        with suppress(ClientGoneError):
            head = scope["method"] == "HEAD"
            await _asgi.send_response(send, status, body, extra, media_type, head=head)

    def _exposed(self) -> CollectorRegistry:
        if self._folder is None:
            return self.registry
        for pid in _ended_processes(self._folder):
            self._client.multiprocess.mark_process_dead(pid, str(self._folder))
        registry: CollectorRegistry = self._client.CollectorRegistry()
        self._client.multiprocess.MultiProcessCollector(registry, str(self._folder))
        return registry


class _Tracked(Middleware):
    """Counts the requests in flight of an app."""

    def __init__(self, app: ASGIApp, gauge: Any) -> None:
        super().__init__(app)
        self._gauge = gauge
        self.handles_admission = getattr(app, "handles_admission", False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._pass_other_scope(scope, receive, send)
            return
        self._gauge.inc()
        try:
            await self.app(scope, receive, send)
        finally:
            self._gauge.dec()


def _import_client() -> Any:
    try:
        import prometheus_client
        import prometheus_client.multiprocess
    except ImportError as error:
        raise ConfigurationError(
            f"Metrics requires prometheus-client: pip install 'asgi-aiproxy[metrics]'. ({error})"
        ) from error
    return prometheus_client


def _check_multiprocess(client: Any, folder: str | Path) -> Path:
    """The folder as a path. Raises ConfigurationError if prometheus-client does not write there."""
    path = Path(folder)
    if not path.is_dir() or client.values.ValueClass is client.values.MutexValue:
        raise ConfigurationError(
            f"Metrics: multiprocess={str(path)!r} must be an existing folder, which the "
            "environment variable PROMETHEUS_MULTIPROC_DIR names when the process starts."
        )
    return path


def _ended_processes(folder: Path) -> Iterator[int]:
    """The ids of processes that have ended, but left gauges of what they had in flight."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if os.name == "posix" and pid.isdecimal():
            try:
                os.kill(int(pid), 0)  # sends no signal
            except ProcessLookupError:
                yield int(pid)
            except PermissionError:
                continue
