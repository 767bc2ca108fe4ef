"""Packed bodies: a small one can become a large one, so it is unpacked up to a limit. Knows no HTTP."""

import zlib

from headrace.errors import InvalidRequest

#: zlib's word for gzip's header with a window of any size.
GZIP = 31


def unpacked(raw: bytes, limit: int) -> bytes:
    """The bytes of a gzip, one more than `limit` at most: that one shows that there are too many.

    Raises: InvalidRequest: it is none, or not whole.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        found = unpacker.decompress(raw, limit + 1)
    except zlib.error as error:
        raise InvalidRequest("The body is no gzip, as its Content-Encoding says.", code="invalid_encoding") from error
    if len(found) <= limit and (not unpacker.eof or unpacker.unused_data):
        raise InvalidRequest("The body must be one whole gzip.", code="invalid_encoding")
    return found
