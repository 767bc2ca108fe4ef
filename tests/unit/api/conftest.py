"""The parts that a submit meets, as fakes: they note what was asked of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from api.catalogue import Catalogue
from api.forecast import Forecast
from api.refusals import Refusals
from api.submit import Submitter
from headrace.admission import Admission, Place
from headrace.config import PoolSettings, Settings
from headrace.errors import HeadraceError
from headrace.jobs import JobSpec, new_id
from headrace.pricing import Tariff
from headrace.queues import Candidate, Ticket
from headrace.store import Store
from headrace.store.apps import App
from headrace.store.insertion import Inserted, JobInsertion, Placement
from headrace.store.workers import Fleet
from headrace.tokens import EstimatingTokenizer

MODEL = "test-model"
LIMIT = 2048


class FakeDoor:
    """Stands for Admission, JobInsertion and Refusals; `steps` is what was asked, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.failures: dict[str, HeadraceError] = {}
        self.inserted: list[JobSpec] = []
        self.committed: list[Ticket] = []
        self.refused: list[tuple[UUID, str, str, int]] = []
        self.start_by: datetime | None = datetime.now(UTC) + timedelta(seconds=30)
        self.rate: float | None = None

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.failures:
            raise self.failures[name]

    def reserve(self, job_id: UUID, candidates: Sequence[Candidate]) -> Place:
        self._step("reserve")
        return Place(candidates[0], position=3, depth=3)

    def insert(self, spec: JobSpec, placement: Placement) -> Inserted:
        self._step("insert")
        self.inserted.append(spec)
        return Inserted(spec.id, self.start_by)

    def commit(self, ticket: Ticket) -> None:
        self._step("commit")
        self.committed.append(ticket)

    def release(self, job_id: UUID, queue: str) -> None:
        self._step("release")

    def drain_rate(self, queue: str) -> float | None:
        return self.rate

    def count(self, app_id: UUID, queue: str, reason: str, tokens: int) -> None:
        self.refused.append((app_id, queue, reason, tokens))

    def fail_at(self, name: str) -> None:
        self._step(name)


class FakeStore:
    """A Store without Postgres; `unavailable` makes it fail."""

    unavailable: HeadraceError | None = None

    @contextmanager
    def begin(self) -> Iterator[Any]:
        if self.unavailable:
            raise self.unavailable
        yield None


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
def app() -> App:
    return App(new_id(), "test", "whsec_test")


@pytest.fixture
def settings() -> Settings:
    pool = PoolSettings(model=MODEL, engine="simulator", max_model_tokens=LIMIT)
    return Settings.load(pools={"chat": pool}, database_url="postgresql://nowhere", redis_url="redis://nowhere")


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fleet]:
    """The live workers by pool, as Postgres would tell; change it before it is first asked for."""
    fleets: dict[str, Fleet] = {}
    monkeypatch.setattr("headrace.store.workers.fleets", lambda _: fleets)
    return fleets


@pytest.fixture
def catalogue(settings: Settings, fleet: dict[str, Fleet]) -> Catalogue:
    return Catalogue(settings.pools, cast(Store, FakeStore()), lambda _: EstimatingTokenizer())


@pytest.fixture
def submitter(door: FakeDoor, settings: Settings, catalogue: Catalogue) -> Submitter:
    admission = cast(Admission, door)
    return Submitter(
        settings=settings,
        store=cast(Store, FakeStore()),
        insertion=cast(JobInsertion, door),
        admission=admission,
        catalogue=catalogue,
        forecast=Forecast(admission, catalogue, settings.pools),
        refusals=cast(Refusals, door),
        tariff=Tariff.of(settings),
        fail_at=door.fail_at,
    )
