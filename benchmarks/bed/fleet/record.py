"""What became of a load, and of the hosts meanwhile, as Postgres has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bed.fleet.arrivals import Load, Offered
from bed.fleet.stack import SLOTS, TOKENS_PER_S, processes
from bed.load import percentile
from bed.testbed import Counts, Testbed

QUEUE = "chat.normal"


class Sample(NamedTuple):
    """A row of `queue_samples`. `at_s` counts from the first job."""

    at_s: float
    depth: int
    offered: int
    slots: int
    hosts: float
    requested: float
    draining: float


class Change(NamedTuple):
    """A row of `decisions` that is not to hold. `applied_s` is None if nothing came of it."""

    at_s: float
    hosts: int
    target: int
    reason: str
    applied_s: float | None
    error: str | None


class Lease(NamedTuple):
    """A row of `hosts`. `is_explained`: decisions ordered and drained it, or it was there before any."""

    ordered_s: float
    ready_s: float | None
    drained_s: float | None
    ended_s: float | None
    is_adopted: bool
    is_explained: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One run.

    Attributes:
        answers: time and status of each submit, as its client had it.
        killed: attempts that did not succeed: their workers died, or handed them back after they had made tokens.
        twice: jobs with more than one attempt.
        refused: jobs that `refusals` counts.
        p95_wait_s: from the accept to the start.
        left: processes of hosts at the end.
    """

    load: Load
    answers: Sequence[tuple[float, int]]
    counts: Counts
    killed: int
    twice: int
    refused: int
    p95_wait_s: float
    left: int
    samples: Sequence[Sample]
    changes: Sequence[Change]
    leases: Sequence[Lease]

    @property
    def lost(self) -> int:
        """Jobs that were accepted, as the client was told, and have not ended."""
        ended = self.counts.succeeded + self.counts.expired + self.counts.failed
        return max(sum(status == 202 for _, status in self.answers), self.counts.accepted) - ended

    @property
    def refused_share(self) -> float:
        """Of all jobs, those that the door refused."""
        return sum(status == 429 for _, status in self.answers) / len(self.answers)

    @property
    def host_s(self) -> float:
        """Seconds of all leases together, from the first job to the load's end."""
        ends = [self.load.seconds if lease.ended_s is None else lease.ended_s for lease in self.leases]
        return sum(
            max(0.0, min(end_s, self.load.seconds) - max(lease.ordered_s, 0.0))
            for lease, end_s in zip(self.leases, ends, strict=True)
        )

    @property
    def provision_s(self) -> float:
        """The median time from an order to the first ready worker; NaN without an order."""
        ordered = [lease for lease in self.leases if not lease.is_adopted]
        return percentile([lease.ready_s - lease.ordered_s for lease in ordered if lease.ready_s is not None], 50)

    @property
    def unexplained(self) -> int:
        """Leases that began or were drained without a decision."""
        return sum(not lease.is_explained for lease in self.leases)

    def hosts_within(self, start_s: float, end_s: float) -> list[float]:
        """The ready hosts of each sample then."""
        return [sample.hosts for sample in self.samples if start_s <= sample.at_s < end_s]

    def first_order_s(self, after_s: float) -> float | None:
        """When the first host was ordered after this; None for never."""
        return min((lease.ordered_s for lease in self.leases if lease.ordered_s > after_s), default=None)

    def first_refusal_s(self, after_s: float) -> float | None:
        """When the first job was refused after this; None for never."""
        return min((at_s for at_s, status in self.answers if status == 429 and at_s > after_s), default=None)

    def alone_s(self, after_s: float, hosts: int) -> float | None:
        """When there were first at most `hosts` hosts after this time, draining ones included; None for never."""
        counts = ((each.at_s, each.hosts + each.requested + each.draining) for each in self.samples)
        return min((at_s for at_s, count in counts if at_s > after_s and count <= hosts), default=None)


#: An attempt that is handed back leaves no row but its waste in the ledger; its number is used again.
_KILLED = """
    SELECT (SELECT count(*) FROM attempts WHERE outcome IS DISTINCT FROM 'succeeded')
         + (SELECT count(*) FROM ledger WHERE kind = 'waste' AND NOT EXISTS (
                SELECT FROM attempts AS failed WHERE (failed.job_id, failed.number) = (ledger.job_id, ledger.attempt)
                AND failed.outcome IS DISTINCT FROM 'succeeded'))
"""


def read(bed: Testbed, load: Load, offered: Offered) -> Record:
    """Read what is to be known, at the end of everything."""
    began = offered.began
    [(killed,)] = bed.sql(_KILLED)
    [(twice,)] = bed.sql("SELECT count(*) FROM jobs WHERE attempt > 1")
    [(refused,)] = bed.sql("SELECT coalesce(sum(jobs), 0)::int FROM refusals")
    waits = bed.sql("SELECT extract(epoch FROM started_at - created_at)::float FROM jobs WHERE started_at IS NOT NULL")
    samples = bed.sql(
        "SELECT extract(epoch FROM at)::float - %s, depth, offered, slots, hosts, hosts_requested, hosts_draining "
        "FROM queue_samples WHERE queue = %s ORDER BY at",
        *(began, QUEUE),
    )
    changes = bed.sql(
        "SELECT extract(epoch FROM at)::float - %s, hosts, target, reason, extract(epoch FROM applied_at)::float - %s,"
        " error FROM decisions WHERE action <> 'hold' ORDER BY at",
        *(began, began),
    )
    times = ("ordered_at", "ready_at", "drain_at", "ended_at")
    leases = bed.sql(
        f"SELECT {', '.join(f'extract(epoch FROM {name})::float - %s' for name in times)}, is_adopted, "
        "(is_adopted OR decision_id IS NOT NULL) AND (drain_at IS NULL OR drain_decision_id IS NOT NULL) "
        "FROM hosts WHERE ordered_at IS NOT NULL ORDER BY ordered_at",
        *(began for _ in times),
    )
    return Record(
        load=load,
        answers=offered.answers,
        counts=bed.count(),
        killed=killed,
        twice=twice,
        refused=refused,
        p95_wait_s=percentile([wait for (wait,) in waits], 95),
        left=len(processes(bed.stack.report.pids)),
        samples=[Sample(*row) for row in samples],
        changes=[Change(*row) for row in changes],
        leases=[Lease(*row) for row in leases],
    )


def use_between(bed: Testbed, began: float, start_s: float, end_s: float) -> float:
    """The share of the slots of all running engines that was used then, as the engines report it.

    Each counts the jobs that it ran in each step, and a step is the time of one token. Idle, it makes none.
    """
    query = """
        SELECT sum(running * steps) / %s / (sum(interval_s) * %s) FROM worker_samples
        WHERE extract(epoch FROM taken_at) BETWEEN %s AND %s
    """
    return float(bed.sql(query, TOKENS_PER_S, SLOTS, began + start_s, began + end_s)[0][0])
