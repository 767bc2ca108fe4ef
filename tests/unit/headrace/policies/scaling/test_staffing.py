"""What hosts are worth, and how many a load needs."""

from decimal import Decimal
from typing import Any

import pytest

from headrace.config import ScalingSettings
from headrace.domain.scaling import PoolHosts
from headrace.policies.scaling.staffing import Worth, hosts_for

#: A busy host serves 3,600 jobs of 1,000 tokens an hour.
HOST = {"ready": 2, "tokens_per_s": 1_000.0, "slots_per_host": 25.0, "provision_s": 0.0, "usd_per_hour": 3.6}


def worth(refused_usd: str = "0.015", **changes: Any) -> Worth:
    return Worth.of(1_000.0, PoolHosts(**{**HOST, **changes}), ScalingSettings(refused_job_usd=Decimal(refused_usd)))


@pytest.mark.parametrize(
    ("refused_usd", "changes", "spilling", "refusing"),
    [
        pytest.param("0.002", {}, None, 0.5, id="no paid API: a refusal's price"),
        pytest.param("0.002", {"spill_usd": 0.004}, 0.75, 0.75, id="the paid API is dearer than a refusal"),
        pytest.param("0.005", {"spill_usd": 0.002}, 0.5, 0.8, id="and cheaper"),
        pytest.param("0.002", {"spill_usd": 0.001}, 0.0, 0.5, id="as dear as a host"),
        pytest.param("0.002", {"spill_usd": 0.0005}, -1.0, 0.5, id="cheaper than a host"),
        pytest.param("1", {"spill_usd": 1.0}, 0.9, 0.9, id="at most 90 %"),
        pytest.param("0", {}, None, 0.0, id="refusals cost nothing"),
        pytest.param("0.002", {"usd_per_hour": None, "spill_usd": 0.0001}, None, 0.9, id="a host's price is unknown"),
        pytest.param("0.002", {"provision_s": 1800.0}, None, 0.25, id="half an hour of an hour's life in its start"),
    ],
)
def test_hosts_pay_up_to_the_critical_ratio(
    refused_usd: str, changes: dict[str, Any], spilling: float | None, refusing: float
) -> None:
    found = worth(refused_usd, **changes)
    assert found.spilling == pytest.approx(spilling)
    assert found.refusing == pytest.approx(refusing)


@pytest.mark.parametrize(
    ("changes", "hosts"),
    [
        pytest.param({"spill_usd": 0.004}, 3.75, id="the paid API is dear: a host must be used a quarter of the time"),
        pytest.param({"spill_usd": 0.0005}, 0.0, id="it is cheap, and takes all"),
        pytest.param(
            {"spill_usd": 0.0005, "spill_tokens_per_s": 2_000.0}, 2.3, id="it is cheap, and takes 80 % of its limit"
        ),
        pytest.param({"spill_usd": 0.0005, "spill_tokens_per_s": 9_000.0}, 0.0, id="its limit is above the load"),
        pytest.param({"spill_usd": 0.004, "spill_tokens_per_s": 2_000.0}, 3.75, id="it is dear, and has a limit"),
    ],
)
def test_what_the_paid_api_cannot_take_still_needs_hosts(changes: dict[str, Any], hosts: float) -> None:
    needed = worth("0.01", **changes).hosts_for(4_000.0, lambda _: 4_000.0, PoolHosts(**{**HOST, **changes}), beta=0.0)
    assert needed == pytest.approx(hosts)


@pytest.mark.parametrize(
    ("rate", "upper", "beta", "slots", "hosts"),
    [
        (4_000.0, None, 0.0, 25.0, 4.0),
        # 100 busy slots and 2 x sqrt(100) more are 120 slots.
        (4_000.0, None, 2.0, 25.0, 4.8),
        (4_000.0, None, 2.0, None, 4.0),
        (4_000.0, 4_600.0, 0.0, 25.0, 4.6),
        # sqrt(0.6^2 + 0.8^2) = 1
        (4_000.0, 4_600.0, 2.0, 25.0, 5.0),
        (4_000.0, 3_500.0, 2.0, 25.0, 4.3),
        (0.0, None, 2.0, 25.0, 0.0),
        (-5.0, -9.0, 2.0, 25.0, 0.0),
    ],
)
def test_staffing_adds_a_margin_for_chance_and_one_for_error(
    rate: float, upper: float | None, beta: float, slots: float | None, hosts: float
) -> None:
    found = hosts_for(rate, PoolHosts(2, tokens_per_s=1_000.0, slots_per_host=slots), beta, upper)
    assert found == pytest.approx(hosts)
