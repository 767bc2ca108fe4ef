"""Whether the promises held: the client's history beside what Postgres has, compared in SQL.

Knows the tables and the history, and nothing of what broke.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from psycopg import Connection

from bed.chaos.faults import Fault
from bed.chaos.orders import Order
from bed.chaos.world import DEPTH_CAP, HOSTS, World
from bed.load import percentile
from peers.paid_api import usd

#: Kinds after which a worker's jobs run elsewhere.
OF_WORKERS = frozenset({"kill_gpu", "kill_overflow", "freeze_gpu", "host_dies_draining"})

_HISTORY = """
    CREATE TEMPORARY TABLE history (
        number int, order_id text PRIMARY KEY, job_id uuid, seen text, fingerprint text, is_poison bool, wish text
    ) ON COMMIT DROP
"""
#: By the name of a figure: each counts what must not be there.
_NEVER = {
    # Accepted, and not in one terminal state.
    "lost": """
        SELECT count(*) FROM history h LEFT JOIN jobs j ON j.id = h.job_id
        WHERE h.job_id IS NOT NULL AND (j.id IS NULL OR j.state IN ('waiting', 'queued', 'running'))
    """,
    # An order that was carried out twice: two jobs, two answers, two webhooks, or an end that changed. An erased job
    # has no metadata any more.
    "double_effects": """
        SELECT (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'succeeded' AND erased_at IS NULL
                                      GROUP BY metadata->>'order' HAVING count(*) > 1))
             + (SELECT count(*) FROM (SELECT FROM attempts WHERE outcome = 'succeeded'
                                      GROUP BY job_id HAVING count(*) > 1))
             + (SELECT count(*) FROM (SELECT FROM deliveries GROUP BY job_id HAVING count(*) > 1))
             + (SELECT count(*) FROM history h JOIN jobs j ON j.id = h.job_id WHERE h.seen <> j.state)
    """,
    "double_billed": """
        SELECT count(*) FROM (
            SELECT FROM ledger l JOIN jobs j ON j.id = l.job_id WHERE l.kind <> 'waste'
            GROUP BY coalesce(j.metadata->>'order', j.id::text) HAVING count(*) > 1)
    """,
    # A job that the app is told another price of than its ledger adds up to, or that was answered for nothing.
    "misbilled": """
        SELECT count(*) FROM jobs j
        LEFT JOIN (SELECT job_id, sum(usd) AS usd FROM ledger WHERE kind <> 'waste' GROUP BY 1) l ON l.job_id = j.id
        WHERE j.usd <> coalesce(l.usd, 0) OR (j.state = 'succeeded' AND l.usd IS NULL)
    """,
    "wrong_answers": """
        SELECT count(*) FROM history h JOIN jobs j ON j.id = h.job_id JOIN job_texts t ON t.job_id = j.id
        WHERE j.state = 'succeeded' AND coalesce(position(h.fingerprint in t.answer), 0) = 0
    """,
    # Jobs that no client was told of, beyond those whose 202 was lost for good: every order is posted until it is told.
    "unknown_jobs": """
        SELECT count(*) FROM jobs j JOIN history h ON h.order_id = j.metadata->>'order'
        WHERE h.job_id IS NOT NULL AND j.id <> h.job_id
    """,
    "webhooks_missing": """
        SELECT count(*) FROM jobs j LEFT JOIN deliveries d ON d.job_id = j.id
        WHERE j.webhook_url IS NOT NULL AND j.state = 'succeeded' AND d.state IS DISTINCT FROM 'delivered'
    """,
    # Decisions that ordered more hosts than they wanted.
    "hosts_overordered": """
        SELECT count(*) FROM (
            SELECT FROM hosts h JOIN decisions d ON d.id = h.decision_id
            GROUP BY d.id HAVING count(*) > d.target - d.hosts)
    """,
    # Jobs with one answer, of which not exactly one was charged: the one that made it.
    "flights_paid_twice": """
        SELECT count(*) FROM (
            SELECT FROM (SELECT served_by_job AS leader_id, id FROM jobs WHERE state = 'succeeded'
                         UNION SELECT served_by_job, served_by_job FROM jobs WHERE state = 'succeeded') flight
            LEFT JOIN ledger l ON l.job_id = flight.id AND l.kind IN ('compute', 'api')
            WHERE leader_id IS NOT NULL GROUP BY leader_id HAVING count(l.id) <> 1)
    """,
    # Jobs with another's answer that lack their one entry of 0 USD with what it saved, or that an engine ran too.
    "followers_misbooked": """
        SELECT count(*) FROM (
            SELECT FROM jobs j LEFT JOIN ledger l ON l.job_id = j.id
            WHERE j.state = 'succeeded' AND j.served_by_job IS NOT NULL GROUP BY j.id
            HAVING count(*) FILTER (WHERE l.kind = 'cache' AND l.usd = 0 AND l.saved_usd > 0) <> 1 OR count(*) <> 1
                OR EXISTS (SELECT FROM attempts a WHERE a.job_id = j.id))
    """,
    "other_answers": """
        SELECT count(*) FROM jobs j JOIN job_texts own ON own.job_id = j.id
        JOIN job_texts leader ON leader.job_id = j.served_by_job
        WHERE j.state = 'succeeded' AND own.answer IS DISTINCT FROM leader.answer
    """,
    "money_stuck": "SELECT count(*) FROM budgets WHERE reserved_usd <> 0",
}
_SHARE = """
    SELECT coalesce(avg((j.state = 'succeeded' OR h.wish = 'cancel' AND j.state = 'cancelled')::int), 0)
    FROM history h JOIN jobs j ON j.id = h.job_id WHERE NOT h.is_poison
"""
#: Jobs that another's answer ended: one under way, or a stored one; and those that lead the others of a leader without.
_SHARED = """
    SELECT count(*) FILTER (WHERE cache = 'shared' AND state = 'succeeded') AS shared,
        count(*) FILTER (WHERE cache = 'hit') AS hits,
        count(*) FILTER (WHERE route_reason LIKE 'follows %' AND served_by_job IS NULL) AS promoted FROM jobs
"""
_POISON = """
    SELECT count(*) FROM history h JOIN jobs j ON j.id = h.job_id WHERE h.is_poison AND j.error_code <> 'engine_crash'
"""
_MONEY = """
    SELECT coalesce(sum(l.usd) FILTER (WHERE l.kind = 'api'), 0),
        coalesce(sum(l.usd) FILTER (WHERE l.kind = 'waste' AND j.route = 'overflow'), 0),
        (SELECT coalesce(sum(spent_usd), 0) FROM budgets WHERE app_id IS NULL AND period = 'month')
    FROM ledger l JOIN jobs j ON j.id = l.job_id
"""
#: From a fault at this time to the next job that ended.
_NEXT_END = "SELECT extract(epoch FROM min(ended_at)) FROM jobs WHERE ended_at > to_timestamp(%s)"
#: Of each attempt that was lost with its worker, when the next began.
_ELSEWHERE = """
    SELECT extract(epoch FROM lost.ended_at), extract(epoch FROM next.started_at) FROM attempts lost
    JOIN attempts next ON next.job_id = lost.job_id AND next.number = lost.number + 1 WHERE lost.outcome = 'lost'
"""


def judge(world: World, orders: Sequence[Order], faults: Sequence[Fault], depths: Sequence[int]) -> dict[str, Any]:
    """Every figure. Args: depths: of all queues together, as an onlooker saw them."""
    with world.database() as db:
        _write_down(db, orders)
        figures: dict[str, Any] = {name: _number(db, query) for name, query in _NEVER.items()}
        figures["poison_at_large"] = _number(db, _POISON)
        figures["succeeded_share"] = float(_number(db, _SHARE))
        figures["attempts_per_job"] = float(_number(db, "SELECT avg(attempt) FROM jobs"))
        figures |= _shared(db)
        figures |= _money(db, world)
        figures |= _recovery(db, faults)
    figures["hosts_adrift"] = _adrift(world) if world.moves_hosts else 0
    accepted = [order for order in orders if order.depth is not None]
    figures["overshoot_new"] = max((max(0, order.depth - DEPTH_CAP) for order in accepted if order.depth), default=0)
    figures["depth_peak"] = max(depths, default=0)
    figures["slowest_post_s"] = max((order.longest_s for order in orders), default=0.0)
    return figures


def _adrift(world: World) -> int:
    """Hosts that are too many or missing, those that have no process or no lease, and those that never had a lease."""
    leases = {str(host_id): ended_at is None for host_id, ended_at in world.sql("SELECT id, ended_at FROM hosts")}
    live = {host_id for host_id, is_live in leases.items() if is_live}
    return abs(len(live) - HOSTS) + len(live ^ world.gpus.keys()) + len(world.host_proxy.started - leases.keys())


def _write_down(db: Connection[Any], orders: Sequence[Order]) -> None:
    db.execute(_HISTORY)
    with db.cursor().copy("COPY history FROM STDIN") as copy:
        for order in orders:
            job_id = order.job_id and order.job_id.removeprefix("job_")
            told = (order.seen, order.fingerprint, order.is_poison, order.wish)
            copy.write_row((order.number, str(order.number), job_id, *told))


def _number(db: Connection[Any], query: str) -> Any:
    row = db.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def _shared(db: Connection[Any]) -> dict[str, int]:
    """How often one attempt answered more than one job: without that, the figures of flights prove nothing."""
    row = db.execute(_SHARED.encode()).fetchone()
    assert row is not None
    return dict(zip(("shared", "hits", "promoted"), row, strict=True))


def _money(db: Connection[Any], world: World) -> dict[str, Any]:
    """The provider's own bill beside the ledger: what was charged there must be booked, as paid or as waste."""
    row = db.execute(_MONEY.encode()).fetchone()
    assert row is not None
    api, waste, spent = row
    bill = usd(world.bill())
    return {
        "bill_usd": f"{bill:f}",
        "ledger_api_usd": f"{api:f}",
        "ledger_waste_usd": f"{waste:f}",
        "unbooked_usd": f"{max(Decimal(0), bill - api - waste):f}",
        "overbooked_usd": f"{max(Decimal(0), api - bill):f}",
        "budget_off_usd": f"{abs(spent - api - waste):f}",
    }


def _recovery(db: Connection[Any], faults: Sequence[Fault]) -> dict[str, Any]:
    """Seconds from the end of a fault to the next job that ends: `recoveries` has those of each, in their order.

    For jobs that were lost with a worker, where nothing else broke meanwhile: from its end until they were taken from
    it, and until they ran elsewhere, which has the wait in the queue in it.
    """
    recoveries = []
    for fault in faults:
        row = db.execute(_NEXT_END, (fault.ended,)).fetchone()
        assert row is not None
        recoveries.append(None if row[0] is None else float(row[0]) - fault.ended)
    rescued, elsewhere = [], []
    for lost_at, started_at in db.execute(_ELSEWHERE.encode()).fetchall():
        last = next((fault for fault in reversed(faults) if fault.began <= lost_at), None)
        if last is not None and last.kind in OF_WORKERS:
            rescued.append(float(lost_at) - last.began)
            elsewhere.append(float(started_at) - last.began)
    seconds = [each for each in recoveries if each is not None]
    return {
        "recovery_p95_s": percentile(seconds, 95),
        "recovery_max_s": max(seconds, default=0.0),
        "rescued_p95_s": percentile(rescued, 95),
        "elsewhere_p95_s": percentile(elsewhere, 95),
        "reruns": len(elsewhere),
        "recoveries": recoveries,
    }
