"""Two versions on one database: while a release rolls out, the old code works on the new schema beside the new code.

The old version is here as what it says to Postgres: `record.py` has written down the statements of its own use cases,
from the insert of a job to its bill, its webhook and its rescue, with their parameters. A checkout of it would need the
history, its own packages and its own servers; what of it can break is its SQL.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from headrace.config import PROJECT_ROOT
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, time_of
from headrace.domain.jobs import Inserted, Job, JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane
from headrace.domain.states import JobState
from headrace.store import Store, attempts, clock, jobs, months, sql
from headrace.store.attempts import claim_of
from headrace.store.fleet import workers
from headrace.store.jobs.insertion import insert_batch
from headrace.tables import apps, ledger
from tests import one_attempt

#: Of the last release; its name is the schema that it was made for.
(RECORDING,) = Path(__file__).parent.glob("*.sql")
RECORDER = Path(__file__).with_name("record.py")
SEPARATOR = "\n-- ;\n"
#: The jobs of the recording.
ALL = tuple(UUID(int=0x01A21000_0000_7000_8000_000000000000 + number) for number in range(1, 7))
PLAIN, HOOKED, LOST = ALL[:3]

Old = Callable[..., None]


def parts() -> dict[str, list[str]]:
    """The recording's statements, by the names of its parts."""
    texts = RECORDING.read_text().split("-- part: ")[1:]
    return {
        name: [statement for statement in body.split(SEPARATOR) if statement.strip()]
        for name, _, body in (text.partition("\n") for text in texts)
    }


@pytest.fixture
def old(engine: sa.Engine) -> Iterator[Old]:
    """Lets the old version say these parts of its recording, on a connection that it keeps."""
    said = parts()
    connection = engine.execution_options(isolation_level="AUTOCOMMIT").connect()

    def say(*names: str) -> None:
        for name in names:
            for statement in said[name]:
                # Not through SQLAlchemy, to which a percent sign is a parameter.
                connection.connection.driver_connection.execute(statement.encode())

    yield say
    connection.close()


def make_months(store: Store) -> None:
    """Make the months since the recording."""
    with store.begin() as db:
        months.make(db, clock.now(db), time_of(PLAIN))


def find(store: Store, job_id: UUID) -> Job:
    with store.begin() as db:
        return jobs.find(db, db.scalar(sa.select(apps.c.id)), job_id)


def insert(store: Store, job_id: UUID) -> None:
    """What the API does now."""
    with store.begin() as db:
        app_id = db.scalar(sa.select(apps.c.id))
    spec = JobSpec(
        id=job_id,
        app_id=app_id,
        model="smollm2-135m",
        pool="chat",
        lane=Lane.NORMAL,
        messages=(Message("user", "Why?"),),
        sampling=Sampling(max_tokens=16),
        prompt_tokens=8,
        max_wait_s=30.0,
    )
    [outcome] = insert_batch(store, [(spec, Candidate("chat.normal", 1, 1, None, "own pool"))])
    assert isinstance(outcome, Inserted)


def finish(store: Store, job_id: UUID) -> None:
    """What a worker does now, from the claim to the bill."""
    worker = WorkerInfo(new_id(), "gpu@new", "host", "chat", "simulator", "m", 4)
    with store.begin() as db:
        workers.register(db, worker, 30)
    with store.autocommit() as db:
        [row] = attempts.claim_all(db, {job_id: 1}, worker.id, "simulator").values()
    end = AttemptEnd("succeeded", 0.5, Cost(Decimal("0.000001"), "new-1"), "compute", Usage(8, 3), "New.", "stop", "m")
    with store.begin() as db:
        assert one_attempt.finish(db, claim_of(row), JobState.SUCCEEDED, end)


def test_every_statement_of_the_last_release_works_on_the_schema_of_now(
    config: Config, engine: sa.Engine, old: Old
) -> None:
    command.upgrade(config, "head")
    store = Store(engine)
    make_months(store)

    old(*parts())

    assert [find(store, job_id).state for job_id in ALL] == [JobState.SUCCEEDED] * len(ALL)
    with store.begin() as db:
        kinds = list(db.scalars(sa.select(ledger.c.kind).order_by(ledger.c.id)))
    assert sorted(kinds) == ["api", *["cache"] * 2, *["compute"] * 5, *["waste"] * 3]


def test_a_recording_has_every_hot_statement_also_those_that_the_driver_runs_alone() -> None:
    done = subprocess.run([sys.executable, RECORDER], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert re.findall("^-- part: .*$", done.stdout, re.MULTILINE) == [f"-- part: {name}" for name in parts()]
    for file in Path(sql.__file__).parent.glob("*.sql"):
        between_parameters = re.split(r"%\(\w+\)s", sql.text_of(file.stem).replace("%%", "%"))
        assert [piece for piece in between_parameters if piece.strip() not in done.stdout] == [], file.name


def test_two_versions_run_side_by_side_through_an_upgrade(config: Config, engine: sa.Engine, old: Old) -> None:
    store = Store(engine)
    command.upgrade(config, RECORDING.stem)
    make_months(store)
    old("app", "insert plain", "insert hooked", "worker")

    command.upgrade(config, "head")

    # The old worker ends the old job, and the new worker the other one, which the old API took.
    old("finish plain")
    finish(store, HOOKED)
    # The old worker takes a job of the new API and dies; the old sweeps take it back, and the old worker ends it.
    insert(store, LOST)
    old("lose", "finish lost", "look", *(name for name in parts() if name.startswith("sweep ")))
    assert [find(store, job_id).answer for job_id in (PLAIN, HOOKED, LOST)] == ["A channel.", "New.", "A channel."]
