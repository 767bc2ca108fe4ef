"""The Unix socket on which the supervisor is asked for local hosts. Knows nothing of how they run."""

import os
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from pydantic import ValidationError

from headrace.errors import StackError
from headrace.stack.hosts.messages import HOST_REQUEST, MAX_REQUEST_BYTES, HostAnswer, HostRequest

#: Seconds that a client may take for each part of its request.
PATIENCE_S = 2.0
#: The most bytes of a socket's path. Linux has room for 108, the last of which is 0.
MAX_PATH_BYTES = 107

Answer = Callable[[HostRequest], HostAnswer]


@contextmanager
def host_socket(path: Path, answer: Answer) -> Iterator[None]:
    """Answer requests on this socket, in threads of their own, for the length of a block.

    Only this user can connect. Raises: StackError: the socket cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise StackError(f"The path of the socket {path} is too long: set HEADRACE_STATE to a folder with a short one.")
    # A killed stack leaves its socket. The state folder's lock says that no other stack uses it.
    path.unlink(missing_ok=True)
    try:
        server = _Server(path, answer)
    except OSError as error:
        raise StackError(f"The socket {path} cannot be made: {error.strerror}.") from error
    with server:
        thread = Thread(target=server.serve_forever, name="hosts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: Path, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(path), _Handler)

    def server_bind(self) -> None:
        # The mode must be right from the first moment on: any client that connects can start processes as this user.
        before = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(before)


class _Handler(socketserver.StreamRequestHandler):
    timeout = PATIENCE_S
    server: _Server

    def handle(self) -> None:
        # A client that stalls, or has gone, gets no answer.
        with suppress(OSError):
            line = self.rfile.readline(MAX_REQUEST_BYTES + 1)
            self.wfile.write(self._answer(line).model_dump_json(exclude_none=True).encode() + b"\n")

    def _answer(self, line: bytes) -> HostAnswer:
        if not line.endswith(b"\n"):
            return HostAnswer(hosts=(), error=f"A request is one line of at most {MAX_REQUEST_BYTES} bytes.")
        try:
            return self.server.answer(HOST_REQUEST.validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            return HostAnswer(
                hosts=(), error=f"The request is not valid: {where + ': ' if where else ''}{first['msg']}."
            )
        except StackError as error:
            return HostAnswer(hosts=(), error=str(error))
