"""How soon a call is answered that an open breaker refuses. Run by `make bench-breaker`.

The real processes, a sandbox and a proxy in front of it; one kept-alive connection over a raw
socket, so that the client's own cost is a few microseconds; one call after another. The breaker is
forced open by its route, as an operator would. What it is held against: under 1 ms at the median.
"""

import json
import re
import socket
import statistics
import time

from tests.processes import processes

WARM, CALLS = 300, 3_000
WANTED_MS = 1.0


class Client:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._host = f"{host}:{port}"
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """One request as it goes over the wire."""
        raw = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\nx-api-key: tml-bench\r\n"
            f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
        )
        return head.encode() + raw

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send it; gives status and body."""
        self._socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None, head
        while len(body) < int(length[1]):
            body += self._more()
        return int(head[9:12]), body

    def _more(self) -> bytes:
        piece = self._socket.recv(65536)
        assert piece, "the connection was closed"
        return piece

    def measured(self, name: str, request: bytes, status: int) -> float:
        """Print what it took; gives the median in milliseconds."""
        took = []
        for number in range(WARM + CALLS):
            began = time.perf_counter()
            answered, body = self.ask(request)
            ended = time.perf_counter()
            assert answered == status, body
            if number >= WARM:
                took.append((ended - began) * 1000)
        cuts = statistics.quantiles(took, n=100)
        print(f"{name:44s} p50 {cuts[49]:6.3f} ms, p99 {cuts[98]:6.3f} ms ({CALLS} calls)")
        return cuts[49]


def calls(client: Client, model_id: str) -> dict[str, bytes]:
    """Calls of each face that a breaker refuses."""
    tokens = list(range(64))
    datum = {"tokens": tokens, "targets": tokens, "weights": [1.0] * 64}
    sampled = {"prompt": {"chunks": [{"type": "encoded_text", "tokens": tokens}]}, "seq_id": 1}
    bodies = {
        "/v1/models": {"base_model": "sandbox/tiny-1"},
        "/v1/forward_backward": {"model_id": model_id, "data": [datum]},
        "/v1/optim_step": {"model_id": model_id, "adam_params": {"learning_rate": 1e-4}},
        "/v1/sample": {"base_model": "sandbox/tiny-1", "prompt": tokens},
        "/api/v1/create_session": {"tags": [], "sdk_version": "0.38.0"},
        "/api/v1/asample": {"sampling_session_id": "s", **sampled},
    }
    return {path: client.request("POST", path, body) for path, body in bodies.items()}


def main() -> None:
    """Print what refusals take, beside an answer that needs no breaker."""
    with processes() as start:
        upstream = start("sandbox", "--port", "0").url
        serve = ("serve", "--port", "0", "--log.level", "error", "--upstream.base-url", upstream)
        client = Client(start(*serve).url)
        status, raw = client.ask(
            client.request("POST", "/v1/models", {"base_model": "sandbox/tiny-1", "rank": 8})
        )
        assert status == 200, raw
        model_id = json.loads(raw)["model_id"]
        breakers = json.loads(client.ask(client.request("GET", "/breakers"))[1])["breakers"]
        for breaker in breakers:
            client.ask(client.request("POST", f"/breakers/{breaker['id']}/open"))
        client.measured("GET /health/live", client.request("GET", "/health/live"), 200)
        slowest = 0.0
        for path, request in calls(client, model_id).items():
            status = 429 if path.endswith("asample") else 503
            slowest = max(slowest, client.measured(f"refused POST {path}", request, status))
    verdict = "under" if slowest < WANTED_MS else "NOT under"
    print(f"The slowest median is {slowest:.3f} ms: {verdict} {WANTED_MS:g} ms.")


if __name__ == "__main__":
    main()
