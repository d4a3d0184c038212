"""A TCP proxy on loopback that breaks connections where a test wants it: cut or held after so many bytes towards the client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 16 << 10


class Proxy:
    """Forwards to `upstream`. `cut_after` ends each connection after so many answered bytes; `hold_after` stops answering there until
    `release`, for all connections together. Both count from when they are set."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_after: int | None = None
        self.cuts = 0
        self.answered_bytes = 0
        self.held = threading.Event()
        self._hold_left: int | None = None
        self._released = threading.Event()
        self._released.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, count: int) -> None:
        """Let so many bytes through, then nothing until `release`; `held` is set when that happens."""
        self.held.clear()
        self._released.clear()
        with self._lock:
            self._hold_left = count

    def release_new(self) -> None:
        """Hold no more than is held already."""
        with self._lock:
            self._hold_left = None

    def release(self) -> None:
        """Hold nothing any more."""
        self.release_new()
        self._released.set()

    def close(self) -> None:
        self.release()
        self._listener.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # it is closed
                return
            try:
                server = socket.create_connection(self._upstream)
            except OSError:  # nobody is there, yet or any more
                client.close()
                continue
            self._open |= {client, server}
            threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        left: int | None = None
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if answers:
                    self._maybe_hold(len(data))
                    self.answered_bytes += len(data)
                    left = self.cut_after if left is None else left
                    if left is not None and len(data) > left:
                        sink.sendall(data[:left])
                        self.cuts += 1
                        break
                    left = None if left is None else left - len(data)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._open.discard(one)

    def _maybe_hold(self, count: int) -> None:
        with self._lock:
            if self._hold_left is None:
                return
            self._hold_left -= count
            holds = self._hold_left < 0
        if holds:
            self.held.set()
            self._released.wait()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy in front of a loopback port."""
    proxy = Proxy(("127.0.0.1", port))
    try:
        yield proxy
    finally:
        proxy.close()
