"""Configuration of those that are not ours, each as one who knows the program would write it.

One worker or thread each, keep-alive towards the upstream for as many connections as there are
callers, no log of requests, and bodies that go up as they come instead of through a file.
"""

import json
import os
from pathlib import Path

CONNECTIONS = 8192

_NGINX = """
{user}worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {rest}
}}
"""
_PROXY = """
    upstream sink {{
        server {upstream};
        keepalive 4096;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://sink;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            client_body_buffer_size {buffer};
        }}
    }}
"""
_SINK = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            default_type application/json;
            return 200 '{answer}';
        }}
    }}
"""
_HAPROXY = """
global
    nbthread 1
    maxconn {connections}
    log stderr local0 err
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend callers
    bind 127.0.0.1:{port} backlog 4096
    default_backend sink
backend sink
    server sink {upstream} pool-max-conn 4096
"""


def nginx_proxy(folder: Path, port: int, upstream: str, buffer: str) -> list[str]:
    """Write nginx' configuration as a proxy; gives its options."""
    rest = _PROXY.format(port=port, upstream=_address(upstream), buffer=buffer)
    return _nginx(folder, rest)


def nginx_sink(folder: Path, port: int) -> list[str]:
    """Write nginx' configuration as an upstream that answers all the same."""
    answer = json.dumps({"request_id": "answered-without-a-look"})
    return _nginx(folder, _SINK.format(port=port, answer=answer))


def haproxy(folder: Path, port: int, upstream: str) -> list[str]:
    """Write HAProxy's configuration; gives its options."""
    file = folder / "haproxy.cfg"
    file.write_text(
        _HAPROXY.format(port=port, upstream=_address(upstream), connections=CONNECTIONS)
    )
    return ["-f", str(file)]


def litellm(folder: Path, port: int, upstream: str, path: str) -> list[str]:
    """Write LiteLLM's configuration with one pass-through endpoint; gives its options."""
    endpoint = {"path": path, "target": upstream + path, "headers": {}, "forward_headers": True}
    file = folder / "litellm.yaml"  # JSON is YAML
    settings = {"pass_through_endpoints": [endpoint]}
    file.write_text(json.dumps({"model_list": [], "general_settings": settings}))
    place = ["--host", "127.0.0.1", "--port", str(port)]
    return ["--config", str(file), *place, "--num_workers", "1"]


def _nginx(folder: Path, rest: str) -> list[str]:
    user = "user root;\n" if os.geteuid() == 0 else ""  # else its worker may not enter the folder
    text = _NGINX.format(user=user, folder=folder, connections=CONNECTIONS, rest=rest)
    file = folder / "nginx.conf"
    file.write_text(text)
    return ["-c", str(file), "-p", str(folder), "-e", "stderr"]


def _address(upstream: str) -> str:
    return upstream.removeprefix("http://")
