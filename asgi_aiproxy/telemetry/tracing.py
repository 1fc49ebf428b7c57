"""`Tracing`: OpenTelemetry spans and metrics of exchanges.

Theory of operation. `Tracing` is a hook. Before a call it keeps the current context, in which a
host that is instrumented has its server span; after the exchange it makes one span of kind CLIENT
with that parent, with the times of the usage record, and one child for each request to a provider.
So one logical operation is one span, fallbacks included, and nothing is added to the time of a
call. Names are those of the semantic conventions for generative AI, in one of two generations:

- `"0.1"`: https://github.com/open-telemetry/semantic-conventions-genai, v0.1.0;
- `"1.41"`: https://opentelemetry.io/docs/specs/semconv/gen-ai/ up to 1.41, which most instruments
  still send.

With `propagate`, the span begins before the call instead, and the requests to providers carry its
context, in the headers of the propagator of the process (`traceparent`, W3C Trace Context): for
servers of one's own, which continue the trace.

Texts of requests and responses are never part of a span. Attributes of our own begin with
`aiproxy.`. Without an SDK the API does nothing, so a package may always use this hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.hooks.base import Call, Hook
from asgi_aiproxy.providers.telemetry_names import OPERATION_NAMES, PROVIDER_NAMES
from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

Conventions = Literal["0.1", "1.41"]

# Members of requests that are attributes, by the name of the attribute.
_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
}
_TOKENS: Mapping[Conventions, Mapping[str, str]] = {
    "0.1": {
        "input": "gen_ai.usage.input_tokens",
        "output": "gen_ai.usage.output_tokens",
        "cache_read": "gen_ai.usage.cache_read.input_tokens",
        "cache_write": "gen_ai.usage.cache_write.input_tokens",
        "reasoning": "gen_ai.usage.reasoning.output_tokens",
    },
    "1.41": {
        "input": "gen_ai.usage.input_tokens",
        "output": "gen_ai.usage.output_tokens",
        "cache_read": "gen_ai.usage.cache_read.input_tokens",
        "cache_write": "gen_ai.usage.cache_creation.input_tokens",
    },
}
_NANOSECONDS = 1_000_000_000
_MAX_ERROR_CHARACTERS = 500


class Tracing(Hook):
    """A hook that makes spans and metrics of exchanges (extra `otel`).

    Arguments:

    - `tracer_provider`, `meter_provider`: default: those of the process
      (`opentelemetry.trace.set_tracer_provider`).
    - `conventions`: the generation of attribute names, `"1.41"` or `"0.1"`.
    - `principals`: whether the id of the caller is an attribute (`enduser.id`).
    - `propagate`: whether requests to providers carry the context of the trace.

    Raises ConfigurationError if opentelemetry-api is missing, or `conventions` is unknown.
    """

    on_failure = "open"

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        conventions: Conventions = "1.41",
        principals: bool = False,
        propagate: bool = False,
    ) -> None:
        if conventions not in _TOKENS:
            raise ConfigurationError(
                f"Tracing: conventions is one of {', '.join(_TOKENS)}, not {conventions!r}."
            )
        try:
            from opentelemetry import context, metrics, propagate as propagation, trace
        except ImportError as error:
            raise ConfigurationError(
                f"Tracing requires opentelemetry-api: pip install 'asgi-aiproxy[otel]'. ({error})"
            ) from error
        from asgi_aiproxy import __version__

        self._context, self._trace = context, trace
        self._inject = propagation.inject if propagate else None
        self._tracer = trace.get_tracer("asgi_aiproxy", __version__, tracer_provider)
        self._conventions = conventions
        self._principals = principals
        meter = metrics.get_meter("asgi_aiproxy", __version__, meter_provider)
        prefix = "gen_ai.client.inference" if conventions == "0.1" else "gen_ai.client.operation"
        self._duration = meter.create_histogram(
            f"{prefix}.duration", "s", "Duration of exchanges, with all requests to providers."
        )
        self._first = meter.create_histogram(
            f"{prefix}.time_to_first_chunk", "s", "Time until the first content."
        )
        if conventions == "0.1":
            self._input = meter.create_counter(f"{prefix}.usage.input_tokens", "{token}")
            self._output = meter.create_counter(f"{prefix}.usage.output_tokens", "{token}")
        else:
            self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")

    async def before(self, call: Call) -> None:
        """Keep the context of the request, or begin the span that is propagated."""
        context = self._context.get_current()
        if self._inject is None:
            call.state[self] = context
            return
        span = call.state.get(self)
        if span is None:  # (it runs again for each message of a WebSocket session)
            span = self._tracer.start_span(call.operation, context, self._trace.SpanKind.CLIENT)
            call.state[self] = span
        headers: dict[str, str] = {}
        self._inject(headers, self._trace.set_span_in_context(span, context))
        for name, value in headers.items():
            call.send_header(name, value)

    def observe(self, call: Call, record: UsageRecord) -> None:
        """Make the spans, and add to the metrics."""
        done = record.outcome is Outcome.DONE
        model = record.upstream_model or record.requested_model
        error = "" if done else _error_type(record)
        shared = _shared_attributes(record.operation, record.provider, model, record.model, error)
        self._make_spans(call, record, shared)
        if not done and not record.provider:
            # A model that no provider serves must not become a series.
            shared = _shared_attributes(record.operation, "", "other", record.model, error)
        self._measure(record, shared)

    def _make_spans(self, call: Call, record: UsageRecord, shared: Mapping[str, Any]) -> None:
        operation, model = shared["gen_ai.operation.name"], record.requested_model
        name = f"{operation} {model}" if model else operation
        kept = call.state.get(self)
        if self._inject is not None and kept is not None:
            span = kept
            span.update_name(name)
            span.set_attributes(shared)
        else:
            span = self._tracer.start_span(
                name,
                kept,
                self._trace.SpanKind.CLIENT,
                shared,
                start_time=_nanoseconds(record.started),
            )
        if span.is_recording():
            span.set_attributes(self._span_attributes(call, record))
            parent = self._trace.set_span_in_context(span)
            for number, attempt in enumerate(record.attempt_details, 1):
                self._make_attempt_span(parent, number, attempt, record)
            if record.outcome is not Outcome.DONE:
                message = record.error[:_MAX_ERROR_CHARACTERS]
                span.set_status(self._trace.StatusCode.ERROR, message)
        span.end(_nanoseconds(record.started + record.duration))

    def _span_attributes(self, call: Call, record: UsageRecord) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "aiproxy.request_id": record.request_id,
            "aiproxy.face": record.face,
            "aiproxy.outcome": record.outcome.value,
            "aiproxy.attempts": record.attempts,
        }
        for name, attribute in _PARAMETERS.items():
            value = _number(call.members.get(name))
            if value is not None:
                attributes[attribute] = value
        if self._conventions == "0.1":
            attributes["gen_ai.request.stream"] = call.stream
        if record.first_byte is not None:
            first = "gen_ai.response.time_to_first_chunk"
            own = first if self._conventions == "0.1" else "aiproxy.time_to_first_chunk"
            attributes[own] = record.first_byte
        if record.usage is not None:
            for name, attribute in _TOKENS[self._conventions].items():
                count = getattr(record.usage, name)
                if count or name in ("input", "output"):
                    attributes[attribute] = count
            attributes["aiproxy.usage.estimated"] = record.estimated
        attributes |= _label_attributes(record)
        if record.key_id:
            attributes["aiproxy.key_id"] = record.key_id
        if record.cost is not None:
            attributes["aiproxy.cost_micro_dollars"] = record.cost
        if self._principals and record.principal:
            attributes["enduser.id"] = record.principal
        return attributes

    def _make_attempt_span(
        self, parent: Any, number: int, attempt: Attempt, record: UsageRecord
    ) -> None:
        began = record.started + attempt.started
        attributes: dict[str, Any] = {
            "gen_ai.provider.name": PROVIDER_NAMES.get(attempt.provider, attempt.provider),
            "gen_ai.request.model": attempt.model,
            "aiproxy.attempt": number,
            "aiproxy.key_id": attempt.key_id,
        }
        if attempt.status:
            attributes["http.response.status_code"] = attempt.status
        if attempt.error:
            attributes["error.type"] = attempt.code or str(attempt.status or "no_response")
        span = self._tracer.start_span(
            f"attempt {attempt.provider}",
            parent,
            self._trace.SpanKind.CLIENT,
            attributes,
            start_time=_nanoseconds(began),
        )
        if attempt.error:
            message = attempt.error[:_MAX_ERROR_CHARACTERS]
            span.set_status(self._trace.StatusCode.ERROR, message)
        span.end(_nanoseconds(began + attempt.seconds))

    def _measure(self, record: UsageRecord, shared: Mapping[str, Any]) -> None:
        self._duration.record(record.duration, shared)
        if record.first_byte is not None:
            self._first.record(record.first_byte, shared)
        usage = record.usage
        if usage is None:
            return
        if self._conventions == "0.1":
            self._input.add(usage.input, shared)
            self._output.add(usage.output, shared)
        else:
            self._tokens.record(usage.input, {**shared, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output, {**shared, "gen_ai.token.type": "output"})


@lru_cache(maxsize=256)
def _shared_attributes(
    operation: str, provider: str, model: str, response_model: str, error: str
) -> Mapping[str, str]:
    """The attributes of spans and metrics; they must not be changed.

    `model` is the requested one. Empty strings are left out.
    """
    attributes = {
        "gen_ai.operation.name": OPERATION_NAMES.get(operation, operation),
        "gen_ai.provider.name": PROVIDER_NAMES.get(provider, provider),
        "gen_ai.request.model": model,
    }
    if response_model:
        attributes["gen_ai.response.model"] = response_model
    if error:
        attributes["error.type"] = error
    return attributes


def _error_type(record: UsageRecord) -> str:
    left = record.outcome is Outcome.CLIENT_DISCONNECTED
    return "client_disconnected" if left else str(record.status)


def _label_attributes(record: UsageRecord) -> dict[str, str]:
    """The session and the tags of an exchange."""
    session = {"gen_ai.conversation.id": record.session} if record.session else {}
    return session | {f"aiproxy.tag.{name}": value for name, value in record.tags.items()}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)


def _number(raw: msgspec.Raw | None) -> int | float | None:
    """The number that a member of a request is; None if it is anything else."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=int | float)
    except (msgspec.DecodeError, UnicodeError):
        return None
