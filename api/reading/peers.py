"""Peers: whether the client of a waiting request is still connected, as the kernel's table of TCP connections says.

WSGI gives a blocked request no sign of its client, and granian exposes neither the connection nor its port. The kernel
knows how long ago each connection last received data. A client that waits for an answer sends nothing meanwhile, so its
connection has been silent for at least as long as the request has waited. If no open connection from its address has
been silent for that long, the client has gone. Where many clients share one address, as behind a proxy, the connection
of an older wait hides a client that has gone, until that older wait ends.

Linux only: netlink's `sock_diag`, see man 7 sock_diag. Only this module uses it.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

#: linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h.
_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST, _DUMP = 1, 0x300
_ERROR, _DONE = 2, 3
_INFO = 2
_ESTABLISHED, _LISTEN = 1, 10
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
#: Offsets in bytes: of the attributes after `struct inet_diag_msg`, and of `tcpi_last_data_recv` in `struct tcp_info`.
_ATTRIBUTES_AT = 72
_LAST_DATA_RECEIVED_AT = 52
_BUFFER_BYTES = 1 << 17
_TIMEOUT_S = 1.0
#: How much younger than its wait a connection's last byte may be, in seconds: the clocks differ in resolution.
SLACK_S = 0.5


@dataclass(frozen=True, slots=True)
class Peer:
    """The client's end of a request's connection, as far as WSGI knows it.

    Attributes:
        address: 4 or 16 bytes.
        port: the server's port, on which the request came in.
    """

    address: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Connections:
    """The open connections of this machine, or container, at one moment.

    Attributes:
        listening: ports.
        silent_s: for each peer, the longest time for which one of its connections has received nothing.
    """

    listening: frozenset[int]
    silent_s: Mapping[Peer, float]

    def may_have(self, peer: Peer, waits_s: float) -> bool:
        """False when the client of a request that has waited for `waits_s` has gone."""
        # If no server here listens on the port, another machine does: then nothing is known about the client.
        return peer.port not in self.listening or self.silent_s.get(peer, -1.0) >= waits_s - SLACK_S


def peer_of(environ: Mapping[str, Any]) -> Peer | None:
    """The client of a request; None where WSGI does not name it, as on a Unix socket."""
    address, port = str(environ.get("REMOTE_ADDR") or ""), str(environ.get("SERVER_PORT") or "")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return Peer(_unmapped(socket.inet_pton(family, address.partition("%")[0])), int(port))
        except (OSError, ValueError):
            continue
    return None


def connections() -> Connections:
    """The connections that are open now. Raises: OSError: the kernel refuses to list them."""
    listening, silent_s = set[int](), dict[Peer, float]()
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in _dump(family):
            port = int.from_bytes(message[4:6])
            if message[1] == _LISTEN:
                listening.add(port)
            elif (since_s := _since_data_s(message)) is not None:
                peer = Peer(_unmapped(message[24:28] if family is socket.AF_INET else message[24:40]), port)
                silent_s[peer] = max(since_s, silent_s.get(peer, 0.0))
    return Connections(frozenset(listening), silent_s)


def _unmapped(address: bytes) -> bytes:
    """The address; an IPv4-mapped IPv6 address as IPv4."""
    return address[12:] if len(address) == 16 and address.startswith(bytes(10) + b"\xff\xff") else address


def _dump(family: int) -> Iterator[bytes]:
    """Each listening or established TCP socket of this family: a `struct inet_diag_msg` with its attributes."""
    states = 1 << _ESTABLISHED | 1 << _LISTEN
    wanted = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, states) + bytes(48)
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG)) as kernel:
        kernel.settimeout(_TIMEOUT_S)
        kernel.send(_HEADER.pack(_HEADER.size + len(wanted), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + wanted)
        while True:
            answer, at = kernel.recv(_BUFFER_BYTES), 0
            while at < len(answer):
                length, kind, *_ = _HEADER.unpack_from(answer, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = struct.unpack_from("=i", answer, at + _HEADER.size)[0]
                    raise OSError(-code, "sock_diag is refused")
                yield answer[at + _HEADER.size : at + length]
                at += _aligned(length)


def _since_data_s(message: bytes) -> float | None:
    """Seconds since the connection last received data, or was opened."""
    at = _ATTRIBUTES_AT
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _INFO:
            millis: int = struct.unpack_from("=I", message, at + _ATTRIBUTE.size + _LAST_DATA_RECEIVED_AT)[0]
            return millis / 1000
        at += _aligned(max(length, _ATTRIBUTE.size))
    return None


def _aligned(length: int) -> int:
    return (length + 3) & ~3
