"""A whole answer of GET /dashboard, to be changed by tests."""

import json

from tinkex_proxy.cli.told import Told, read

QUIET = {
    "now": 1_700_000_000.0,
    "ready": True,
    "obstacle": None,
    "version": {"upstream": "http://127.0.0.1:8466", "version": "1"},
    "recent": {
        "window_s": 60,
        "ok": 600,
        "failed": 0,
        "repeated": 3,
        "p50_ms": 12.5,
        "p95_ms": 1250.0,
        "p99_ms": None,
        "batches": 10,
        "batched_calls": 15,
    },
    "breakers": [],
    "moves": [],
    "lanes": [],
    "admission": {"calls_in_flight": 4},
    "losses": [],
    "troubles": [],
    "lanes_left_out": 0,
}


def verdict(side: str, grade: str, headline: str, *says: str) -> dict[str, object]:
    findings = [{"side": side, "grade": grade, "says": text} for text in says]
    return {"side": side, "grade": grade, "headline": headline, "findings": findings}


def lane(name: str, **fields: object) -> dict[str, object]:
    still = {
        "key_id": "k",
        "depth": 0,
        "held_back": 0,
        "oldest_wait_s": None,
        "on_wire_seq": None,
        "awaiting_results": 0,
        "next_seq": 1,
        "calls": 0,
        "requests": 0,
        "queue_state": None,
    }
    return {"model_id": name, **still, **fields}


def breaker(name: str, **fields: object) -> dict[str, object]:
    still = {
        "state": "closed",
        "consecutive_failures": 0,
        "failure_threshold": 5,
        "retry_after_s": 0.0,
        "counts": {"success": 1234, "failure": 2, "rejected": 1},
    }
    return {"id": name, **still, **fields}


def telling(**fields: object) -> Told:
    fine = verdict("nobody", "fine", "All is well.", "It answered all of 9 requests.")
    told = {**QUIET, "verdict": {"now": fine, "lately": fine}, **fields}
    return read(json.dumps(told).encode())
