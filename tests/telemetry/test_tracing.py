"""Spans and metrics of exchanges, read back from the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asgi_aiproxy import AIShim, ConfigurationError, PassthroughProxy, ProviderRouter
from asgi_aiproxy.config.factory import build_app
from asgi_aiproxy.config.settings import Settings
from asgi_aiproxy.hooks import Call
from asgi_aiproxy.providers import GEMINI, GROQ, OPENAI
from asgi_aiproxy.telemetry.tracing import Tracing
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio

# Names of the two generations, from the documents that asgi_aiproxy.telemetry.tracing names.
NAMES = {
    "1.41": {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.request.temperature",
        "gen_ai.request.max_tokens",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "error.type",
    },
    "0.1": {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "gen_ai.response.model",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.request.temperature",
        "gen_ai.request.max_tokens",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "error.type",
    },
}


class Telemetry:
    def __init__(self, upstream: Upstream, *hooks: Any, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        tracing = Tracing(
            tracer_provider=self.provider,
            meter_provider=MeterProvider([self._reader]),
            **options,
        )
        first, second = GROQ.using("sk-secret-1"), GEMINI.using("sk-secret-2")
        router = ProviderRouter({"m": first, "both": [first, second]})
        self.shim = AIShim(
            router, transport=upstream.transport, hooks=[tracing, *hooks], attempts=2, backoff=0.0
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def metrics(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


@pytest.mark.parametrize("conventions", ["1.41", "0.1"])
async def test_an_exchange_is_one_span_below_the_span_of_the_host(conventions: Any) -> None:
    telemetry = Telemetry(Upstream(answers()), conventions=conventions)
    tracer = trace.get_tracer("host", tracer_provider=telemetry.provider)
    async with telemetry.shim:
        with tracer.start_as_current_span("POST /ai") as host:
            answer = await asgi.chat(telemetry.shim, temperature=0.5, max_tokens=7)
    assert answer.status == 200
    span = next(span for span in telemetry.spans if span.name == "chat m")
    assert span.parent is not None
    assert span.parent.span_id == host.get_span_context().span_id
    assert span.kind is trace.SpanKind.CLIENT
    found = attributes(span)
    assert {name: found[name] for name in list(found) if name in NAMES[conventions]} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "groq",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "gpt-test",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    } | (
        {
            "gen_ai.request.stream": False,
            "gen_ai.response.time_to_first_chunk": found.get("gen_ai.response.time_to_first_chunk"),
        }
        if conventions == "0.1"
        else {}
    )
    unknown = {n for n in found if not n.startswith("aiproxy.")} - NAMES[conventions]
    assert unknown == set()
    assert answer.header("aiproxy-request-id") == found["aiproxy.request_id"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= span.end_time


async def test_attempts_are_children_with_their_times_and_causes() -> None:
    telemetry = Telemetry(Upstream(refuses(500), refuses(503)))
    async with telemetry.shim:
        assert (await asgi.chat(telemetry.shim, model="both")).status in (502, 503)
    (parent,) = [span for span in telemetry.spans if span.name == "chat both"]
    children = [span for span in telemetry.spans if span is not parent]
    assert len(children) == attributes(parent)["aiproxy.attempts"] >= 2
    context = parent.get_span_context()
    assert context is not None
    for number, child in enumerate(children, 1):
        assert child.parent is not None
        assert child.parent.span_id == context.span_id
        assert attributes(child)["aiproxy.attempt"] == number
        assert attributes(child)["http.response.status_code"] in (500, 503)
        assert child.status.status_code is trace.StatusCode.ERROR
    starts = [child.start_time for child in children]
    assert starts == sorted(starts)  # type: ignore[type-var]
    assert parent.status.status_code is trace.StatusCode.ERROR
    assert attributes(parent)["error.type"] in ("502", "503")


@pytest.mark.parametrize("conventions", ["1.41", "0.1"])
async def test_metrics_have_the_names_and_units_of_the_conventions(conventions: Any) -> None:
    telemetry = Telemetry(Upstream(streams()), conventions=conventions)
    async with telemetry.shim:
        assert (await asgi.chat(telemetry.shim, stream=True)).status == 200
    metrics = telemetry.metrics()
    if conventions == "1.41":
        assert set(metrics) == {
            "gen_ai.client.operation.duration",
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.client.token.usage",
        }
        sums = {
            p.attributes["gen_ai.token.type"]: p.sum for p in metrics["gen_ai.client.token.usage"]
        }
        assert sums == {"input": 3, "output": 2}
    else:
        prefix = "gen_ai.client.inference"
        names = ("duration", "time_to_first_chunk", "usage.input_tokens", "usage.output_tokens")
        assert set(metrics) == {f"{prefix}.{name}" for name in names}
        assert metrics[f"{prefix}.usage.output_tokens"][0].value == 2


async def test_spans_hold_no_texts_and_no_secrets() -> None:
    telemetry = Telemetry(Upstream(answers()))
    async with telemetry.shim:
        prompt = [{"role": "user", "content": "a private prompt"}]
        assert (await asgi.chat(telemetry.shim, messages=prompt)).status == 200
    text = "".join(span.to_json() for span in telemetry.spans)
    assert "private" not in text
    assert "Hello" not in text
    assert "sk-secret" not in text


async def test_what_another_hook_refuses_has_a_span_and_junk_models_no_series() -> None:
    async def refuse(call: Call) -> None:
        call.refuse("No.")

    telemetry = Telemetry(Upstream(answers()), refuse)
    async with telemetry.shim:
        for number in range(20):
            assert (await asgi.chat(telemetry.shim, model=f"junk-{number}")).status == 403
    assert [attributes(span)["error.type"] for span in telemetry.spans] == ["403"] * 20
    assert len(telemetry.metrics()["gen_ai.client.operation.duration"]) == 1


async def test_serve_makes_spans_if_the_configuration_says_so() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # as OpenTelemetry's launcher does
    settings = Settings(
        providers={"groq": {"keys": ["sk-x"], "base_url": "http://127.0.0.1:1/v1"}},
        otel=True,
        attempts=1,
    )
    app = build_app(settings)
    async with app:  # type: ignore[attr-defined]
        assert (await asgi.chat(app)).status == 502
    assert "chat m" in {span.name for span in exporter.get_finished_spans()}


def test_unknown_conventions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"0\.1, 1\.41"):
        Tracing(conventions="2")  # type: ignore[arg-type]


@pytest.mark.parametrize("app", ["shim", "proxy"])
async def test_the_context_of_the_trace_is_propagated_on_demand(app: str) -> None:
    upstream = Upstream(refuses(500), answers())
    telemetry = Telemetry(upstream, propagate=True)
    target: Any = telemetry.shim
    if app == "proxy":
        tracing = Tracing(tracer_provider=telemetry.provider, propagate=True)
        target = PassthroughProxy(
            OPENAI.using("sk-1"), transport=upstream.transport, hooks=[tracing]
        )
    body = {"model": "both", "messages": [{"role": "user", "content": "Hi"}]}
    with telemetry.provider.get_tracer("host").start_as_current_span("server") as server:
        async with target:
            await asgi.request(target, "POST", "/v1/chat/completions", body)
    parent = server.get_span_context()
    span = next(span for span in telemetry.spans if span.parent is not None)
    assert span.parent is not None
    assert (span.parent.span_id, span.context.trace_id) == (parent.span_id, parent.trace_id)
    expected = f"00-{parent.trace_id:032x}-{span.context.span_id:016x}-{parent.trace_flags:02x}"
    assert {request.headers["traceparent"] for request in upstream.requests} == {expected}
    assert attributes(span)["aiproxy.request_id"]


async def test_without_propagation_no_context_leaves_the_gateway() -> None:
    upstream = Upstream(answers())
    telemetry = Telemetry(upstream)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with telemetry.shim:
        headers = {"traceparent": f"00-{1:032x}-{1:016x}-01"}
        path = "/v1/chat/completions"
        await asgi.request(telemetry.shim, "POST", path, body, headers=headers)
    assert "traceparent" not in upstream.requests[0].headers


@pytest.mark.parametrize(("sampled", "spans"), [(True, 5), (False, 0)])
async def test_with_a_ratio_a_call_within_a_span_of_the_host_follows_that(
    sampled: bool, spans: int
) -> None:
    telemetry = Telemetry(Upstream(answers()), sampling_ratio=0.5)
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else 0)
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=flags))
    async with telemetry.shim:
        with trace.use_span(parent):
            for _ in range(5):
                assert (await asgi.chat(telemetry.shim)).status == 200
    assert [span.parent.span_id for span in telemetry.spans if span.parent] == [2] * spans
    assert telemetry.metrics()["gen_ai.client.operation.duration"][0].count == 5


@pytest.mark.parametrize("propagate", [False, True])
async def test_without_a_span_of_the_host_the_ratio_is_the_share_of_calls_with_spans(
    monkeypatch: pytest.MonkeyPatch, propagate: bool
) -> None:
    chances = iter([0.1, 0.25, 0.9, 0.0])
    monkeypatch.setattr("asgi_aiproxy.telemetry.tracing.random", lambda: next(chances))
    upstream = Upstream(answers())
    telemetry = Telemetry(upstream, sampling_ratio=0.25, propagate=propagate)
    async with telemetry.shim:
        for number in range(4):
            body = {"model": "m", "messages": [], "user": str(number)}
            await asgi.request(telemetry.shim, "POST", "/v1/chat/completions", body)
    assert [attributes(span)["gen_ai.conversation.id"] for span in telemetry.spans] == ["0", "3"]
    sent = ["traceparent" in request.headers for request in upstream.requests]
    assert sent == [propagate, False, False, propagate]


@pytest.mark.parametrize("ratio", [-0.1, 1.5])
def test_a_ratio_is_from_0_to_1(ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="sampling_ratio must be from 0 to 1"):
        Tracing(sampling_ratio=ratio)
