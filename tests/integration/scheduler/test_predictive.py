"""`predictive` in production: `autoscale` reads from Postgres all that the policy goes by."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from headrace.config import HostTypeSettings, Price, ScalingSettings
from headrace.domain.attempts import Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.scaling import Action
from headrace.policies.scaling.decisions import from_json, replay
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.store.money import budgets, tariffs
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.money import price_tokens

#: From 16 minutes on, three times as much is offered for three hours, each day at this time.
ROLLED = """
INSERT INTO queue_rollups (
  queue, span_s, at, samples, depth, most_depth, oldest_wait_s, arrivals, refused, started, started_tokens, running,
  slots, hosts, offered, offered_tokens
)
SELECT 'chat.normal', 60, date_bin('1 minute', t, '2000-01-01Z'), 12, 0, 0, 0, 0, 0, 0, 0, 0, 16, 2, 240,
  60 * 1000 * CASE WHEN (t - now()) + interval '30 days' > interval '16 minutes' + d * interval '1 day'
    AND (t - now()) + interval '30 days' < interval '3 hours' + d * interval '1 day' THEN 3 ELSE 1 END
FROM generate_series(now() - interval '9 days', now() - interval '1 day 1 minute', interval '1 minute') t,
  LATERAL (SELECT floor(extract(epoch FROM (t - now()) + interval '30 days') / 86400) AS d) AS days
"""
#: Samples of two hosts with 8 slots each: idle for a day, and saturated in the half hour that began 6 hours ago.
SAMPLED = """
INSERT INTO queue_samples (
  queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, started_tokens, offered,
  offered_tokens
)
SELECT 'chat.' || lane, now() - n * interval '5 seconds', CASE WHEN is_full THEN 5 ELSE 0 END, 0, 0, 0,
  CASE WHEN is_full THEN 4 ELSE 3 END, CASE WHEN is_full THEN 4 ELSE 2 END, 16, 2,
  CASE WHEN is_full THEN 1250 ELSE 900 END, 5, 1250
FROM unnest(ARRAY['high', 'normal', 'low', 'batch']) lane, generate_series(0, :count) n,
  LATERAL (SELECT n BETWEEN 3960 AND 4320 AS is_full) AS minutes
"""
LEASES = """
INSERT INTO hosts (id, pool, instance_type, requested_at, ordered_at, ready_at, ended_at, end_reason)
SELECT 'old-' || n, 'chat', 'a100', t, t, t + interval '40 minutes', t + interval '1 hour', 'scaled_down'
FROM generate_series(1, 12) n, LATERAL (SELECT now() - n * interval '3 hours' AS t) AS times
"""
PAID = """
INSERT INTO ledger (kind, job_id, pool, prompt_tokens, output_tokens, usd)
SELECT 'api', overlay(gen_random_uuid()::text PLACING :now FROM 1)::uuid, 'chat', 200, 50, 0.02
FROM generate_series(1, 30)
"""
OWN = """
INSERT INTO ledger (kind, job_id, pool, prompt_tokens, output_tokens, usd)
SELECT 'compute', overlay(gen_random_uuid()::text PLACING :now FROM 1)::uuid, 'chat', 200, 50, 0.001
FROM generate_series(1, 120)
"""
DAY_OF_SAMPLES = 17_280


@pytest.fixture
def active(deps: ControlDeps) -> ControlDeps:
    """The pool `chat` may have 1 to 9 hosts of the type `a100`; jobs may go to the paid API."""
    mini = Price(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(4), source="test", version="1")
    values: dict[str, Any] = {
        "scaling": ScalingSettings(mode="active", actuator="command", min_hosts=1, max_hosts=9, host_type="a100"),
        "hosts": {"a100": HostTypeSettings(usd_per_hour=Decimal("4.10"))},
        "prices": {"gpt-4o-mini": mini},
        "openai_api_key": SecretStr("sk"),
    }
    return replace(deps, settings=deps.settings.model_copy(update=values))


@pytest.fixture
def two_hosts(store: Store, query: Any, active: ControlDeps) -> None:
    """Two hosts serve; the paid API has a worker and a budget."""
    for host in ("host-1", "host-2"):
        query(
            "INSERT INTO hosts (id, pool, instance_type, requested_at, ordered_at, ready_at, is_adopted)"
            " VALUES (:id, 'chat', 'a100', now(), now(), now(), true)",
            id=host,
        )
    with store.begin() as db:
        for host, pool in (("host-1", "chat"), ("host-2", "chat"), ("paid", "overflow")):
            workers.register(db, WorkerInfo(new_id(), host, host, pool, "simulator", "m", 8), 60.0)
        budgets.set_limits(db, {"day_usd": Decimal(50)}, active.settings.budgets)


@pytest.fixture
def row(query: Any) -> Callable[[], dict[str, Any]]:
    """The last decision."""

    def read() -> dict[str, Any]:
        names = ("policy", "action", "target", "reason", "need", "forecast_tokens_per_s", "inputs", "forecast_at", "at")
        [values] = query(f"SELECT {', '.join(names)} FROM decisions ORDER BY id DESC LIMIT 1")
        return dict(zip(names, values, strict=True))

    return read


@pytest.mark.usefixtures("two_hosts")
def test_hosts_are_ordered_for_what_past_days_announce(
    active: ControlDeps, query: Any, row: Callable[[], dict[str, Any]]
) -> None:
    query(ROLLED)
    query(SAMPLED, count=DAY_OF_SAMPLES)
    query(LEASES)
    query(PAID, now=new_id().hex[:8])
    made = autoscale(active)["chat"]

    seen = from_json(row()["inputs"])
    # 4 lanes, each of which starts 1,250 tokens every 5 seconds, on two hosts.
    assert seen.hosts.tokens_per_s == pytest.approx(500)
    assert (seen.hosts.ready, seen.hosts.slots_per_host, seen.hosts.provision_s) == (2, 8, 2400)
    assert (seen.hosts.usd_per_hour, seen.hosts.spill_usd) == (4.1, 0.02)
    # Two hosts serve what is offered now. The rise comes before a host does that is ordered now.
    assert made.action is Action.UP, made.reason
    assert "(season)" in made.reason
    assert made.forecast is not None
    assert made.forecast.tokens_per_s == pytest.approx(3000, rel=0.05)
    assert made.need is not None
    assert made.need >= 6
    assert row()["forecast_at"] - row()["at"] == timedelta(seconds=2400 + 30)
    assert query("SELECT count(*) FROM hosts WHERE ready_at IS NULL") == [(made.target - 2,)]


@pytest.mark.usefixtures("two_hosts")
@pytest.mark.parametrize("usd_per_mtok", ["50", "0.5"], ids=["the paid API is dear", "it is cheaper than a host"])
def test_scaling_and_routing_agree_on_what_is_cheaper(
    active: ControlDeps, store: Store, query: Any, row: Callable[[], dict[str, Any]], usd_per_mtok: str
) -> None:
    query(ROLLED)
    query(SAMPLED, count=DAY_OF_SAMPLES)
    query(LEASES)
    query(OWN, now=new_id().hex[:8])
    api = Price(input_usd_per_mtok=Decimal(usd_per_mtok), output_usd_per_mtok=Decimal(0), source="test", version="1")
    deps = replace(active, settings=active.settings.model_copy(update={"prices": {"gpt-4o-mini": api}}))
    assert price_tokens(deps) == 1
    with store.begin() as db:
        is_cheaper = tariffs.in_force(db, deps.settings).api_is_cheaper("chat", "m", Usage(200, 50))
    made = autoscale(deps)["chat"]

    # A host serves 7,200 such jobs an hour for 4.10 USD: 0.00057 USD each.
    assert is_cheaper is (usd_per_mtok == "0.5")
    assert ("a host costs more than the jobs that it would serve cost at the paid API" in row()["reason"]) is is_cheaper
    assert (made.action is Action.UP) is not is_cheaper, made.reason
    assert query("SELECT count(*) FROM hosts WHERE ready_at IS NULL") == [(0 if is_cheaper else made.target - 2,)]


@pytest.mark.usefixtures("two_hosts")
def test_a_decision_is_computed_again_from_its_short_row(
    active: ControlDeps, query: Any, row: Callable[[], dict[str, Any]]
) -> None:
    query(SAMPLED, count=DAY_OF_SAMPLES)
    for number in range(3):
        query("UPDATE decisions SET at = at - interval '30 seconds'")
        made = autoscale(active)["chat"]
        assert replay(from_json(row()["inputs"])) == made
        assert len(from_json(row()["inputs"]).history.needs) == number
        assert len(json.dumps(row()["inputs"])) < 10_000


@pytest.mark.usefixtures("two_hosts")
def test_a_fresh_installation_goes_by_thresholds_and_says_what_is_missing(
    active: ControlDeps, query: Any, row: Callable[[], dict[str, Any]]
) -> None:
    query(SAMPLED, count=200)
    autoscale(active)
    assert "thresholds decide: the rate of a host is unknown" in row()["reason"]
    assert (row()["need"], row()["forecast_at"]) == (None, None)
    query("UPDATE decisions SET at = at - interval '1 minute'")
    rated = {"a100": HostTypeSettings(usd_per_hour=Decimal("4.10"), tokens_per_s=500)}
    autoscale(replace(active, settings=active.settings.model_copy(update={"hosts": rated})))
    assert "thresholds" not in row()["reason"]
    assert row()["need"] is not None
