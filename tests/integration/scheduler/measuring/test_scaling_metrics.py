"""What a control process tells Prometheus of hosts, on a real Postgres and over HTTP."""

from collections.abc import Callable
from typing import Any

from headrace.store.fleet import decisions
from headrace.store.fleet.decisions import AlertKey
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.measuring import StoreMetrics

Serve = Callable[..., Callable[[], list[str]]]


def test_hosts_by_state_and_what_is_wanted(deps: ControlDeps, serve: Serve, query: Any) -> None:
    query("INSERT INTO hosts (id, pool, requested_at) VALUES ('one', 'chat', now()), ('two', 'chat', now())")
    for target in (2, 5):
        query(
            "INSERT INTO decisions (pool, mode, hosts, target, reason, inputs, at)"
            " VALUES ('chat', 'active', 2, :target, '', '{}', now() + :target * interval '1 second')",
            target=target,
        )

    page = serve(StoreMetrics(deps))()

    assert 'headrace_hosts{pool="chat",state="requested"} 2.0' in page
    assert 'headrace_hosts{pool="chat",state="ready"} 0.0' in page
    assert 'headrace_hosts_wanted{pool="chat"} 5.0' in page


def test_what_the_operator_was_alerted_to_until_it_ends(deps: ControlDeps, serve: Serve) -> None:
    scrape, key, other = serve(StoreMetrics(deps)), AlertKey("at_maximum", "chat"), AlertKey("unobserved", "chat")
    with deps.store.begin() as db:
        for each in (key, other):
            decisions.note_alert(db, each)
        decisions.tell_alert(db, key)

    lasting = [line for line in scrape() if line.startswith("headrace_scaling_alerts{")]
    with deps.store.begin() as db:
        decisions.end_alert(db, key)

    assert lasting == ['headrace_scaling_alerts{kind="at_maximum",pool="chat"} 1.0']
    assert not any(line.startswith("headrace_scaling_alerts{") for line in scrape())


def test_calls_of_the_provider_by_outcome(deps: ControlDeps, serve: Serve) -> None:
    for outcome in ("failed", "answered", "answered"):
        deps.tallies.calls.add("chat", outcome)

    page = serve(deps.tallies)()

    assert 'headrace_provider_calls_total{outcome="failed",pool="chat"} 1.0' in page
    assert 'headrace_provider_calls_total{outcome="answered",pool="chat"} 2.0' in page


def test_decisions_by_action(deps: ControlDeps, serve: Serve) -> None:
    decided = autoscale(deps)

    page = serve(deps.tallies)()

    action = decided["chat"].action
    assert f'headrace_scaling_decisions_total{{action="{action}",pool="chat"}} 1.0' in page
