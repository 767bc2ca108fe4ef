"""A decision's inputs as JSON, from which it can be computed again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from headrace.config import ScalingSettings
from headrace.domain.scaling import Decision, History, PoolHosts
from headrace.policies.scaling.dispatch import decide


@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """All that a decision depends on, except the policies' code, whose version is `VERSION`.

    Attributes:
        policy: the settings of the pool; see `ScalingSettings.of_pool`.
    """

    history: History
    hosts: PoolHosts
    policy: ScalingSettings
    now: datetime


_INPUTS = TypeAdapter(DecisionInputs)


def to_json(inputs: DecisionInputs) -> dict[str, Any]:
    """The inputs in values that JSON and JSONB keep exactly."""
    found: dict[str, Any] = _INPUTS.dump_python(inputs, mode="json", by_alias=True)
    return found


def from_json(found: Any) -> DecisionInputs:
    """The inputs that `to_json` wrote. Raises: pydantic.ValidationError: another version wrote them."""
    return _INPUTS.validate_python(found)


def replay(inputs: DecisionInputs) -> Decision:
    """Compute the decision again."""
    return decide(inputs.history, inputs.hosts, inputs.policy, inputs.now)
