"""What the first page says is wrong, by what is known of the system: each alert of Prometheus has a case here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
import yaml

from headrace.config import PROJECT_ROOT
from headrace.domain.deliveries import FailingReceiver
from headrace.domain.fleet import Fleet, Flow, Life, ProcessKind
from headrace.domain.limits import Account
from headrace.domain.queues import Lane
from headrace.policies.health import Blocker, Facts, LaneFacts, problems, processes_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)
BUSY = Flow(arrivals=90, started=90, ended=90)


def life(kind: ProcessKind, *, silent_s: float = 1.0, **changes: object) -> Life:
    """A life of the one process of this kind; it lives unless it was silent."""
    made = Life(kind, f"{kind}@one", "one", 7, None, "0.1.0", None, NOW, NOW, None, {}, silent_s < 8, silent_s)
    return replace(made, **changes)  # type: ignore[arg-type]


ALL = tuple(life(kind) for kind in ProcessKind)
LANE = LaneFacts("chat.high", "chat", Lane.HIGH, 3, 1.0, 2.0, 60.0, BUSY, BUSY)
FLEET = Fleet("chat", 2, 1, 8, 3, None, None)
WELL = Facts(lives=ALL, lanes=[LANE], fleets={"chat": FLEET}, observed_s=4.0)
BLOCKER = Blocker(41, "psql", "ada", "10.0.0.9", "idle in transaction", "LOCK TABLE jobs", 85.0, 7)


def account(used: str, app: str | None = None) -> Account:
    return Account(UUID(int=1), app, "day", NOW, Decimal(0), Decimal(used), Decimal(10))


def without(kind: ProcessKind) -> Sequence[Life]:
    return [each for each in ALL if each.kind is not kind]


def lane(depth: int = 3, oldest_wait_s: float = 1.0, **lately: int) -> Sequence[LaneFacts]:
    return [replace(LANE, depth=depth, oldest_wait_s=oldest_wait_s, lately=replace(BUSY, **lately))]


#: By the name of the alert: what is wrong, and a part of what is said.
CASES: Mapping[str, tuple[Facts, str]] = {
    "HeadraceProcessDown": (
        replace(WELL, lives=[*without(ProcessKind.GPU), life(ProcessKind.GPU, silent_s=31)]),
        "gpu@one has given no sign of life for 31 s.",
    ),
    "HeadraceControlMissing": (
        replace(WELL, lives=[*without(ProcessKind.CONTROL), life(ProcessKind.CONTROL, silent_s=9)]),
        "control@one has given no sign of life for 9 s. No job expires",
    ),
    "HeadraceWebMissing": (replace(WELL, lives=without(ProcessKind.WEB)), "No process 'web' lives."),
    "HeadraceServerDown": (replace(WELL, redis_error="Redis does not answer."), "Redis does not answer."),
    "HeadracePostgresBlocked": (
        replace(WELL, blockers=[BLOCKER], unread={"oldest waits": "a table is locked"}),
        "has held locks for 85 s. Sessions that wait for locks: 7. It is pid 41, 'psql' of ada from 10.0.0.9, "
        "idle in transaction: LOCK TABLE jobs",
    ),
    "HeadraceSweepNotRunning": (
        replace(WELL, lives=[*ALL, life(ProcessKind.CONTROL, problems={"HeadraceSweepNotRunning": "The sweep x"})]),
        "control@one: The sweep x",
    ),
    "HeadraceObserverStopped": (replace(WELL, observed_s=61.0), "have not been sampled for 61 s"),
    "HeadraceQueueStuck": (replace(WELL, lanes=lane(3, 700.0, started=0)), "3 jobs wait in chat.high, and none"),
    "HeadraceOldestWaitTooLong": (replace(WELL, lanes=lane(3, 49.0)), "has waited 49 s, of at most 60"),
    "HeadraceJobsExpire": (replace(WELL, lanes=lane(expired=2)), "2% of the jobs of chat.high expired"),
    "HeadraceJobsFail": (replace(WELL, lanes=lane(failed=9)), "10% of the jobs of chat failed"),
    "HeadraceJobsRefused": (replace(WELL, lanes=lane(refused=30)), "25% of the jobs for chat.high were refused"),
    "HeadraceNoWorkerReady": (replace(WELL, fleets={}), "3 jobs wait in the pool chat, and no worker lives."),
    "HeadraceHostsDoNotCome": (replace(WELL, ordered_s={"chat": 1900.0}), "was ordered 32 minutes ago"),
    "HeadraceProviderFails": (replace(WELL, failing_orders=["chat"]), "The provider refuses"),
    "HeadraceScalingAlert": (replace(WELL, scaling_alerts=[("at_maximum", "chat")]), "'at_maximum' in chat"),
    "HeadraceKvCacheFull": (replace(WELL, fleets={"chat": replace(FLEET, kv_use=0.97)}), "97% of the KV cache"),
    "HeadracePreemptions": (replace(WELL, preempted={"chat": 9}), "9 requests of chat lost their KV blocks"),
    "HeadraceBudgetNearlyUsed": (replace(WELL, accounts=[account("9.1", "shop")]), "91% of the day's budget of shop"),
    "HeadraceBudgetUsed": (replace(WELL, accounts=[account("10")]), "All of the day's budget of all apps together"),
    "HeadraceWebhooksFail": (
        replace(WELL, receivers=[FailingReceiver("shop", "https://a.example/…", 2, 3, "503")]),
        "https://a.example/… does not take the webhooks of shop: 2 are to be tried again. 503",
    ),
    "HeadraceWebhooksLate": (replace(WELL, late_s=301.0), "has waited 301 s"),
    "HeadraceHttpErrors": (
        replace(WELL, lives=[*ALL, life(ProcessKind.WEB, problems={"HeadraceHttpErrors": "9 of 90"})]),
        "web@one: 9 of 90",
    ),
}
#: Alerts that are seen by another name: a sweep that fails or is skipped does not come to its end. `WebProblems` has
#: the other two.
ELSEWHERE = {"HeadraceSweepFailing", "HeadraceSweepSkipped", "HeadraceHttpSlow", "HeadraceHttpSlotsFull"}
#: A plugin says it.
OF_PLUGINS = {
    name
    for path in (PROJECT_ROOT / "plugins").glob("*/health.py")
    for name in re.findall(r'"(Headrace\w+)"', path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("rule", sorted(CASES))
def test_each_alert_is_said_by_its_name_and_nothing_else(rule: str) -> None:
    facts, part = CASES[rule]
    [found] = problems(facts)
    assert (found.rule, part in found.text, found.remedy != "") == (rule, True, True), found


def test_the_alerts_of_prometheus_are_all_known() -> None:
    groups = yaml.safe_load((PROJECT_ROOT / "docker" / "prometheus" / "alerts.yaml").read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"]} == CASES.keys() | ELSEWHERE | OF_PLUGINS


def test_of_a_well_system_nothing_is_said() -> None:
    assert problems(WELL) == []


def test_what_a_person_must_act_on_comes_first() -> None:
    facts = replace(WELL, late_s=400.0, accounts=[account("9.5")], redis_error="Redis does not answer.")
    assert [each.severity for each in problems(facts)] == ["act", "act", "watch"]


def test_a_process_that_stopped_or_came_back_is_not_missed() -> None:
    lost, stopped = life(ProcessKind.GPU, silent_s=40), life(ProcessKind.GPU, silent_s=40, stopped_at=NOW)
    assert problems(replace(WELL, lives=[lost, *ALL])) == []
    assert problems(replace(WELL, lives=[*without(ProcessKind.GPU), stopped])) == []


def test_a_worker_of_a_host_that_was_ended_is_not_missed() -> None:
    lives = [*without(ProcessKind.GPU), life(ProcessKind.GPU, silent_s=40)]
    assert problems(replace(WELL, lives=lives, left_hosts={"one"})) == []


def test_a_process_that_is_lost_again_and_again_is_named_though_it_lives() -> None:
    lost = [life(ProcessKind.GPU, silent_s=100.0 * no) for no in (3, 2, 1)]
    [found] = problems(replace(WELL, lives=[*lost, *ALL]))
    assert found.text == "gpu@one was lost 3 times in the last 10 minutes."
    [found] = problems(replace(WELL, lives=[*lost[:2], replace(lost[2], end_reason="It hung."), *ALL]))
    assert found.text == "gpu@one was lost 3 times in the last 10 minutes. It hung."
    [process] = [each for each in processes_of([*lost, *ALL]) if each.newest.kind is ProcessKind.GPU]
    assert (process.state, process.alive, len(process.lost_s)) == ("live", 1, 3)


def test_while_postgres_takes_no_writes_no_process_is_missed() -> None:
    silent = [life(kind, silent_s=90) for kind in ProcessKind]
    [found] = problems(replace(WELL, lives=silent, postgres_error="Postgres takes no writes."))
    assert (found.rule, found.text) == ("HeadraceServerDown", "Postgres takes no writes.")


def test_what_postgres_does_not_let_be_read_is_named_where_no_session_blocks_it_and_is_not_taken_for_absent() -> None:
    unread = dict.fromkeys(("workers", "processes"), "Postgres took too long")
    [found] = problems(replace(WELL, lives=(), fleets={}, unread=unread))
    assert found.rule == "HeadraceServerDown"
    assert "workers: Postgres took too long; processes: Postgres took too long." in found.text


def test_a_blocking_session_that_postgres_hides_is_named_by_its_pid() -> None:
    hidden = replace(BLOCKER, state=None, lasted_s=None, address=None, query="<insufficient privilege>")
    [found] = problems(replace(WELL, blockers=[hidden]))
    assert "held locks for long. Sessions that wait for locks: 7." in found.text
    assert "pid 41, 'psql' of ada: <insufficient privilege>" in found.text
    assert "SELECT pg_terminate_backend(41)" in found.remedy


def test_a_budget_whose_rest_was_too_little_for_a_call_is_used_up_until_it_is_raised() -> None:
    short = replace(account("9"), short=frozenset({"spent"}))
    [found] = problems(replace(WELL, accounts=[short]))
    assert (found.rule, found.text) == (
        "HeadraceBudgetUsed",
        "90% of the day's budget of all apps together, 10.00 USD, is used, and the rest is too little for a call that "
        "was refused.",
    )
    answers = "The paid API answers no calls of that size until the period ends, or the budget is raised."
    assert found.remedy == answers, "smaller ones may still fit"
    assert problems(replace(WELL, accounts=[replace(short, limit_usd=Decimal(20))])) == []


def test_a_pool_whose_last_few_jobs_all_failed_is_named_and_one_that_answered_some_is_not() -> None:
    paid = replace(LANE, queue="overflow.high", pool="overflow", lately=Flow(ended=5, failed=5))
    down = replace(WELL, has_key=True, lanes=[paid], fleets={"overflow": replace(FLEET, pool="overflow")})
    [found] = problems(down)
    assert (found.rule, found.text) == (
        "HeadraceJobsFail",
        "100% of the jobs of overflow failed in the last 15 minutes: 5 of 5.",
    )
    for few in (Flow(ended=4, failed=4), Flow(ended=6, failed=5), Flow()):
        assert problems(replace(down, lanes=[replace(paid, lately=few)])) == []


def test_a_locked_out_paid_api_is_told_from_no_worker() -> None:
    overflow = replace(LANE, queue="overflow.high", pool="overflow")
    locked = replace(WELL, has_key=True, lanes=[overflow], fleets={"overflow": replace(FLEET, slots=0)})
    [found] = problems(locked)
    assert found.text.startswith("The paid API is locked out")
    assert problems(replace(locked, fleets={"overflow": FLEET})) == []


def test_without_redis_the_alert_that_nothing_was_observed_is_left_out() -> None:
    facts = replace(
        WELL, redis_error="Redis does not answer.", observed_s=90.0, scaling_alerts=[("unobserved", "chat")]
    )
    assert [each.rule for each in problems(facts)] == ["HeadraceServerDown"]
