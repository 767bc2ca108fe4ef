"""Reads a request's body: admitted before it is read, as long as its client keeps up, and unpacked."""

import zlib
from io import BytesIO
from typing import IO, TYPE_CHECKING
from uuid import UUID

from api.bodies.in_flight import SMALL_BYTES, Bodies
from api.bodies.reader import BodyReader
from api.call import Call
from api.callers import calls_of
from api.handlers.submitting import idempotency_key
from headrace.domain.apps import App
from headrace.errors import BodyTimeout, BodyTooLarge, InvalidRequest, UnsupportedEncoding

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: zlib's window of 32 KiB, plus 16: it reads a gzip, with its checksum.
GZIP = 31


class Body:
    """The body of one request. It counts among those in flight until `release`."""

    def __init__(self, bodies: Bodies, limit: int, environ: "WSGIEnvironment") -> None:
        """Read nothing yet. Args: limit: the largest body, in bytes."""
        self._bodies, self._limit, self._environ = bodies, limit, environ
        self._held: tuple[UUID, int] | None = None
        #: A reader that has given up, and still reads.
        self.late: BodyReader | None = None

    def read(self, call: Call) -> bytes:
        """The whole body, unpacked. It counts as calls of its app, unless a job is made of it.

        Raises: BodyTooLarge. UnsupportedEncoding. InvalidRequest. AppLimited. BodiesFull. BodyTimeout.
        """
        told = self._told_size()
        if told is not None and told > self._limit:
            raise self._too_large()
        is_packed = "HTTP_CONTENT_ENCODING" in self._environ and _is_packed(self._environ["HTTP_CONTENT_ENCODING"])
        raw = self._read_packed(call, told) if is_packed else self._read_plain(call, told)
        call.calls_due += calls_of(len(raw))
        if len(raw) > self._limit:
            raise self._too_large()
        return raw

    def release(self) -> None:
        """Stop counting the body."""
        if self._held is not None:
            self._bodies.release(*self._held)
            self._held = None

    def _read_plain(self, call: Call, told: int | None) -> bytes:
        # A chunked body gives no length: assume the largest.
        size = self._limit if told is None else told
        if size > SMALL_BYTES:
            self._admit(call, size)
            return self._read_in_time(call.app, told)
        with self._bodies.reading_small(call.app.id) as needs_deadline:
            if needs_deadline:
                return self._read_in_time(call.app, told)
            stream = self._stream()
            raw = stream.read(size)
            while len(raw) < size and (more := stream.read(size - len(raw))):
                raw += more
            return _checked(raw, size)

    def _read_packed(self, call: Call, told: int | None) -> bytes:
        """What a gzip contains. It counts as the largest body while its content's size is unknown."""
        self._admit(call, self._limit)
        packed = self._read_in_time(call.app, told)
        if len(packed) > self._limit:
            raise self._too_large()
        call.calls_due += calls_of(self._limit)
        raw = unpacked(packed, self._limit)
        call.calls_due -= calls_of(self._limit)
        return raw

    def _admit(self, call: Call, size: int) -> None:
        self._bodies.admit(call.app, size, idempotency_key(call))
        self._held = call.app.id, size

    def _read_in_time(self, app: App, told: int | None) -> bytes:
        """Of a chunked body, at most one byte more than the limit: it shows that the body is too long."""
        if told == 0:
            return b""
        reader = BodyReader(self._stream(), self._limit + 1 if told is None else told, self._bodies.threads)
        try:
            raw = reader.result(self._bodies.grace_s)
        except BodyTimeout:
            self._bodies.add_late(app.id, reader)
            self.late = reader
            raise
        return _checked(raw, told)

    def _stream(self) -> IO[bytes]:
        environ = self._environ
        # A server that cannot tell where a body of unknown length ends has none.
        is_ended = environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated")
        return environ["wsgi.input"] if is_ended else BytesIO()

    def _told_size(self) -> int | None:
        told = self._environ.get("CONTENT_LENGTH") or ""
        return (
            int(told) if told.isascii() and told.isdigit() and "HTTP_TRANSFER_ENCODING" not in self._environ else None
        )

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limit} bytes.")


def _checked(raw: bytes, told: int | None) -> bytes:
    """A body of the size that was told. Raises: InvalidRequest: the client has sent less, and closed the connection."""
    if told is not None and len(raw) < told:
        raise InvalidRequest(f"The body ends after {len(raw)} of {told} bytes.", code="invalid_json")
    return bytes(raw)


def _is_packed(encoding: str) -> bool:
    """Whether the body is a gzip. Raises: UnsupportedEncoding: it is packed in another way."""
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise UnsupportedEncoding(
            f"The Content-Encoding '{encoding[:40]}' is not read here. Send the body as it is, or with gzip."
        )
    return encoding.endswith("gzip")


def unpacked(raw: bytes, limit: int) -> bytes:
    """Unpack a gzip, up to one byte more than `limit`: that byte tells a body that is too large.

    Raises: InvalidRequest: it is no gzip, or not a whole one.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        found = unpacker.decompress(raw, limit + 1)
    except zlib.error as error:
        raise InvalidRequest("The body is no gzip, as its Content-Encoding says.", code="invalid_encoding") from error
    if len(found) <= limit and (not unpacker.eof or unpacker.unused_data):
        raise InvalidRequest("The body must be one whole gzip.", code="invalid_encoding")
    return found
