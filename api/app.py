"""The web process: its parts, built once, and the Flask app: blueprints, who calls, errors, and the headers of all.

`api.server` asks `Gate.admit` before it reads a byte of a body.
"""

import asyncio
import http
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from uuid import UUID

from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import BadHost, HTTPException, InternalServerError

from api.auth import Authenticator, Callers, CallRates
from api.bodies import Bodies
from api.calls import EXTENSION, Later, parts, turn
from api.deps import WebDeps
from api.door.catalogue import Catalogue
from api.door.confinement import ConfinedApps, Poison
from api.door.drafts import BeforeBid
from api.door.intake import Intake
from api.door.paid import CurrentTariff, SharedWallet, SpillSwitch
from api.door.refusals import RefusalCounts, Refusals
from api.door.sharing import ExactCache
from api.door.submit import Submitter
from api.door.vacancies import Vacancies, read_vacancy
from api.health import ReadinessCheck, WebMetrics
from api.hooks import WebCore, WebPart
from api.reading import Reader, Waits
from api.routes import completions, documentation, health, jobs, models, responses, tokens, usage
from api.routes.operations import operation_of
from api.routes.replies import cors_headers, problem, problem_reply
from api.routes.unsupported import remedy
from api.server import Server
from api.slots import Slots
from api.threads import Threads
from api.turns import Headers, Turn
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
from headrace.domain.apps import App, Confinement
from headrace.domain.limits import Balances, Kind
from headrace.errors import NotFound, Refused, nearest
from headrace.installed import parts as of_plugins
from headrace.policies.pricing import Tariff
from headrace.store import Store
from headrace.store.jobs import confinements
from headrace.store.money import budgets, tariffs

#: Reads of usage at once, of the 8 connections to Postgres that a process has.
USAGE_SLOTS = 2


#: The blueprints, in the order in which the reference describes their views.
ROUTES = (
    *(jobs.ROUTES, models.QUEUES, usage.ROUTES, responses.ROUTES, completions.ROUTES),
    *(models.MODELS, tokens.ROUTES, health.ROUTES, documentation.ROUTES),
)
#: Where `web` once served the operators' pages.
OPS_PATH = "/ops"
CODES = {http.HTTPStatus.NOT_FOUND: "not_found", http.HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}
#: The share of letters in order that a misspelt path has in common with what is meant.
LIKENESS = 0.8


class WebServer(Server):
    """The server of the API. Attributes: web: the parts of the process."""

    def __init__(self, web: WebDeps, begin: Callable[[], object] = lambda: None) -> None:
        """Args: begin: called at the first request, on the event loop."""
        self.web, flask = web, make_flask_app(web)
        super().__init__(flask, Gate(web, flask).admit, web.bodies, web.settings.body_limit_bytes, begin)

    def close(self) -> None:
        """Stop the threads and close the connections."""
        super().close()
        self.web.close()


def create_app(settings: Settings, begin: Callable[[], object] = lambda: None) -> WebServer:
    """Returns the ASGI app. Connects to nothing before the first request. Raises: ConfigError."""
    settings.check_pepper()
    settings.check_paid_pools()
    return WebServer(build(settings), begin)


class Gate:
    """Admits calls by their heads."""

    def __init__(self, web: WebDeps, flask: Flask) -> None:
        self._callers, self._flask, self._urls = web.callers, flask, flask.url_map.bind("")
        #: By their Authorization headers, the callers for whom Postgres is being asked.
        self._asking: dict[str | None, asyncio.Future[App]] = {}

    async def admit(self, threads: Threads, method: str, path: str, headers: Headers) -> Turn:
        """Find out who calls, and if the caller may. The turn has the error of a call that is refused."""
        header, turn = headers.get("Authorization"), Turn()
        turn.line = self._callers.authenticator.last_known(header)
        try:
            endpoint, _ = self._urls.match(path, method)
        except HTTPException:
            return turn
        operation = operation_of(self._flask, endpoint)
        if operation.is_open or method == "OPTIONS":
            turn.is_instant = operation.is_instant
            return turn
        try:
            app = await self._caller(threads, header, turn.line)
            turn.line, turn.body = app.id, operation.takes
            self._callers.admit(turn, method, app, submits=operation.makes == "job")
        except Exception as error:
            turn.refuse(error)
        return turn

    async def _caller(self, threads: Threads, header: str | None, line: UUID | None) -> App:
        """Finds the app behind an Authorization header. Calls that come while Postgres is asked share its answer.

        Raises: Unauthenticated. StoreUnavailable.
        """
        authenticator = self._callers.authenticator
        if (app := authenticator.recall(header)) is not None:
            return app
        if (asked := self._asking.get(header)) is None:
            asked = self._asking[header] = threads.run(partial(authenticator.authenticate, header), line)
            asked.add_done_callback(lambda _: self._asking.pop(header))
        return await asyncio.shield(asked)


class WebApp(Flask):
    """The Flask app."""

    def make_default_options_response(self) -> Response:
        """Returns the reply to OPTIONS: the methods that answer."""
        return Response(status=204, headers={"Allow": ", ".join(_allowed_methods())})


def make_flask_app(web: WebDeps) -> Flask:
    """Returns the app with every route."""
    app = WebApp(__name__, static_folder=None)
    app.extensions[EXTENSION] = web
    app.url_map.merge_slashes = False
    # A path means the same with a slash at its end.
    app.url_map.strict_slashes = False
    for routes in (*ROUTES, *(each for part in web.plugins for each in part.blueprints)):
        app.register_blueprint(routes)
    app.before_request(_begin)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _error)
    app.after_request(_finish)
    return app


def _begin() -> Response | None:
    """Set the caller; answer in place of a view whose call was refused before it, or whose reply comes only now."""
    call = turn()
    g.caller = call.caller
    if call.error is not None:
        return _error(call.error)
    return None if call.later is None else call.later()


def _error(error: Exception) -> Response:
    """Returns the reply to a call that failed."""
    if isinstance(error, Refused):
        parts().metrics.note_refusal(error.reason)
    return problem(error, turn().id)


def _http_error(error: HTTPException) -> Response:
    """Returns the reply to what Flask refuses: an unknown path, a wrong method, a redirect, a bug."""
    if isinstance(error, InternalServerError) and isinstance(error.original_exception, Exception):
        return _error(error.original_exception)
    status = error.code or http.HTTPStatus.INTERNAL_SERVER_ERROR
    if status < http.HTTPStatus.BAD_REQUEST:
        return Response(b"", status, {"Location": error.get_response(request.environ).headers["Location"]})
    # Flask has HEAD where it has GET. A path with other methods says so.
    is_as_get = status == http.HTTPStatus.NOT_FOUND and request.method in ("HEAD", "OPTIONS")
    if advice := remedy("GET" if is_as_get else request.method, request.path):
        if request.method == "OPTIONS":
            return Response(status=204, headers={"Allow": "OPTIONS"})
        return _error(NotFound(f"This is not served here. {advice}", code="not_supported"))
    kind = "invalid_request_error" if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    reply = problem_reply(status, _message(error), kind, CODES.get(http.HTTPStatus(status), "invalid_request"))
    if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        reply.headers["Allow"] = ", ".join(_allowed_methods())
    return reply


def _message(error: HTTPException) -> str:
    path = request.path[:80]
    if error.code == http.HTTPStatus.NOT_FOUND:
        if request.path == OPS_PATH or request.path.startswith(f"{OPS_PATH}/"):
            return "The process 'ops' serves the operators' pages, at an address of its own: see docs/ops.md."
        meant = f" Did you mean {near}?" if (near := _near(path)) else ""
        return f"There is no path {path}.{meant} GET /docs shows what there is."
    if error.code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{path} does not know the method {request.method}. It knows {', '.join(_allowed_methods())}."
    if isinstance(error, BadHost):
        return "The header 'Host' has no valid host name. Send the name under which this server is reached."
    return error.description or "The request is not valid HTTP."


def _near(path: str) -> str | None:
    """Finds a served path that this one may stand for: with /v1 once, or spelled a little differently."""
    adapter = current_app.url_map.bind("")
    for each in (path.removeprefix("/v1"), f"/v1{path}"):
        if each != path and each.startswith("/v1/") and adapter.allowed_methods(each):
            return each
    served = [rule.rule for rule in current_app.url_map.iter_rules() if not rule.arguments]
    return next(iter(nearest(path, served, LIKENESS)), None)


def _allowed_methods() -> list[str]:
    """Returns the methods that this request's path answers, sorted, as the header `Allow` lists them."""
    return sorted(current_app.url_map.bind("").allowed_methods(request.path))


def _finish(response: Response) -> Response:
    """Adds the headers that every response has, counts the call, and charges its app."""
    if isinstance(response, Later):
        return response
    web, call = parts(), turn()
    if call.calls_due and call.caller is not None:
        web.callers.rates.charge(call.caller, call.calls_due)
    took_s = time.monotonic() - call.began
    response.headers["x-request-id"] = call.id
    response.headers["openai-processing-ms"] = str(round(took_s * 1000))
    if request.path.startswith("/v1/"):
        response.headers["Cache-Control"] = "no-store"
    if origins := web.settings.cors.origins:
        response.headers.update(cors_headers(origins, request))
    rule = None if request.url_rule is None else request.url_rule.rule
    web.metrics.note(request.method, rule, response.status_code, took_s, kind=call.kind)
    return response


def build(settings: Settings) -> WebDeps:
    """Builds and wires every part of the process."""
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
    refusals = Refusals(settings, admission, forecast, vacancies, RefusalCounts(store, admission))
    core = WebCore(settings, store, redis, admission)
    plugins: tuple[WebPart, ...] = tuple(module.make(core) for module in of_plugins("web"))
    before_bid = tuple(part.before_bid for part in plugins if part.before_bid is not None)
    submitter = _submitter(settings, store, catalogue, forecast, refusals, intake, cache, before_bid)
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
        reader=Reader(store, admission),
        waits=waits,
        streams=Streams(redis),
        metrics=WebMetrics(waits),
        usage_slots=Slots(USAGE_SLOTS),
        readiness=ReadinessCheck(settings, store, admission, catalogue, vacancies),
        plugins=plugins,
    )


def _submitter(
    settings: Settings,
    store: Store,
    catalogue: Catalogue,
    forecast: Forecast,
    refusals: Refusals,
    intake: Intake,
    cache: ExactCache,
    before_bid: tuple[BeforeBid, ...],
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
        before_bid=before_bid,
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
