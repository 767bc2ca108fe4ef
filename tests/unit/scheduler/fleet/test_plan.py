"""How long a control process may hold the claim of a pool."""

from pathlib import Path

import pytest

from headrace.config import Settings
from scheduler.actuators import load
from scheduler.fleet.plan import Timing


@pytest.mark.parametrize(
    ("actuator", "section", "claim_s"),
    [
        pytest.param("command", {"argv": ["hosts"], "timeout_s": 7}, 14, id="command: one run of the program"),
        pytest.param(
            "aws", {"groups": {"chat": "g"}, "region": "eu-central-1", "timeout_s": 7}, 56, id="aws: two tries"
        ),
        pytest.param("local", {"socket": "/tmp/hosts.sock"}, 12, id="local: the supervisor answers at once"),
    ],
)
def test_the_claim_follows_from_the_time_outs_of_the_actuator_in_use(
    actuator: str, section: dict[str, object], claim_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # botocore would ask the machine's metadata service for credentials, over the network.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    scaling = {"mode": "active", "actuator": actuator, actuator: section}
    settings = Settings.load(state_dir=tmp_path, scaling=scaling)
    assert Timing.of(load(settings)).claim_s == claim_s
