"""The simulated pool: nothing is lost, every host second is billed, and waits are those of the theory of queues."""

import math
from array import array
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pytest

from headrace.domain.scaling import Moment, PoolHosts
from plugins.backtest.load import OfferedLoad, RateTrace, Sizes, offered_load
from plugins.backtest.pilots import Pilot
from plugins.backtest.pool import SimulatedFate, SimulatedPool, World
from plugins.backtest.runs import PoolRun, RunFigures, busy_and_slots, figures, simulate

#: A request of a mean size runs for 10 s in a slot, so that a host serves 2 a second.
WORLD = World(slots=20, tokens_per_s=2000, min_hosts=0, provision_s=60)
SIZES = Sizes(200, 200)


class Steps:
    """Has these numbers of hosts, one at each decision, and then the last one."""

    def __init__(self, *hosts: int) -> None:
        self.hosts = list(hosts)
        self.seen: list[tuple[Moment, PoolHosts]] = []

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        self.seen.append((moments[-1], hosts))
        return self.hosts.pop(0) if len(self.hosts) > 1 else self.hosts[0]


def load_of(per_s: float, minutes: int, *, vary: bool = True, seed: int = 1) -> OfferedLoad:
    return offered_load(RateTrace(array("d", [60 * per_s] * minutes)), Sizes(200, 200, vary), seed)


def run(load: OfferedLoad, pilot: Pilot, hosts: int, world: World = WORLD) -> tuple[PoolRun, RunFigures]:
    done = simulate(load, world, pilot, hosts)
    return done, figures(done, load, world)


UPS_AND_DOWNS = [1, 4, 4, 9, 0, 0, 3, 1, 12, 2, 7, 7, 0, 5, 2, 8, 3, 6, 1, 1]


@pytest.mark.parametrize("per_s", [0.5, 4.0, 30.0])
def test_every_request_has_one_fate_and_each_host_second_is_billed(per_s: float) -> None:
    load = load_of(per_s, 30)
    done, found = run(load, Steps(*UPS_AND_DOWNS * 3), 2)

    assert found.requests == len(load.times_s)
    assert found.requests == found.served + found.spilled + found.refused + found.expired + found.waiting
    assert found.waiting == done.pool.depth
    busy, slots = busy_and_slots(done, load, WORLD)
    ran = np.frombuffer(done.pool.fate, dtype=np.uint8) == SimulatedFate.SERVED
    began = load.times_s[ran] + np.frombuffer(done.pool.wait_s)[ran]
    seconds = np.minimum(began + load.work[ran] / WORLD.slot_tokens_per_s, load.seconds) - began
    assert busy.sum() == pytest.approx(seconds.sum())
    assert (busy <= slots + 1e-6).all()
    lived = sum((host.ended_at or load.seconds) - host.ordered_at for host in done.pool.fleet.hosts)
    assert found.host_hours == pytest.approx(lived / 3600)
    assert found.host_usd == pytest.approx(lived / 3600 * WORLD.usd_per_hour)
    assert found.overflow_usd == pytest.approx(found.spilled * WORLD.overflow_usd)


def test_the_bill_of_hosts_is_the_sum_of_the_hosts_of_each_moment() -> None:
    load = load_of(4, 30)
    done, found = run(load, Steps(*UPS_AND_DOWNS * 3), 2)

    # Hosts end between two observations, so that the sum is right within one of them for each host.
    at_ticks = sum(each.ready + each.requested + each.draining for each in done.instants) * 30
    assert found.host_hours * 3600 == pytest.approx(at_ticks, abs=30 * len(done.pool.fleet.hosts))


@pytest.mark.parametrize("utilisation", [0.8, 0.9])
def test_a_fixed_fleet_waits_as_erlang_says(utilisation: float) -> None:
    """M/M/c: the mean wait is C(c, R) / (c mu - lambda), with Erlang's C formula."""
    servers, service_s = 20, 10.0
    patient = World(slots=20, tokens_per_s=2000, max_wait_s=1e6)
    load = load_of(utilisation * servers / service_s, 60 * 48)
    done, found = run(load, Steps(1), 1, patient)

    offered = utilisation * servers
    blocked = offered**servers / math.factorial(servers) / (1 - utilisation)
    waits = blocked / (sum(offered**k / math.factorial(k) for k in range(servers)) + blocked)
    expected_s = waits / (servers / service_s - utilisation * servers / service_s)
    served = np.frombuffer(done.pool.wait_s)
    assert (served > 0).mean() == pytest.approx(waits, rel=0.05)
    assert served.mean() == pytest.approx(expected_s, rel=0.1)
    assert found.use == pytest.approx(utilisation, rel=0.02)


def test_one_slot_with_equal_requests_waits_as_pollaczek_and_khinchine_say() -> None:
    """M/D/1: the mean wait is rho x service / (2 (1 - rho))."""
    patient = World(slots=1, tokens_per_s=1000, max_wait_s=1e6)
    load = load_of(0.8, 60 * 72, vary=False)
    done, _ = run(load, Steps(1), 1, patient)

    assert np.frombuffer(done.pool.wait_s).mean() == pytest.approx(0.8 / (2 * 0.2), rel=0.1)


def test_requests_start_in_the_order_of_their_arrival() -> None:
    load = load_of(6, 10)
    done, _ = run(load, Steps(2), 2)

    ran = np.frombuffer(done.pool.fate, dtype=np.uint8) == SimulatedFate.SERVED
    assert (np.diff(load.times_s[ran] + np.frombuffer(done.pool.wait_s)[ran]) >= -1e-9).all()


def test_a_request_that_would_wait_too_long_goes_to_the_paid_api_up_to_its_rate_and_then_is_refused() -> None:
    load = load_of(10, 60)
    _, found = run(load, Steps(2), 2)

    # 4 a second are served here, 2.4 at the paid API.
    assert found.served / 3600 == pytest.approx(4, rel=0.05)
    assert found.spilled / 3600 == pytest.approx(2.4, rel=0.05)
    assert found.p99_wait_s <= WORLD.max_wait_s
    assert found.expired == 0

    _, closed = run(load, Steps(2), 2, World(slots=20, tokens_per_s=2000, overflow_per_s=0))
    assert closed.spilled == 0
    assert closed.refused > found.refused


def test_a_host_serves_after_its_provisioning_time_and_is_billed_from_its_order() -> None:
    load = load_of(1, 10)
    done, found = run(load, Steps(1), 0)

    host = done.pool.fleet.hosts[0]
    assert (host.ordered_at, host.ready_at) == (30, 90)
    assert found.host_hours == pytest.approx((600 - 30) / 3600)
    ran = np.frombuffer(done.pool.fate, dtype=np.uint8) == SimulatedFate.SERVED
    assert (load.times_s[ran] + np.frombuffer(done.pool.wait_s)[ran]).min() == pytest.approx(90)


def test_a_draining_host_finishes_its_requests_and_takes_no_other() -> None:
    done, _ = run(load_of(1.5, 10), Steps(2, 2, 2, 1), 2)

    ended = [host for host in done.pool.fleet.hosts if host.ended_at is not None]
    assert len(ended) == 1
    assert ended[0].drain_at == 120
    assert ended[0].ended_at is not None
    assert 120 < ended[0].ended_at < 240


def test_a_draining_host_is_called_back_before_another_is_ordered() -> None:
    pool = SimulatedPool(WORLD, 40, 1.0)
    pool.fleet.start_with(2)
    pool.serve(0, [0.0] * 40, [100.0] * 40, [1.0] * 40, 30)
    pool.scale_to(1, 30)
    assert (len(pool.fleet.ready), len(pool.fleet.draining)) == (1, 1)
    pool.scale_to(3, 60)

    assert (len(pool.fleet.ready), len(pool.fleet.draining), len(pool.fleet.requested)) == (2, 0, 1)
    pool.serve(40, [], [], [], 200)
    assert len(pool.fleet.free) == 60


def test_the_newest_order_is_taken_back_before_a_ready_host_drains() -> None:
    done, found = run(load_of(1, 10), Steps(3, 2), 1)

    cancelled = [host for host in done.pool.fleet.hosts if host.ended_at == 60]
    assert [host.ordered_at for host in cancelled] == [30]
    assert (found.ups, found.downs) == (1, 1)


def test_policies_see_what_was_offered_and_not_what_was_accepted() -> None:
    load, pilot = load_of(10, 10), Steps(1)
    _, found = run(load, pilot, 1)

    moments = [moment for moment, _ in pilot.seen]
    assert sum(moment.offered_jobs for moment in moments) == len(load.times_s)
    assert sum(moment.offered_tokens for moment in moments) == pytest.approx(load.tokens.sum(), rel=1e-4)
    assert sum(moment.refused_jobs for moment in moments) == found.refused
    assert {moment.slots for moment in moments} == {20}
    assert moments[-1].running == 20
    hosts = pilot.seen[-1][1]
    assert hosts.tokens_per_s == pytest.approx(2000 * 400 / 1000)
    assert (hosts.slots_per_host, hosts.provision_s, hosts.usd_per_hour) == (20, 60, 4.10)


def test_the_top_tenth_of_the_load_is_where_demand_is_highest() -> None:
    rates = array("d", [60.0] * 90 + [108.0] * 10)
    load = offered_load(RateTrace(rates), SIZES, 1)
    _, found = run(load, Steps(1), 1)

    assert found.use == pytest.approx(0.54, abs=0.05)
    assert found.peak_use == pytest.approx(0.88, abs=0.07)
