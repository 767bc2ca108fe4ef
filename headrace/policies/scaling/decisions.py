"""Decides how many hosts a pool should have, by the policy's name; a decision's inputs as JSON, to compute it again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from headrace.config import ScalingSettings
from headrace.domain.scaling import Decision, DemandHistory, PoolHosts
from headrace.policies.scaling import predictive, reactive, schedule
from headrace.policies.scaling.bounds import clamped, hold, in_order, move, staleness, within_bounds
from headrace.policies.scaling.discount import discounted_words

#: The version of the policies' code. A change that decides anything differently raises it.
VERSION = 1

Policy = Callable[[DemandHistory, PoolHosts, ScalingSettings, datetime], Decision]


def _fixed(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """The policy `fixed`: order what is missing, remove what is too much. Needs no observation to order hosts."""
    target = clamped(policy.min_hosts if policy.fixed_hosts is None else policy.fixed_hosts, policy)
    if target == hosts.count:
        return hold(hosts, f"the pool has its {target} hosts")
    return move(hosts, target, f"{target} hosts are fixed, and {hosts.count} are ready or on their way", policy)


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "predictive": predictive.decide,
        "reactive": reactive.decide,
        "schedule": schedule.decide,
        "fixed": _fixed,
    }
)


def decide(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Decide how many hosts a pool should have.

    The minimum always applies. The maximum, and anything else that removes hosts, needs a fresh observation.

    Args: policy: the settings of this pool; see `ScalingSettings.of_pool`.
    """
    history = in_order(history)
    wanted = POLICIES[policy.policy](history, hosts, policy, now)
    made = within_bounds(wanted, hosts, policy, staleness(history, policy, now))
    return replace(made, reason=made.reason + discounted_words(history, policy))


@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """All that a decision depends on, except the policies' code, whose version is `VERSION`.

    Attributes: policy: the settings of the pool; see `ScalingSettings.of_pool`.
    """

    history: DemandHistory
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
