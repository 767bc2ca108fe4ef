"""The web process's composition root: builds every part once, then the Flask app."""

import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flask import Flask, Response, g, request

from api import cors
from api.auth import Authenticator
from api.bodies.in_flight import Bodies
from api.calls import Callers, CallRates
from api.deps import EXTENSION, FAILED, Failed, WebDeps, deps
from api.door.cached.confined_apps import ConfinedApps
from api.door.cached.current_tariff import CurrentTariff
from api.door.cached.poison import Poison
from api.door.catalogue import Catalogue
from api.door.intake import Intake
from api.door.refusals import RefusalCounts, Refusals
from api.door.sharing.exact_cache import ExactCache
from api.door.sharing.single_flight import SingleFlight
from api.door.spill_switch import SpillSwitch
from api.door.submit import Submitter
from api.door.wallet import SharedWallet
from api.early.door import EarlyDoor
from api.early.polls import EarlyPolls
from api.errors import problems
from api.errors.methods import allowed_methods
from api.metrics import WebMetrics
from api.plain import PlainJobs
from api.readiness import Readiness
from api.reading.reader import Reader
from api.reading.slots import Slots
from api.reading.waits import Waits
from api.routes import (
    chat,
    completions,
    documentation,
    embeddings,
    health,
    jobs,
    models,
    queues,
    responses,
    tokens,
    unsupported,
    usage,
)
from api.routes.submission import release_body
from headrace import connections, startup
from headrace.broker.admission import Admission
from headrace.broker.app_rates import AppRates
from headrace.broker.flights import Flights
from headrace.broker.forecast import Forecast
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.broker.streams import Streams
from headrace.config import BudgetSettings, Settings
from headrace.connections.model_files import tokenizer_for
from headrace.domain.apps import Confinement
from headrace.domain.ids import new_id, show_id
from headrace.domain.limits.budgets import Balances, Kind
from headrace.http.request_metrics import Handled, RequestKind
from headrace.policies.pricing import Tariff
from headrace.store import Store
from headrace.store.jobs import confinements, poison
from headrace.store.money import budgets, tariffs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: The type of a response that is a stream of events.
STREAM_TYPE = "text/event-stream"
#: Reads of usage at once, of the 8 connections to Postgres that a process has.
USAGE_SLOTS = 2


class WebApp(Flask):
    """The Flask app. None of its functions is a coroutine, so that none need be looked at before it is called."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself."""
        return func

    def make_default_options_response(self) -> Response:
        """The answer to OPTIONS. A call that is only refused is none of its methods."""
        return Response(status=204, headers={"Allow": ", ".join(allowed_methods())})


def create_app(settings: Settings) -> WebApp:
    """The WSGI app. Connects to nothing before the first request. Raises: ConfigError."""
    settings.check_pepper()
    settings.check_paid_pools()
    app = WebApp(__name__, static_folder=None)
    # werkzeug silently truncates a chunked body at its limit. One byte more shows that a body is too long.
    app.config["MAX_CONTENT_LENGTH"] = settings.body_limit_bytes + 1
    app.url_map.merge_slashes = False
    # A path means the same with a slash at its end.
    app.url_map.strict_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    parts = app.extensions[EXTENSION] = build(settings)
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(release_body)
    cors.register(app, settings.cors.origins)
    problems.register(app)
    for of_jobs in (jobs, responses, chat, completions, embeddings, unsupported):
        app.register_blueprint(of_jobs.blueprint)
    for routes in (models, tokens, queues, usage, health, documentation):
        app.register_blueprint(routes.blueprint)
    app.register_blueprint(documentation.pages)
    # Pages of other origins need headers that Flask adds.
    if not settings.cors.origins:
        app.wsgi_app = _early(app.wsgi_app, parts)  # type: ignore[assignment, method-assign]
    return app


def _early(app: "WSGIApplication", parts: WebDeps) -> "WSGIApplication":
    return EarlyDoor(EarlyPolls(app, parts), parts, PlainJobs(parts.submitter))


def build(settings: Settings) -> WebDeps:
    """Every part of the process, wired."""
    store = Store(connections.postgres(settings))
    redis = connections.redis(settings)
    message = ExecuteMessage(make_celery("headrace-api", settings))
    admission = Admission(redis, message, reservation_ttl_s=settings.reservation_ttl_s)
    catalogue = Catalogue(settings.pools, settings.overflow, store, tokenizer_for)
    forecast = Forecast(admission, catalogue.read_fleets, settings)
    waits = Waits(redis, store, wait_slots=settings.wait_slots, stream_slots=settings.stream_slots)
    rates = AppRates(redis)
    intake = Intake(store, admission, startup.failpoint(settings.failpoint))
    cache = ExactCache(settings, store, rates, admission, SingleFlight(store, Flights(redis)))
    refusals = Refusals(settings, admission, forecast, RefusalCounts(store), intake.refusals)
    return WebDeps(
        settings=settings,
        redis=redis,
        store=store,
        admission=admission,
        catalogue=catalogue,
        forecast=forecast,
        callers=Callers(Authenticator(store, *settings.peppers), CallRates(settings.calls_per_minute)),
        bodies=Bodies(rates, store, settings.bodies_in_flight_bytes, settings.body_grace_s),
        submitter=_submitter(settings, store, catalogue, forecast, refusals, intake, cache),
        reader=Reader(store, admission),
        waits=waits,
        streams=Streams(redis),
        metrics=WebMetrics(waits),
        usage_slots=Slots(USAGE_SLOTS),
        readiness=Readiness(settings, store, admission, catalogue),
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
        return poison.refused(db)


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


def _begin() -> None:
    failed: Failed | None = request.environ.get(FAILED)
    if failed is None:
        g.began, g.request_id = time.monotonic(), show_id(new_id(), "req_")
    else:
        g.began, g.request_id, g.waits = failed.began, failed.request_id, failed.waits


def _end(response: Response) -> Response:
    if (due := g.pop("due", None)) is not None and due.calls:
        deps().callers.rates.charge(due.app, due.calls)
    took_s = time.monotonic() - g.began
    # `add`, because setting a header looks through all that are there. No route sets these two.
    response.headers.add("x-request-id", g.request_id)
    response.headers.add("openai-processing-ms", str(round(took_s * 1000)))
    if request.path.startswith("/v1/"):
        response.headers["Cache-Control"] = "no-store"
    deps().metrics.note(_handled(response), took_s)
    return response


def _handled(response: Response) -> Handled:
    rule = request.url_rule
    is_stream = response.headers["Content-Type"].startswith(STREAM_TYPE)
    kind: RequestKind = "stream" if is_stream else "wait" if g.get("waits") else "plain"
    return Handled(request.method, None if rule is None else rule.rule, response.status_code, kind, g.get("refusal"))
