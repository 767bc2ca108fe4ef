"""Whether a waiting request's client may still be connected, by what the kernel says of the open connections."""

import pytest

from api.reading.peers import SLACK_S, Connections, Peer, peer_of

HERE = Peer(bytes([10, 0, 0, 7]), 8000)


@pytest.mark.parametrize(
    ("address", "port", "peer"),
    [
        ("10.0.0.7", "8000", HERE),
        ("::ffff:10.0.0.7", "8000", HERE),
        ("2001:db8::1", "8000", Peer(bytes.fromhex("20010db8" + "0" * 23 + "1"), 8000)),
        ("fe80::1%eth0", "8000", Peer(bytes.fromhex("fe80" + "0" * 27 + "1"), 8000)),
        ("", "8000", None),
        ("/run/headrace.sock", "", None),
        ("10.0.0.7", "", None),
        (None, None, None),
    ],
)
def test_a_client_is_known_by_its_address_and_the_port_it_came_in_on(
    address: str | None, port: str | None, peer: Peer | None
) -> None:
    assert peer_of({"REMOTE_ADDR": address, "SERVER_PORT": port}) == peer


def test_a_client_that_has_been_silent_for_as_long_as_its_request_waits_may_be_there() -> None:
    found = Connections(frozenset({8000}), {HERE: 10.0})
    assert found.may_have(HERE, 10.0 + SLACK_S)
    assert not found.may_have(HERE, 10.1 + SLACK_S), "its connections have sent something since"
    assert not found.may_have(Peer(bytes([10, 0, 0, 8]), 8000), 0.0 + SLACK_S), "none is from there"


def test_nothing_is_known_of_a_port_on_which_no_server_listens_here() -> None:
    assert Connections(frozenset(), {}).may_have(HERE, 1000.0)
