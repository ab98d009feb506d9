"""One OpenTelemetry span per request: the child of the client's, and the parent of the engine's.

The extra `otel` is imported here, and this module only where OTEL_EXPORTER_OTLP_ENDPOINT is set. The SDK's other
variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …) mean what they do everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from appliance.gateway.call import Call
from appliance.gateway.health import PATHS

CONTEXT = ("traceparent", "tracestate")


class Tracing:
    def __init__(self, version: str, environ: Mapping[str, str]) -> None:
        name = {} if "OTEL_SERVICE_NAME" in environ else {"service.name": "appliance"}
        self._provider = TracerProvider(resource=Resource.create({**name, "service.version": version}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("appliance.gateway", version)
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[Call, Span] = {}

    def begun(self, call: Call) -> None:
        """From here on the request's own trace headers are those of its span, so the engine is told of that."""
        if call.path in PATHS:
            return
        given = {name: call.headers.pop(name.encode(), b"").decode("latin-1") for name in CONTEXT}
        span = self._tracer.start_span(
            f"{call.method} {call.path}",
            context=self._propagator.extract(given),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": call.method,
                "url.path": call.path,
                "appliance.request_id": call.id.decode(),
            },
        )
        passed: dict[str, str] = {}
        self._propagator.inject(passed, set_span_in_context(span))
        call.headers.update({name.encode(): value.encode("latin-1") for name, value in passed.items()})
        self._spans[call] = span

    def ended(self, call: Call) -> None:
        span = self._spans.pop(call, None)
        if span is None:
            return
        if call.status:
            span.set_attribute("http.response.status_code", call.status)
        if call.model is not None:
            span.set_attribute("gen_ai.request.model", call.model)
        if call.revision is not None:
            span.set_attribute("appliance.revision", call.revision)
        if call.key is not None:
            span.set_attribute("appliance.key", call.key.name)
        if call.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", call.usage.prompt)
            span.set_attribute("gen_ai.usage.output_tokens", call.usage.completion)
        if call.aborted:
            span.set_attribute("appliance.aborted", True)
        if call.error is not None:
            span.set_attribute("error.type", call.error)
            if call.status >= 500 or call.streaming:
                span.set_status(StatusCode.ERROR)
        span.end()

    async def close(self) -> None:
        """Sends what is left, for as long as the exporter's own timeout lets it."""
        await asyncio.to_thread(self._provider.shutdown)
