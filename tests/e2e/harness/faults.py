"""A TCP proxy between the program and a broker or an object store, that breaks the way between them in chosen ways.

Everything passes until `mode` says otherwise; a mode holds for connections that are open as well as for new ones.

`PASS`         as it is
`DELAY`        each piece of bytes waits for a fraction of a second
`SLOW`         a few kilobytes a second
`HANG`         half-open: connections stay, and nothing comes through any more
`CUT`          connections are reset, and new ones too
`LOSE_ANSWERS` what the program sends arrives; of the answer nothing does, and the connection ends
`ERRORS`       for HTTP: each request is answered with 500 and not handed on
"""

import contextlib
import socket
import struct
import threading

PASS, DELAY, SLOW, HANG, CUT, LOSE_ANSWERS, ERRORS = "pass", "delay", "slow", "hang", "cut", "lose answers", "errors"

DELAY_SECONDS = 0.3
SLOW_BYTES, SLOW_SECONDS = 2048, 0.25
PIECE = 64 << 10
ERROR_BODY = b"<Error><Code>InternalError</Code><Message>-</Message></Error>"
ERROR_ANSWER = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(ERROR_BODY), ERROR_BODY)
)


class FaultProxy:
    """Use as a context manager; `address` is where the program is pointed at. `upstream` may change while it runs."""

    def __init__(self, upstream, port=0):
        self.upstream = upstream
        self.changed = threading.Condition()
        self._mode = PASS
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = self._listener.getsockname()
        self.connections = 0

    @property
    def mode(self):
        return self._mode

    @mode.setter
    def mode(self, mode):
        with self.changed:
            self._mode = mode
            self.changed.notify_all()
        if mode == CUT:
            for end in list(self._open):
                reset(end)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        self.mode = CUT

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        if self.mode == CUT:
            reset(client)
            return
        try:
            server = socket.create_connection(self.upstream, timeout=5)
            server.settimeout(None)
        except OSError:
            reset(client)
            return
        self._open |= {client, server}
        pumps = [
            threading.Thread(target=self._pump, args=pair, daemon=True)
            for pair in ((client, server, True), (server, client, False))
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source, target, is_request):
        """Hands bytes on until one side ends; both ends are then told."""
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                if not self._hand_on(data, source, target, is_request):
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _hand_on(self, data, source, target, is_request):
        mode = self.mode
        if mode == HANG:
            with self.changed:
                self.changed.wait_for(lambda: self._mode != HANG)
            mode = self.mode
        if mode == CUT or (mode == LOSE_ANSWERS and not is_request):
            return False
        if mode == ERRORS:
            if is_request:
                source.sendall(ERROR_ANSWER)
            return False
        if mode == DELAY:
            self._let_pass(DELAY_SECONDS)
        while mode == SLOW and data:
            target.sendall(data[:SLOW_BYTES])
            data = data[SLOW_BYTES:]
            mode = SLOW if self._let_pass(SLOW_SECONDS) else self.mode
        target.sendall(data)
        return True

    def _let_pass(self, seconds):
        """Lets time pass, which is the fault itself; less if the mode changes meanwhile. True: it is still the same."""
        mode = self.mode
        with self.changed:
            return not self.changed.wait_for(lambda: self._mode != mode, seconds)


def reset(end):
    """Ends a connection with RST, as a firewall or a dying machine does."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Wakes who reads from it; the closing is what resets.
        end.shutdown(socket.SHUT_RD)
    end.close()
