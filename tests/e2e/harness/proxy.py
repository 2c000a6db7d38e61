"""A proxy between a client and the server that spoils chosen answers, so that clients do what they do on failure.

`verdicts` is consumed one by one by posts whose path is in `paths`; once it is empty everything passes.
"""

import http.server
import threading

from harness import wire

PASS, REFUSE, LOSE_ANSWER = "pass", "refuse", "lose answer"
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self._body()
        verdict = self.server.proxy.verdict(self.path)
        if verdict == REFUSE:
            self._answer(wire.Answer(503, {}, b""))
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        answer = wire.send(self.server.proxy.upstream, "POST", self.path, body, headers)
        self.server.proxy.answers.append(answer.status)
        if verdict == LOSE_ANSWER:
            self.close_connection = True
        else:
            self._answer(answer)

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, answer):
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_):
        """Silent: the tests look at `answers`."""


class Proxy:
    """Use as a context manager; `url` is what a client is pointed at."""

    def __init__(self, upstream, paths=(), verdicts=()):
        self.upstream = upstream
        self.paths = set(paths)
        self.verdicts = list(verdicts)
        self.answers = []
        self._lock = threading.Lock()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.proxy = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def verdict(self, path):
        with self._lock:
            return self.verdicts.pop(0) if path in self.paths and self.verdicts else PASS

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
