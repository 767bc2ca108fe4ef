"""What is wrong with the running system, by what Postgres and Redis know of it. Pure.

The rules are those of docker/prometheus/alerts.yaml, by the same names, but for the time that Prometheus lets a
condition last before it alerts. Three kinds have no rule there, since Prometheus does not know enough for them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from headrace.domain.deliveries import FailingReceiver, PausedReceiver
from headrace.domain.fleet import Fleet, Flow, Life, ProcessKind, fleet_of
from headrace.domain.limits import Account, share
from headrace.domain.queues import OVERFLOW, Lane

#: `act`: a person must do something. `watch`: it may become worse.
Severity = Literal["act", "watch"]

#: Lives of one process that end without a word within `LOOP_OF_S` seconds make a loop.
LOOP_LIVES, LOOP_OF_S = 3, 600.0
#: The share of a lane's max_wait that its oldest job may wait.
WAIT_SHARE = 0.8
#: A lane in which no job has started for so long, in seconds, and where jobs wait, is stuck.
STUCK_S = 600.0
#: Of jobs that ended: the shares that may expire and fail; and of jobs that came, the share that may be refused. They
#: count from `LEAST_JOBS` on; where all that ended have failed, from `LEAST_FAILED` on.
EXPIRED_SHARE, FAILED_SHARE, REFUSED_SHARE, LEAST_JOBS, LEAST_FAILED = 0.01, 0.05, 0.1, 20, 5
KV_SHARE = 0.95
OBSERVED_S = 60.0
ORDERED_S = 1800.0
LATE_S = 300.0
#: Failed tries to one receiver, of deliveries that are pending, from which on it counts as failing.
FAILED_TRIES = 3
BUDGET_SHARE = 0.9
#: Seconds: a session that blocks others is a problem once its transaction is older. By then each of Headrace's
#: statements that needs its locks has failed.
BLOCKING_S = 5.0
#: The autoscaler's alert that it sees no samples.
UNOBSERVED = "unobserved"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong.

    Attributes:
        rule: the name of the alert.
        page: the page of /ops that shows more; None: none does.
    """

    rule: str
    severity: Severity
    text: str
    remedy: str
    page: str | None = None


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session of Postgres that others wait for, and that waits for none.

    Attributes:
        application: as it calls itself, or the kind of process that it is.
        query: its present statement, or its last one, cut. Postgres hides it from who may not read it.
        lasted_s: since its transaction began; None: hidden.
        waiting: all sessions that wait for a lock.
    """

    pid: int
    application: str
    user: str | None
    address: str | None
    state: str | None
    query: str
    lasted_s: float | None
    waiting: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process over its lives.

    Attributes:
        newest: its present life, or its last one. Of several processes of one name, the one that began last.
        alive: how many of this name live.
        lost_s: for each life that ended without a word, or hangs, the seconds since its last sign.
        end_reason: why the last of these ended; None: it hangs, or no supervisor saw its end.
    """

    newest: Life
    alive: int
    lost_s: Sequence[float]
    end_reason: str | None

    @property
    def lost_lately(self) -> int:
        """Lives that were lost within `LOOP_OF_S`."""
        return sum(seconds < LOOP_OF_S for seconds in self.lost_s)

    @property
    def state(self) -> str:
        """`live`, `lost` or `stopped`."""
        return "live" if self.alive else "lost" if self.newest.was_lost else "stopped"


def processes_of(lives: Sequence[Life]) -> list[Process]:
    """The processes of these lives, by their names. Args: lives: the oldest first."""
    found = []
    for _, each in groupby(sorted(lives, key=lambda life: life.name), key=lambda life: life.name):
        of_name = list(each)
        lost = [life for life in of_name if life.was_lost]
        reason = lost[-1].end_reason if lost else None
        alive = sum(life.is_alive for life in of_name)
        found.append(Process(of_name[-1], alive, [life.silent_s for life in lost], reason))
    return found


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """One queue as it stands.

    Attributes:
        depth: waiting jobs; None: Redis does not answer.
        oldest_wait_s: None: unread.
        expected_wait_s: of a job that came now; None: unknown.
        max_wait_s: of a job that gives none.
        lately: the last 15 minutes. hour: the hour before these.
    """

    queue: str
    pool: str
    lane: Lane
    depth: int | None
    oldest_wait_s: float | None
    expected_wait_s: float | None
    max_wait_s: float
    lately: Flow = field(default_factory=Flow)
    hour: Flow = field(default_factory=Flow)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the system.

    Attributes:
        redis_error, postgres_error: why a server took no write when it was asked to; None: it took it.
        blockers: sessions that hold locks for long, the oldest first.
        unread: what Postgres did not let be read, and why.
        lives: of all processes, lately, the oldest first.
        left_hosts: hosts that were drained or ended lately: their workers are not missed.
        observed_s: since the queues were last sampled; None: never.
        late_s: for how long the oldest delivery has been due.
        of_plugins: problems that plugins have found.
        ordered_s: by pool, the seconds since its oldest order whose host has not come.
        failing_orders: pools whose provider refuses the last decision.
        scaling_alerts: kind and pool.
        preempted: by pool, the requests that lost their KV blocks lately.
        has_key: the paid API has a key.
    """

    redis_error: str | None = None
    postgres_error: str | None = None
    blockers: Sequence[Blocker] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    lives: Sequence[Life] = ()
    left_hosts: Collection[str] = ()
    lanes: Sequence[LaneFacts] = ()
    fleets: Mapping[str, Fleet] = field(default_factory=dict)
    observed_s: float | None = None
    late_s: float = 0.0
    receivers: Sequence[FailingReceiver] = ()
    paused: Sequence[PausedReceiver] = ()
    of_plugins: Sequence[Problem] = ()
    accounts: Sequence[Account] = ()
    ordered_s: Mapping[str, float] = field(default_factory=dict)
    failing_orders: Collection[str] = ()
    scaling_alerts: Collection[tuple[str, str]] = ()
    preempted: Mapping[str, int] = field(default_factory=dict)
    has_key: bool = False


def problems(facts: Facts) -> list[Problem]:
    """All that is wrong, what a person must act on first."""
    # While Postgres takes no writes, no process can give a sign of life.
    of_processes = () if facts.postgres_error or "processes" in facts.unread else _processes(facts)
    about = (_queues, _hosts, _money, _webhooks)
    found = [
        *_servers(facts),
        *of_processes,
        *(problem for each in about for problem in each(facts)),
        *facts.of_plugins,
    ]
    return sorted(found, key=lambda problem: problem.severity != "act")


def _act(rule: str, page: str | None, text: str, remedy: str) -> Problem:
    return Problem(rule, "act", text, remedy, page)


def _watch(rule: str, page: str | None, text: str, remedy: str) -> Problem:
    return Problem(rule, "watch", text, remedy, page)


def _servers(facts: Facts) -> Iterator[Problem]:
    if facts.redis_error:
        yield _act(
            *("HeadraceServerDown", None, facts.redis_error),
            "Start it, or see its log. Until it serves, new jobs are refused with 503, and nothing is lost.",
        )
    if facts.postgres_error:
        yield _act(
            *("HeadraceServerDown", None, facts.postgres_error),
            "Look for a failover under way, a full disk, or default_transaction_read_only. Nothing is lost.",
        )
    elif facts.unread and not facts.blockers:
        what = "; ".join(f"{name}: {why}" for name, why in facts.unread.items())
        yield _act(
            *("HeadraceServerDown", None, f"Postgres does not get to what this page asks. {what}."),
            "pg_stat_activity shows what runs and what it waits for. Nothing is lost.",
        )
    for each in facts.blockers:
        yield _act("HeadracePostgresBlocked", None, _blocking(each), _UNBLOCK.format(each.pid))


_UNBLOCK = (
    "Wait until it ends its transaction, or end it, as its own role or a superuser: SELECT pg_terminate_backend({})."
)


def _blocking(blocker: Blocker) -> str:
    lasted = "for long" if blocker.lasted_s is None else f"for {blocker.lasted_s:,.0f} s"
    of_whom = " ".join(["of", blocker.user or "no role", *(["from", blocker.address] if blocker.address else [])])
    what = f"'{blocker.application}' {of_whom}{f', {blocker.state}' if blocker.state else ''}: {blocker.query}"
    waiting = f"Sessions that wait for locks: {blocker.waiting:,}. " if blocker.waiting else ""
    return f"A session of Postgres has held locks {lasted}. {waiting}It is pid {blocker.pid}, {what}"


#: The kinds of which one process must live: the alert's name without one, and what does not happen then.
_NEEDED: Mapping[ProcessKind, tuple[str, str]] = {
    ProcessKind.WEB: ("HeadraceWebMissing", "No request is answered."),
    ProcessKind.CONTROL: (
        "HeadraceControlMissing",
        "No job expires, no lost job is rescued, and no host is ordered or ended.",
    ),
    ProcessKind.BEAT: ("HeadraceProcessDown", "Queues are not sampled, and the autoscaler decides nothing."),
}


def _processes(facts: Facts) -> Iterator[Problem]:
    """Those that are lost again and again, or did not come back; those that are missing; what they say themselves."""
    missing = dict(_NEEDED)
    for life in facts.lives:
        if life.is_alive:
            missing.pop(life.kind, None)
            for rule, said in life.problems.items():
                yield _act(rule, "processes", f"{life.name}: {said}", "Its log says more.")
    for process in processes_of(facts.lives):
        newest = process.newest
        if process.lost_lately >= LOOP_LIVES:
            text = f"{newest.name} was lost {process.lost_lately} times in the last {LOOP_OF_S / 60:.0f} minutes."
            text += f" {process.end_reason}" if process.end_reason else ""
            remedy = f"The log of '{newest.kind}' on {newest.host_id} has its last words."
            yield _act("HeadraceProcessDown", "processes", text, remedy)
        elif process.state == "lost" and newest.host_id not in facts.left_hosts:
            rule, what = missing.pop(newest.kind, ("HeadraceProcessDown", ""))
            text = f"{newest.name} has given no sign of life for {newest.silent_s:,.0f} s. {what}".rstrip()
            remedy = (
                f"It was killed, hangs, or does not reach Postgres: see the log of '{newest.kind}' on "
                f"{newest.host_id}, and whether its process {newest.pid} is there."
            )
            yield _act(rule, "processes", text, remedy)
    for kind, (rule, what) in missing.items():
        text = f"No process '{kind}' lives. {what}"
        yield _act(rule, "processes", text, f"Start the Procfile's line '{kind}', and see its log.")
    alive = {life.kind for life in facts.lives if life.is_alive}
    is_late = facts.observed_s is not None and facts.observed_s > OBSERVED_S
    if is_late and {ProcessKind.CONTROL, ProcessKind.BEAT} <= alive and not facts.redis_error:
        text = f"The queues have not been sampled for {facts.observed_s:,.0f} s: the autoscaler is blind."
        yield _act("HeadraceObserverStopped", "processes", text, "See the logs of 'beat' and 'control'.")


def _queues(facts: Facts) -> Iterator[Problem]:
    for lane in facts.lanes:
        yield from _lane(lane)
    for pool, each in groupby(facts.lanes, key=lambda lane: lane.pool):
        yield from _pool(facts, pool, list(each))


def _pool(facts: Facts, pool: str, lanes: Sequence[LaneFacts]) -> Iterator[Problem]:
    fleet, depth = fleet_of(pool, facts.fleets), sum(lane.depth or 0 for lane in lanes)
    if pool == OVERFLOW:
        if facts.has_key and fleet.workers and not fleet.slots:
            yield _act(
                *("HeadraceNoWorkerReady", "budgets"),
                "The paid API is locked out: its last calls failed, and jobs for it wait.",
                "The log of 'overflow' has the provider's answers: a wrong key, a limit, or an outage of its own.",
            )
    elif depth and not fleet.slots and "workers" not in facts.unread:
        who = f"all its {fleet.workers} workers load or drain" if fleet.workers else "no worker lives"
        text = f"{depth:,} jobs wait in the pool {pool}, and {who}."
        yield _act("HeadraceNoWorkerReady", "hosts", text, "See its hosts, and the logs of its workers.")
    if fleet.kv_use is not None and fleet.kv_use > KV_SHARE:
        text = f"{fleet.kv_use:.0%} of the KV cache of {pool} is in use: it takes no more jobs at once."
        yield _watch("HeadraceKvCacheFull", "queues", text, "If jobs wait, the pool needs more hosts.")
    started, preempted = sum(lane.lately.started for lane in lanes), facts.preempted.get(pool, 0)
    if preempted > FAILED_SHARE * started:
        text = f"{preempted:,} requests of {pool} lost their KV blocks to others lately, and were computed twice."
        yield _watch("HeadracePreemptions", "queues", text, "Answers are longer than the KV ledger expects.")
    ended, failed = sum(lane.lately.ended for lane in lanes), sum(lane.lately.failed for lane in lanes)
    if (ended > LEAST_JOBS and failed > FAILED_SHARE * ended) or (LEAST_FAILED <= failed == ended):
        text = f"{failed / ended:.0%} of the jobs of {pool} failed in the last 15 minutes: {failed:,} of {ended:,}."
        yield _act("HeadraceJobsFail", "failed", text, "The failed jobs have their errors.")


def _lane(lane: LaneFacts) -> Iterator[Problem]:
    lately, name, waited_s = lane.lately, lane.queue, lane.oldest_wait_s or 0.0
    if lane.depth and waited_s > STUCK_S and not lately.started:
        text = f"{lane.depth:,} jobs wait in {name}, and none has started for {STUCK_S / 60:.0f} minutes."
        yield _act("HeadraceQueueStuck", "queues", text, "Its workers are gone, or busy with jobs that do not end.")
    elif lane.depth and waited_s > WAIT_SHARE * lane.max_wait_s:
        text = f"The oldest job in {name} has waited {waited_s:,.0f} s, of at most {lane.max_wait_s:,.0f}."
        yield _watch("HeadraceOldestWaitTooLong", "queues", text, "Then it expires. The pool needs more hosts.")
    if lately.ended > LEAST_JOBS and lately.expired > EXPIRED_SHARE * lately.ended:
        text = f"{lately.expired / lately.ended:.0%} of the jobs of {name} expired in the last 15 minutes."
        yield _watch("HeadraceJobsExpire", "queues", text, "The pool is too small, or the lane's cap too high.")
    offered = lately.refused + lately.arrivals
    if lately.refused > LEAST_JOBS and lately.refused > REFUSED_SHARE * offered:
        text = f"{lately.refused / offered:.0%} of the jobs for {name} were refused in the last 15 minutes."
        yield _watch("HeadraceJobsRefused", "queues", text, "There is no room: more hosts, or the paid API, make some.")


def _hosts(facts: Facts) -> Iterator[Problem]:
    for pool, ordered_s in facts.ordered_s.items():
        if ordered_s > ORDERED_S:
            text = f"A host of {pool} was ordered {ordered_s / 60:,.0f} minutes ago, and has not come."
            remedy = "The provider has none, or it starts and its workers do not."
            yield _act("HeadraceHostsDoNotCome", "hosts", text, remedy)
    for pool in facts.failing_orders:
        text = f"The provider refuses what was decided for the hosts of {pool}."
        yield _act("HeadraceProviderFails", "hosts", text, "The hosts' page has its error.")
    for kind, pool in facts.scaling_alerts:
        if kind == UNOBSERVED:
            continue  # It has a rule of its own.
        text = f"The autoscaler alerts to '{kind}' in {pool}."
        yield _watch("HeadraceScalingAlert", "hosts", text, "docs/operations.md says what each alert means.")


def _money(facts: Facts) -> Iterator[Problem]:
    for account in facts.accounts:
        if account.limit_usd is None:
            continue
        used, whose = share(account.used_usd, account.limit_usd), account.app or "all apps together"
        of_budget = f"of the {account.period}'s budget of {whose}, {account.limit_usd:,.2f} USD,"
        if account.is_used_up:
            text, refused = f"All {of_budget} is used.", "no more of these jobs"
            if used < 1:
                text = f"{used:.0%} {of_budget} is used, and the rest is too little for a call that was refused."
                refused = "no calls of that size"
            remedy = f"The paid API answers {refused} until the period ends, or the budget is raised."
            yield _act("HeadraceBudgetUsed", "budgets", text, remedy)
        elif used > BUDGET_SHARE:
            remedy = "The paid API answers no call that does not fit into the rest."
            yield _watch("HeadraceBudgetNearlyUsed", "budgets", f"{used:.0%} {of_budget} is used.", remedy)


def _webhooks(facts: Facts) -> Iterator[Problem]:
    for receiver in facts.receivers:
        if receiver.tries >= FAILED_TRIES:
            yield _watch(
                *("HeadraceWebhooksFail", "deliveries"),
                f"{receiver.origin} does not take the webhooks of {receiver.app or 'the operator'}: "
                f"{receiver.deliveries:,} are to be tried again. {receiver.last_error}",
                "Tell its owner. Each delivery is tried for days, and can be sent again after that.",
            )
    if facts.late_s > LATE_S:
        text = f"The oldest webhook that is due has waited {facts.late_s:,.0f} s."
        remedy = "The processes 'webhooks' are down or too few, or slow receivers hold their slots."
        yield _act("HeadraceWebhooksLate", "deliveries", text, remedy)
