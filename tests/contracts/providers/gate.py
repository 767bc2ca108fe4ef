"""An HTTP server of a test that answers, refuses, hangs or lies, as it is told."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Mode = Literal["work", "fail", "hang", "lie"]


class Gate(ThreadingHTTPServer):
    """Serves on a free port until `stop`. A subclass answers in `respond`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.mode: Mode = "work"
        self._woken = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def set(self, mode: Mode) -> None:
        self.mode = mode
        self._woken.set()
        self._woken = threading.Event()

    def wait(self) -> None:
        """Return when the mode changes."""
        self._woken.wait(60)

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Answer one request: status, content type, body."""
        raise NotImplementedError

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # A client that gave up on a call that hangs.

    def stop(self) -> None:
        self._woken.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.mode == "hang":
            self.server.wait()
            self.close_connection = True
            return
        status, kind, answer = 403, "text/plain", b"The door is shut."
        if self.server.mode != "fail":
            status, kind, answer = self.server.respond(self.command, self.path, dict(self.headers), body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass
