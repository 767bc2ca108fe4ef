"""The web process's composition root: builds every part once, then the app."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from uuid import UUID

from api.auth import Authenticator, Callers, CallRates
from api.bodies import Bodies
from api.deps import WebDeps
from api.door.catalogue import Catalogue
from api.door.confinement import ConfinedApps, Poison
from api.door.intake import Intake
from api.door.paid import CurrentTariff, SharedWallet, SpillSwitch
from api.door.refusals import RefusalCounts, Refusals
from api.door.sharing import ExactCache
from api.door.submit import PlainJobs, Submitter
from api.door.vacancies import Vacancies, read_vacancy
from api.handlers.jobs import accepted_reply, plain_draft
from api.health import Readiness, WebMetrics
from api.mounts.flask_app import make_flask_app
from api.mounts.mount import Mount
from api.reading import Reader, Waits
from api.slots import Slots
from headrace import connections, startup
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.broker.rates import AppRates
from headrace.broker.reuse import Flights
from headrace.broker.streams import Streams
from headrace.config import BudgetSettings, Settings
from headrace.connections.model_files import tokenizer_for
from headrace.connections.redis import redis_client
from headrace.domain.apps import Confinement
from headrace.domain.limits import Balances, Kind
from headrace.policies.pricing import Tariff
from headrace.storage import open_storage
from headrace.store import Store
from headrace.store.jobs import confinements
from headrace.store.money import budgets, tariffs

#: Reads of usage at once, of the 8 connections to Postgres that a process has.
USAGE_SLOTS = 2
#: Files that are taken or sent at once, and the share of them that one app may hold. A slow client holds one without a
#: thread.
FILE_SLOTS, FILE_SHARE = 64, 0.5


def create_app(settings: Settings, begin: Callable[[], object] = lambda: None) -> Mount:
    """The ASGI app. Connects to nothing before the first request. Raises: ConfigError.

    Args: begin: called at the first request, on the event loop.
    """
    settings.check_pepper()
    settings.check_paid_pools()
    web = build(settings)
    return Mount(web, make_flask_app(web), begin)


def build(settings: Settings) -> WebDeps:
    """Every part of the process, wired."""
    store = Store(connections.postgres(settings))
    redis = redis_client(settings)
    message = ExecuteMessage(make_celery("headrace-api", settings))
    admission = Admission(redis, message, reservation_ttl_s=settings.reservation_ttl_s)
    catalogue = Catalogue(settings.pools, settings.overflow, store, tokenizer_for)
    forecast = Forecast(admission, catalogue.read_fleets, settings)
    waits = Waits(redis, store, wait_slots=settings.wait_slots, stream_slots=settings.stream_slots)
    rates = AppRates(redis)
    intake = Intake(store, admission, startup.failpoint(settings.failpoint))
    cache = ExactCache(settings, store, rates, admission, Flights(redis))
    vacancies = Vacancies(forecast, partial(read_vacancy, store, settings))
    refusals = Refusals(settings, admission, forecast, vacancies, RefusalCounts(store, admission), intake.refusals)
    submitter = _submitter(settings, store, catalogue, forecast, refusals, intake, cache)
    return WebDeps(
        settings=settings,
        redis=redis,
        store=store,
        admission=admission,
        catalogue=catalogue,
        forecast=forecast,
        vacancies=vacancies,
        callers=Callers(Authenticator(store, *settings.peppers), CallRates(settings.calls_per_minute)),
        bodies=Bodies(rates, store, settings.bodies_in_flight_bytes, settings.body_grace_s),
        submitter=submitter,
        plain_jobs=PlainJobs(submitter, plain_draft, accepted_reply),
        reader=Reader(store, admission),
        waits=waits,
        streams=Streams(redis),
        metrics=WebMetrics(waits),
        usage_slots=Slots(USAGE_SLOTS),
        file_slots=Slots(FILE_SLOTS, FILE_SHARE),
        storage=open_storage(settings.files),
        readiness=Readiness(settings, store, admission, catalogue, vacancies),
    )


def _submitter(
    settings: Settings,
    store: Store,
    catalogue: Catalogue,
    forecast: Forecast,
    refusals: Refusals,
    intake: Intake,
    cache: ExactCache,
) -> Submitter:
    return Submitter(
        settings=settings,
        store=store,
        intake=intake,
        catalogue=catalogue,
        forecast=forecast,
        refusals=refusals,
        tariff=CurrentTariff(partial(_read_tariff, store, settings), Tariff.of(settings)),
        spill_switch=SpillSwitch(forecast, settings.overflow),
        poison=Poison(partial(_read_poison, store)),
        confined=ConfinedApps(partial(_read_confined, store)),
        wallet=_wallet(store, settings.budgets, forecast),
        cache=cache,
    )


def _wallet(store: Store, configured: BudgetSettings, forecast: Forecast) -> SharedWallet:
    return SharedWallet(partial(_read_balances, store, configured), forecast.spilled, partial(_note_short, store))


def _read_poison(store: Store) -> Mapping[bytes, datetime]:
    with store.autocommit() as db:
        return confinements.refused_prompts(db)


def _read_confined(store: Store) -> Mapping[tuple[UUID, str], Confinement]:
    with store.autocommit() as db:
        return confinements.live(db)


def _read_balances(store: Store, configured: BudgetSettings, apps: Collection[UUID]) -> Balances:
    with store.begin() as db:
        return budgets.balances(db, configured, apps)


def _read_tariff(store: Store, settings: Settings) -> Tariff:
    with store.begin() as db:
        return tariffs.in_force(db, settings)


def _note_short(store: Store, account_id: UUID, kind: Kind) -> None:
    with store.begin() as db:
        budgets.note_short(db, account_id, kind)
