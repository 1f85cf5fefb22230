"""An OTLP collector as a process: takes spans over HTTP, and shows as JSON what it has taken.

POST /v1/traces      takes an ExportTraceServiceRequest
GET /spans           what came, and the headers that it came with
POST /mode/{mode}    take | refuse (503) | hang (answers nothing until told otherwise)
"""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


def read(body: bytes) -> list[dict[str, object]]:
    """The spans of one request, as JSON, ids in hexadecimal."""
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        said = {a.key: a.value.string_value for a in resource.resource.attributes}
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            fields = MessageToDict(span, preserving_proto_field_name=True)
            fields |= {
                "resource": said,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent_span_id": span.parent_span_id.hex(),
                "links": [[link.trace_id.hex(), link.span_id.hex()] for link in span.links],
                "start_ns": span.start_time_unix_nano,
                "end_ns": span.end_time_unix_nano,
            }
            found.append(fields)
    return found


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    spans: list[dict[str, object]] = []  # noqa: RUF012 - one process, one collector
    headers_seen: list[dict[str, str]] = []  # noqa: RUF012
    bodies: list[str] = []  # noqa: RUF012
    mode = "take"
    awake = threading.Event()

    def do_GET(self) -> None:
        cls = type(self)
        self.answer(
            200,
            json.dumps(
                {"spans": cls.spans, "headers": cls.headers_seen, "bodies": cls.bodies}
            ).encode(),
        )

    def do_POST(self) -> None:
        cls = type(self)
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.path.startswith("/mode/"):
            cls.mode = self.path.rpartition("/")[2]
            if cls.mode != "hang":
                cls.awake.set()
            return self.answer(200, b"{}")
        if self.path != "/v1/traces":
            return self.answer(404, b"")
        if cls.mode == "hang":
            cls.awake.wait(60)
        if cls.mode == "refuse":
            return self.answer(503, b"")
        cls.headers_seen.append({k.lower(): v for k, v in self.headers.items()})
        cls.bodies.append(base64.b64encode(body).decode())
        cls.spans += read(body)
        return self.answer(200, ExportTraceServiceResponse().SerializeToString())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
