"""`Tracing`: OpenTelemetry spans and metrics of exchanges.

Theory of operation. `Tracing` is a hook that observes exchanges which have ended. In the context of
the request, in which a host that is instrumented has its server span, it makes one span of kind
CLIENT with that parent, with the times of the usage record, and one child for each request to a
provider. So one logical operation is one span, fallbacks included, and nothing is added to the time
of a call. Names are those of the semantic conventions for generative AI, in one of two generations:

- `"0.1"`: https://github.com/open-telemetry/semantic-conventions-genai, v0.1.0;
- `"1.41"`: https://opentelemetry.io/docs/specs/semconv/gen-ai/ up to 1.41, which most instruments
  still send.

With `propagate`, the span begins before the call instead, and the requests to providers carry its
context, in the headers of the propagator of the process (`traceparent`, W3C Trace Context): for
servers of one's own, which continue the trace.

The SDK decides which spans are sampled, once it has made each; that takes some microseconds. With
`sampling_ratio` the hook decides before: calls that are not sampled cost next to nothing.

Texts of requests and responses are never part of a span. Attributes of our own begin with
`aiproxy.`. Without an SDK the API does nothing, so a package may always use this hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from random import random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.hooks.base import Call, Hook
from asgi_aiproxy.providers.telemetry_names import OPERATION_NAMES, PROVIDER_NAMES
from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

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
_NOT_BEGUN = object()


class Tracing(Hook):
    """A hook that makes spans and metrics of exchanges (extra `otel`).

    Arguments:

    - `tracer_provider`, `meter_provider`: default: those of the process
      (`opentelemetry.trace.set_tracer_provider`).
    - `conventions`: the generation of attribute names, `"1.41"` or `"0.1"`.
    - `principals`: whether the id of the caller is an attribute (`enduser.id`).
    - `propagate`: whether requests to providers carry the context of the trace.
    - `sampling_ratio`: the share of exchanges that have spans, from 0 to 1. Below 1, an exchange
      within a span of the host has one if that is sampled; the ratio is for those without. 1: the
      sampler of the SDK decides.

    Raises ConfigurationError if opentelemetry-api is missing, or an argument is invalid.
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
        sampling_ratio: float = 1.0,
    ) -> None:
        if not 0.0 <= sampling_ratio <= 1.0:
            raise ConfigurationError(
                f"Tracing: sampling_ratio must be from 0 to 1, not {sampling_ratio}."
            )
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
        self._inject = propagation.inject
        self._sampling_ratio = sampling_ratio
        if propagate:
            self.before = self._begin  # type: ignore[method-assign]
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

    async def _begin(self, call: Call) -> None:
        """Begin the span that is propagated, if it is sampled; else propagate that of the host."""
        context = self._context.get_current()
        if self not in call.state:  # (it runs again for each message of a WebSocket session)
            kind = self._trace.SpanKind.CLIENT
            sampled = self._is_sampled(context)
            call.state[self] = (
                self._tracer.start_span(call.operation, context, kind) if sampled else None
            )
        span = call.state[self]
        headers: dict[str, str] = {}
        sent = context if span is None else self._trace.set_span_in_context(span, context)
        self._inject(headers, sent)
        for name, value in headers.items():
            call.send_header(name, value)

    def _is_sampled(self, context: Context) -> bool:
        """Whether an exchange in this context has a span, unless the SDK decides otherwise."""
        if self._sampling_ratio >= 1.0:
            return True
        if context:
            parent = self._trace.get_current_span(context).get_span_context()
            if parent.is_valid:
                return parent.trace_flags.sampled
        return random() < self._sampling_ratio  # noqa: S311

    def observe(self, call: Call, record: UsageRecord) -> None:
        """Make the spans, and add to the metrics."""
        done = record.outcome is Outcome.DONE
        model = record.upstream_model or record.requested_model
        error = "" if done else _error_type(record)
        labels = _labels(record.operation, record.provider, model, record.model, error)
        context = self._context.get_current()
        span = call.state.get(self, _NOT_BEGUN)
        if span is _NOT_BEGUN:
            span = self._start(record, labels, context) if self._is_sampled(context) else None
        elif span is not None:
            span.update_name(_name(record, labels))
            span.set_attributes(labels.of_span)
        if span is not None:
            self._end(span, call, record)
        if not done and not record.provider:
            # A model that no provider serves must not become a series.
            labels = _labels(record.operation, "", "other", record.model, error)
        self._measure(record, labels)

    def _start(self, record: UsageRecord, labels: _Labels, context: Context) -> Span:
        return self._tracer.start_span(
            _name(record, labels),
            context,
            self._trace.SpanKind.CLIENT,
            labels.of_span,
            start_time=_nanoseconds(record.started),
        )

    def _end(self, span: Span, call: Call, record: UsageRecord) -> None:
        if span.is_recording():
            span.set_attributes(self._span_attributes(call, record))
            if record.attempt_details:
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
        members = call.members
        for name in _PARAMETERS.keys() & members.keys():
            value = _number(members[name])
            if value is not None:
                attributes[_PARAMETERS[name]] = value
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

    def _measure(self, record: UsageRecord, labels: _Labels) -> None:
        self._duration.record(record.duration, labels.of_span)
        if record.first_byte is not None:
            self._first.record(record.first_byte, labels.of_span)
        usage = record.usage
        if usage is None:
            return
        if self._conventions == "0.1":
            self._input.add(usage.input, labels.of_span)
            self._output.add(usage.output, labels.of_span)
        else:
            self._tokens.record(usage.input, labels.of_input)
            self._tokens.record(usage.output, labels.of_output)


class _Labels(NamedTuple):
    """Attributes of a span and its metrics, and of the metrics of tokens; not to be changed."""

    of_span: Mapping[str, str]
    of_input: Mapping[str, str]
    of_output: Mapping[str, str]


@lru_cache(maxsize=256)
def _labels(operation: str, provider: str, model: str, response_model: str, error: str) -> _Labels:
    """`model` is the requested one. Empty strings are left out."""
    attributes = {
        "gen_ai.operation.name": OPERATION_NAMES.get(operation, operation),
        "gen_ai.provider.name": PROVIDER_NAMES.get(provider, provider),
        "gen_ai.request.model": model,
    }
    if response_model:
        attributes["gen_ai.response.model"] = response_model
    if error:
        attributes["error.type"] = error
    of_input, of_output = ({**attributes, "gen_ai.token.type": t} for t in ("input", "output"))
    return _Labels(attributes, of_input, of_output)


def _name(record: UsageRecord, labels: _Labels) -> str:
    """The name of a span."""
    operation, model = labels.of_span["gen_ai.operation.name"], record.requested_model
    return f"{operation} {model}" if model else operation


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
