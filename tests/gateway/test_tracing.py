"""Traces, as a collector of OpenTelemetry's own protocol receives them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from appliance.routing import Routing
from tests.gateway.served import FakePort, Served, chat, key, route, serve
from tests.gateway.test_streaming import stats

CHAT = "/v1/chat/completions"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(
                    ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Not on the tests' output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    # The SDK itself reads it, too.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@contextmanager
def traced(engine: Path, collector: Collector) -> Iterator[Served]:
    """What has ended is with the collector once this is left."""
    table = Routing(routes={"tiny": route(engine)}, keys=(key("mine", "sk-mine"),))
    with serve(FakePort(table), environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}) as served:
        yield served


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_requests_span_is_the_child_of_the_clients_and_the_parent_of_the_engines(
    engine: Path, collector: Collector
) -> None:
    with traced(engine, collector) as served:
        headers = {"authorization": "Bearer sk-mine", "traceparent": PARENT, "tracestate": "vendor=1"}
        assert served.ask("POST", CHAT, chat(), headers).status == 200
        seen = stats(engine)["last_headers"]
        served.ask("GET", "/healthz")
    (span,) = collector.spans
    assert span.name == f"POST {CHAT}"
    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert seen["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
    assert seen["tracestate"] == "vendor=1"
    found = attributes(span)
    assert found["http.response.status_code"] == 200
    assert found["gen_ai.request.model"] == "tiny"
    assert found["gen_ai.usage.output_tokens"] > 0
    assert found["appliance.key"] == "mine"
    assert b"capital of France" not in span.SerializeToString()
    assert b"sk-mine" not in span.SerializeToString()


def test_a_request_without_a_trace_begins_one_and_a_failure_is_marked(engine: Path, collector: Collector) -> None:
    with traced(engine, collector) as served:
        served.ask("POST", CHAT, chat(fake={"status": 500}), {"authorization": "Bearer sk-mine"})
        served.ask("POST", CHAT, chat())
    failed, refused = collector.spans
    assert failed.parent_span_id == b""
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "engine_failed"
    assert attributes(refused)["error.type"] == "invalid_api_key"
    assert refused.status.code != Status.STATUS_CODE_ERROR  # the client's, not ours
    service = {
        each.key: each.value.string_value for each in collector.received[0].resource_spans[0].resource.attributes
    }
    assert service["service.name"] == "appliance"


def test_without_an_endpoint_the_clients_context_passes_and_nothing_is_imported(engine: Path) -> None:
    with serve(FakePort(Routing(routes={"tiny": route(engine)})), environ={"OTEL_SDK_DISABLED": "true"}) as served:
        served.ask("POST", CHAT, chat(), {"traceparent": PARENT})
        assert stats(engine)["last_headers"]["traceparent"] == PARENT
    code = (
        "import sys, appliance.gateway.app; print([m for m in sys.modules if m.startswith(('opentel', 'prometheus'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
