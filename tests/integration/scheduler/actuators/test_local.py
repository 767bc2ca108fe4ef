"""What the actuator makes of a supervisor that fails. `tests/contracts` and the supervisor's own tests see one work."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.config import ScalingSettings, Settings
from headrace.config.scaling import LocalSettings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators import load
from scheduler.actuators.base import HostMachine, HostOrder
from scheduler.actuators.local import LocalActuator


@contextmanager
def answering(path: Path, *answers: bytes | None) -> Iterator[None]:
    """A supervisor that answers one request after another. None: it hangs up at once."""

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                if answer is not None:
                    connection.recv(4096)
                    connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hosts.sock"


@pytest.fixture
def actuator(path: Path) -> LocalActuator:
    return LocalActuator(path, timeout_s=1.0)


def test_without_a_supervisor_it_is_unavailable_and_says_where(actuator: LocalActuator, path: Path) -> None:
    with pytest.raises(ActuatorUnavailable, match=r"does not answer on .*hosts.sock: .*No such file"):
        actuator.machines("chat")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ActuatorUnavailable, match="refused"):
        actuator.order("chat", [HostOrder("h-1", "chat")], [])
    with pytest.raises(ActuatorUnavailable, match="refused"):
        actuator.release("chat", [HostMachine("h-1", "h-1")])


def test_a_supervisor_that_hangs_is_given_up(path: Path) -> None:
    actuator = LocalActuator(path, timeout_s=0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(ActuatorUnavailable, match="timed out"):
            actuator.machines("chat")


HOST = b'{"host_id": "h-1", "state": "running"}'


@pytest.mark.parametrize(
    "answer",
    [
        *(None, b"", b"hello\n", b"\xff\n", b"[]\n", b"{}{}\n"),
        # An answer that was cut off, or lacks the hosts, must not read as "no host is left".
        *(b"{}\n", b'{"hosts": [', b'{"hosts": null}\n'),
        *(b'{"hosts": [{"host_id": "../h", "state": "running"}]}\n', b'{"hosts": [{"host_id": "h-1"}]}\n'),
        b'{"hosts": [' + HOST + b", " + HOST + b"]}\n",
    ],
)
def test_what_is_no_answer_of_a_supervisor_counts_as_none(
    actuator: LocalActuator, path: Path, answer: bytes | None
) -> None:
    with answering(path, answer), pytest.raises(ActuatorUnavailable, match=r"hosts\.sock"):
        actuator.machines("chat")


def test_a_refusal_is_an_error_with_the_supervisor_s_words(actuator: LocalActuator, path: Path) -> None:
    refusal = b'{"hosts": [], "error": "Not this pool."}\n'
    with answering(path, refusal), pytest.raises(ActuatorUnavailable, match=r"Not this pool\."):
        actuator.machines("chat")
    path.unlink()
    with answering(path, refusal), pytest.raises(ActuatorUnavailable, match=r"Not this pool\."):
        actuator.order("chat", [HostOrder("h-1", "chat")], [])


def test_what_was_accepted_beside_a_refusal_is_returned(actuator: LocalActuator, path: Path) -> None:
    refusal, accepted = (
        b'{"hosts": [], "error": "No room."}\n',
        b'{"hosts": [{"host_id": "h-2", "state": "waiting"}]}\n',
    )
    with answering(path, refusal, accepted):
        machines = actuator.order("chat", [HostOrder("h-1", "chat"), HostOrder("h-2", "chat")], [])
    assert machines == [HostMachine("h-2", "h-2")]


def test_the_settings_name_the_socket() -> None:
    given = ScalingSettings(actuator="local", local=LocalSettings(socket="/state/hosts.sock"))
    assert load(Settings(scaling=given)).names_hosts
    with pytest.raises(ConfigError, match="headrace up --scale"):
        load(Settings(scaling=ScalingSettings(actuator="local")))
