"""The parts that a submit meets, as fakes: they note what was asked of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from api.door.catalogue import Catalogue
from api.door.confinement import ConfinedApps, Poison
from api.door.intake import Intake
from api.door.paid import SharedWallet, SpillSwitch
from api.door.refusals import RefusalCounts, Refusals
from api.door.sharing import ExactCache
from api.door.submit import Submitter
from api.door.vacancies import Vacancies
from headrace.broker.admission import Admission, Standing
from headrace.broker.forecast import Forecast
from headrace.broker.rates import AppRates
from headrace.broker.reuse import Flights
from headrace.config import PoolSettings, Settings
from headrace.domain.apps import App
from headrace.domain.fleet import Fleet, Remedy, Vacancy
from headrace.domain.ids import new_id
from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.limits import NO_RATES, Account, Balances, SpendingLimits
from headrace.domain.places import Ask, Load, Place, Refusal, RefusalCount, RefusalKey
from headrace.domain.queues import Candidate, Ticket
from headrace.errors import HeadraceError, StoreUnavailable
from headrace.policies.pricing import Tariff
from headrace.policies.tokens import EstimatingTokenizer
from headrace.store import Store

MODEL = "test-model"
LIMIT = 2048


class FakeDoor:
    """Stands for Admission, `insert_batch` and RefusalCounts; `steps` is what was asked, in order.

    Attributes:
        failures: by step, what it raises.
        refusal: what every ask is answered, instead of a place.
        outcome: what an insert makes of every row, instead of a new job.
        backlog: what waits, by queue; nothing in the others.
        departures: jobs that have ever left a pool's queues.
        next_worker: of a pool without workers, why one comes, and in how many seconds; None: that is unknown.
        rates: the outlook, as `headrace.policies.forecasting.to_json` writes it.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.failures: dict[str, HeadraceError] = {}
        self.refusal: Refusal | None = None
        self.outcome: Inserted | HeadraceError | None = None
        self.asked: list[list[Ask]] = []
        self.inserted: list[tuple[JobSpec, Candidate]] = []
        self.committed: list[Ticket] = []
        self.lookups: dict[UUID, str] = {}
        self.given_back: list[UUID] = []
        self.knocks: list[tuple[UUID, str, float]] = []
        self.refused: list[tuple[UUID, str, str, int, int]] = []
        self.marks: list[bytes | None] = []
        self.start_by = datetime.now(UTC) + timedelta(seconds=30)
        self.backlog: dict[str, Load] = {}
        self.rates: str | None = None
        self.departures = 0
        self.next_worker: tuple[Remedy | None, float | None] | None = None

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.failures:
            raise self.failures[name]

    def reserve(self, asks: Sequence[Ask]) -> list[Place | Refusal]:
        self._step("reserve")
        self.asked.append(list(asks))
        return [self.refusal or Place(ask.candidates[0], 3, 4, 500, NO_RATES) for ask in asks]

    def insert_batch(self, _: Store, rows: Sequence[tuple[JobSpec, Candidate]]) -> list[Inserted | HeadraceError]:
        self._step("insert")
        self.inserted += rows
        return [self.outcome or Inserted(spec.id, self.start_by) for spec, _ in rows]

    def commit(self, tickets: Sequence[Ticket], lookups: Mapping[UUID, str]) -> None:
        # The door is not asked for nothing.
        if tickets:
            self._step("commit")
            self.committed += tickets
            self.lookups |= lookups

    def give_back(self, job_ids: Iterable[UUID]) -> int:
        given = list(job_ids)
        if given:
            self._step("give_back")
            self.given_back += given
        return len(given)

    def knock(self, app_id: UUID, queue: str, tokens: int, for_s: float) -> None:
        assert tokens > 0
        self._step("knock")
        self.knocks.append((app_id, queue, for_s))

    def loads(self, queues: Sequence[str]) -> dict[str, Load]:
        if "loads" in self.failures:
            raise self.failures["loads"]
        return {queue: self.backlog.get(queue, Load(0, 0, 0, 0)) for queue in queues}

    def standing(self, read_fleets: Callable[[], Mapping[str, Fleet]]) -> Standing:
        return Standing({"chat": self.departures}, read_fleets())

    def outlook(self) -> str | None:
        return self.rates

    def vacancy(self, pool: str) -> Vacancy:
        if self.next_worker is None:
            raise StoreUnavailable
        return Vacancy(pool, *self.next_worker)

    def add(self, key: RefusalKey, count: RefusalCount, mark: bytes | None) -> None:
        assert count.jobs == 1
        self.refused.append((key.app_id, key.queue, key.reason, count.tokens, count.expected_tokens))
        self.marks.append(mark)

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

    autocommit = begin


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeDoor:
    door = FakeDoor()
    monkeypatch.setattr("api.door.intake.insert_batch", door.insert_batch)
    return door


@pytest.fixture
def app() -> App:
    return App(new_id(), "test", "whsec_test")


@pytest.fixture
def settings() -> Settings:
    pool = PoolSettings(model=MODEL, engine="simulator", max_model_tokens=LIMIT)
    servers = {"database_url": "postgresql://nowhere", "redis_url": "redis://nowhere"}
    return Settings.load(pools={"chat": pool}, pepper="of-the-tests", **servers)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fleet]:
    """The live workers by pool, as Postgres would tell; change it before it is first asked for."""
    fleets: dict[str, Fleet] = {}
    monkeypatch.setattr("headrace.store.fleet.workers.fleets", lambda _: fleets)
    return fleets


@pytest.fixture
def catalogue(settings: Settings, fleet: dict[str, Fleet]) -> Catalogue:
    return Catalogue(settings.pools, settings.overflow, cast(Store, FakeStore()), lambda _: EstimatingTokenizer())


@pytest.fixture
def intake(door: FakeDoor) -> Intake:
    return Intake(cast(Store, FakeStore()), cast(Admission, door), door.fail_at)


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> list[Account]:
    """What was spent, as Postgres would tell at any moment."""
    monkeypatch.setattr("api.door.paid.ACCOUNTS_TTL_S", -1)
    return []


@pytest.fixture
def submitter(
    door: FakeDoor, intake: Intake, settings: Settings, catalogue: Catalogue, accounts: list[Account]
) -> Submitter:
    forecast = Forecast(cast(Admission, door), catalogue.read_fleets, settings)
    vacancies = Vacancies(forecast, door.vacancy)
    together = SpendingLimits(None, Decimal(1_000_000))
    cache = ExactCache(settings, cast(Store, None), cast(AppRates, None), cast(Admission, door), cast(Flights, None))
    return Submitter(
        settings=settings,
        store=cast(Store, FakeStore()),
        intake=intake,
        catalogue=catalogue,
        forecast=forecast,
        refusals=Refusals(settings, intake.admission, forecast, vacancies, cast(RefusalCounts, door)),
        tariff=lambda: Tariff.of(settings),
        spill_switch=SpillSwitch(forecast, settings.overflow),
        poison=Poison(lambda: {}),
        confined=ConfinedApps(lambda: {}),
        wallet=SharedWallet(lambda _: Balances(together, list(accounts)), forecast.spilled, lambda *_: None),
        cache=cache,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time as the refusals see it; a test moves it by setting `now_s`."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("api.door.refusals.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock
