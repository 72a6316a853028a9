"""What Skerry's worker is measured beside: nginx, which passes or inspects with a certificate made before,
and mitmproxy.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.egress_ground import (
    AUTHORIZATION,
    BOUND,
    HTTP_BASE,
    PLACEHOLDER,
    SPLICED,
    VALUE,
    Ground,
    Seat,
    nginx,
    process,
    until,
)
from bench.egress_load import REPOSITORY

UNPOOLED = "/unpooled"
"""Prefix of paths for which nginx makes a new connection to the origin each time, as the others do."""

_MITMPROXY = REPOSITORY / "build" / "mitmproxy" / "bin" / "python"


@asynccontextmanager
async def nginx_splice(around: Ground, seat: Seat) -> AsyncIterator[int]:
    """nginx's stream module, which reads the name in the client's hello; its process number."""
    config = f"""
        stream {{
            map $ssl_preread_server_name $there {{ default ""; {SPLICED} 127.0.0.1:{around.port}; }}
            server {{ listen {seat.listens_at}; ssl_preread on; proxy_pass $there; }}
        }}
    """
    async with nginx("splice", around, config, seat, around.cores.proxy) as pid:
        yield pid


@asynccontextmanager
async def nginx_inspect(around: Ground, seat: Seat) -> AsyncIterator[int]:
    """nginx as a reverse proxy that sets the header, and shows the origin's own certificate; its number."""
    config = f"""
        http {{
            {HTTP_BASE}
            ssl_certificate {around.certificate};
            ssl_certificate_key {around.certificate};
            upstream pooled {{
                server 127.0.0.1:{around.port};
                keepalive 600; keepalive_requests 1000000000; keepalive_timeout 600s;
            }}
            map $http_authorization $genuine {{ default ""; "Bearer {PLACEHOLDER}" "{AUTHORIZATION}"; }}
            proxy_http_version 1.1;
            proxy_max_temp_file_size 0;
            proxy_ssl_name {BOUND};
            proxy_ssl_server_name on;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {around.roots};
            proxy_ssl_session_reuse off;
            server {{
                listen {seat.listens_at} ssl;
                proxy_set_header Host $http_host;
                proxy_set_header Authorization $genuine;
                proxy_set_header Connection "";
                location / {{ proxy_pass https://pooled; }}
                location /events {{ proxy_pass https://pooled; proxy_buffering off; }}
                location {UNPOOLED}/ {{ proxy_pass https://127.0.0.1:{around.port}/; }}
            }}
        }}
    """
    async with nginx("inspect", around, config, seat, around.cores.proxy) as pid:
        yield pid


def mitmproxy_roots(around: Ground) -> Path:
    """What clients of mitmproxy trust."""
    return around.directory / "mitmproxy" / "mitmproxy-ca-cert.pem"


@asynccontextmanager
async def mitmproxy(around: Ground, seat: Seat) -> AsyncIterator[int]:
    """mitmdump with an addon that replaces the placeholder and streams all bodies; its number."""
    settings = {
        "listener": seat.tcp.fileno(),
        "origin_port": around.port,
        "roots": str(around.roots),
        "directory": str(around.directory / "mitmproxy"),
        "placeholder": PLACEHOLDER,
        "value": VALUE,
    }
    (around.directory / "mitmproxy").mkdir()
    program = str(REPOSITORY / "bench" / "egress_mitmproxy.py")
    environment = {"BENCH_MITMPROXY": json.dumps(settings)}
    async with process(
        [str(_MITMPROXY), program],
        around.cores.proxy,
        descriptors=(seat.tcp.fileno(),),
        environment=environment,
    ) as pid:
        ready = around.directory / "mitmproxy" / "ready"
        await until(ready.exists, "mitmproxy did not start")
        yield pid
