"""An HTTP proxy on loopback that answers wrongly where a test wants it: refusals in S3's words, bodies cut, held, changed or dropped.

`faulty_proxy(port)` stands in front of a real S3. A `Fault` meets GETs whose path contains `path`, `times` of them; all else goes through.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Kind = Literal["500", "503", "expired", "reset", "truncated", "stalled", "wrong"]

_REFUSALS = {"500": (500, "InternalError"), "503": (503, "SlowDown"), "expired": (403, "ExpiredToken")}
_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding"})


@dataclass
class Fault:
    """What happens, to which GETs, how often; a body is let through up to `after` bytes first."""

    kind: Kind
    path: str
    times: int
    after: int = 1000
    met: int = 0


@dataclass
class Faults:
    """The proxy's port, its faults, and `released`, which lets stalled bodies end."""

    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that meets this request."""
        with self.lock:
            for one in self.faults:
                if method == "GET" and one.path in path and one.met < one.times:
                    one.met += 1
                    return one
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.faults.take(self.command, self.path)
        if fault is not None and fault.kind in _REFUSALS:
            status, code = _REFUSALS[fault.kind]
            self._answer(status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode())
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS}
            content = b"" if self.command == "HEAD" else answer.read()
            self._answer(answer.status, headers, content, fault)
        finally:
            upstream.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: Fault | None = None) -> None:
        self.send_response_only(status)
        length = headers.pop("Content-Length", None) if self.command == "HEAD" else str(len(content))
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        if length is not None and status not in {204, 304}:
            self.send_header("Content-Length", length)
        self.end_headers()
        if fault is None:
            self.wfile.write(content)
            return
        place = min(fault.after, len(content) // 2)
        if fault.kind == "wrong":
            self.wfile.write(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            return
        self.wfile.write(content[:place])
        self.wfile.flush()
        if fault.kind == "stalled":
            self.server.faults.released.wait()
        if fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815 -- the names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: int, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.faults = upstream, faults
        faults.port = int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is what these tests do."""

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):
            request.close()  # without shutdown(), so that a lingering close resets


@contextmanager
def faulty_proxy(port: int) -> Iterator[Faults]:
    """A proxy in front of a loopback port."""
    faults = Faults()
    server = _Server(port, faults)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        faults.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
