"""HTTP as exact as the tests need it: any header, chunked bodies, raw bytes, HTTP/2 without TLS.

`send` is for requests that are well-formed, `raw` for those that no client library would make.
"""

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and body of one response."""

    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


def chunks_of(body, size=1000):
    return [body[at : at + size] for at in range(0, len(body), size)]


def as_bytes(body):
    if body is None or isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


class Wire:
    """One keep-alive connection that sends exactly the headers that it is given, besides `Host` and the length."""

    def __init__(self, address, timeout=TIMEOUT_SECONDS):
        self.connection = http.client.HTTPConnection(*address, timeout=timeout)

    def send(self, method, path, body=None, headers=None, chunked=False):
        """`body`: bytes, text, or anything that `json.dumps` takes."""
        body, given = as_bytes(body), {name.lower() for name in headers or {}}
        connection = self.connection
        connection.putrequest(method, path, skip_host="host" in given, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None and "content-length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(chunks_of(body) if chunked else body, encode_chunked=chunked)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def close(self):
        self.connection.close()


def send(address, method, path, body=None, headers=None, chunked=False, timeout=TIMEOUT_SECONDS):
    """One request on a connection of its own."""
    with contextlib.closing(Wire(address, timeout)) as wire:
        return wire.send(method, path, body, headers, chunked)


def _drain(connection):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def raw(address, payload, half_close=False, timeout=TIMEOUT_SECONDS):
    """Sends bytes and returns all that comes back until the server closes. `payload`: bytes or an iterable of them.

    A server may answer and close before it has read everything; what it answered by then is returned.
    """
    with socket.create_connection(address, timeout=timeout) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in [payload] if isinstance(payload, bytes) else payload:
                connection.sendall(part)
        with contextlib.suppress(OSError):
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return _drain(connection)


def statuses(text):
    """The status codes in the bytes of one or more HTTP/1.1 responses."""
    return [int(line.split(b" ")[1]) for line in text.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def read_head(connection):
    """Reads up to the end of a response's head and not a byte of what follows."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head


def _h2_answer(connection, session, stream):
    status, headers, body, open_stream = 0, {}, b"", True
    while open_stream:
        received = connection.recv(65536)
        assert received, "the HTTP/2 connection ended before the answer"
        for event in session.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                headers = {name.decode(): value.decode() for name, value in event.headers}
                status = int(headers.pop(":status"))
            elif isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                body += event.data
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id == stream:
                open_stream = False
        connection.sendall(session.data_to_send())
    return Answer(status, headers, body)


def send_h2(address, method, path, body=b"", headers=None):
    """One request over cleartext HTTP/2 with prior knowledge."""
    session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    with socket.create_connection(address, timeout=TIMEOUT_SECONDS) as connection:
        session.initiate_connection()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "127.0.0.1")]
        head += [(name.lower(), value) for name, value in (headers or {}).items()]
        session.send_headers(1, head)
        for part in chunks_of(as_bytes(body), 16000):
            session.send_data(1, part)
        session.end_stream(1)
        connection.sendall(session.data_to_send())
        return _h2_answer(connection, session, 1)
