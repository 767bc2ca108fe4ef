"""Packed bodies: a small one can become a large one, so it is unpacked up to a limit. Knows no HTTP."""

import zlib

from headrace.errors import InvalidRequest

#: zlib's word for gzip's header with a window of any size.
GZIP = 31


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
