"""The steps of a worker, on jobs that are queued: what Postgres and Valkey are asked for each, in shares."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from bed.steps.meter import Meter
from bed.testbed import Testbed
from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec, StreamPiece
from headrace.domain.limits import Cost
from headrace.domain.states import JobState
from headrace.store import Store, attempts
from headrace.store.attempts import claim_of
from headrace.store.fleet import workers

#: Jobs that share a round trip, as they do with 32 threads.
SHARE = 16
LEASE_S = 3600
ENGINE = "simulator"
END = AttemptEnd(
    "succeeded", 0.5, Cost(Decimal("0.00000123"), "steps"), "compute", Usage(260, 64), "word " * 64, "stop"
)


class Worker:
    """What a worker process has of the servers, and its row."""

    def __init__(self, bed: Testbed) -> None:
        report = bed.stack.report
        settings = Settings.load(database_url=report.database_url, redis_url=report.redis_url, engine=ENGINE)
        redis = redis_client(settings)
        self._store = Store(connections.postgres(settings, pool_size=connections.OF_A_WORKER))
        message = ExecuteMessage(make_celery("steps", settings))
        self._admission = Admission(redis, message, reservation_ttl_s=settings.reservation_ttl_s)
        self._streams = Streams(redis)
        self._info = WorkerInfo(new_id(), "gpu@steps", "host", "chat", ENGINE, "served", 32, 2048, 65_536, 16)
        with self._store.begin() as db:
            workers.register(db, self._info, LEASE_S)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def measure(self, meter: Meter, specs: Sequence[JobSpec]) -> None:
        """One round of every step, with these queued jobs."""
        jobs = len(specs)
        claims: list[Claim] = []
        meter.step("claim share", jobs, lambda: [claims.extend(self._claimed(share)) for share in _shares(specs)])
        assert len(claims) == jobs, f"{len(claims)} of {jobs} were claimed"
        stays = [(claim.job_id, claim.enqueue_no) for claim in claims]
        meter.step("notice of a claim, share", jobs, lambda: [self._admission.leave(share) for share in _shares(stays)])
        meter.step("publish: begin", jobs, lambda: [self._streams.begin(*stay) for stay in stays])
        pieces = [StreamPiece(job_id, enqueue_no, 0, "word " * 8) for job_id, enqueue_no in stays]
        meter.step("publish share", jobs, lambda: [self._streams.publish(share) for share in _shares(pieces)])
        meter.step("finish share", jobs, lambda: [self._finish(share) for share in _shares(claims)])
        ids = [claim.job_id for claim in claims]
        meter.step("notice of an end, share", jobs, lambda: [self._admission.announce_ended(s) for s in _shares(ids)])

    def _claimed(self, specs: Sequence[JobSpec]) -> list[Claim]:
        with self._store.autocommit() as db:
            rows = attempts.claim_all(db, {spec.id: 1 for spec in specs}, self._info.id, ENGINE)
        return [claim_of(row) for row in rows.values()]

    def _finish(self, claims: Sequence[Claim]) -> None:
        with self._store.autocommit() as db:
            ended = attempts.finish_all(db, JobState.SUCCEEDED, [(claim, END) for claim in claims])
        assert len(ended) == len(claims), f"{len(ended)} of {len(claims)} ended"


def _shares(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[at : at + SHARE] for at in range(0, len(items), SHARE))
