"""Webhooks over real HTTP on loopback, from the outbox to the receiver."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from openai import OpenAI
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from headrace.config import WebhookSettings
from headrace.domain.apps import App
from headrace.domain.deliveries import Pulled
from headrace.domain.ids import show_id
from headrace.domain.queues import Ticket
from headrace.errors import DeliveryFailed
from headrace.policies.webhooks import BUDGET_EVENT, new_secret
from headrace.store import Store, apps, jobs
from headrace.store import deliveries as outbox
from headrace.store.deliveries import add, forget_gone, retry
from headrace.tables import deliveries, gone_receivers
from workers.delivering.deliver import Deliver, DeliverySlots
from workers.delivering.posting import make_session


class Receiver(ThreadingHTTPServer):
    """Answers with `status` and remembers what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.got: list[tuple[dict[str, str], str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def due(store: Store, queued: Callable[..., Ticket], receiver: Receiver) -> Callable[..., tuple[Ticket, UUID]]:
    """A cancelled job with a webhook, and its delivery."""

    def end(url: str | None = None) -> tuple[Ticket, UUID]:
        ticket = queued(webhook_url=url or receiver.url)
        with store.begin() as db:
            jobs.cancel(db, ticket.app_id, ticket.job_id)
            return ticket, db.scalars(sa.select(deliveries.c.id).where(deliveries.c.job_id == ticket.job_id)).one()

    return end


@dataclass
class Sender:
    """A webhook worker without Celery."""

    use_case: Deliver

    def run(self, delivery_id: UUID, *, pulls: bool = True) -> None:
        """Pull what is due, and make a try of this delivery."""
        slots = self.use_case.slots
        with self.use_case.store.begin() as db:
            pulled = outbox.pull(db, self.use_case.terms(16, slots.held())) if pulls else Pulled()
        for delivery in pulled.deliveries:
            slots.hold(delivery)
        if pulls and all(each.id != delivery_id for each in pulled.deliveries):
            return
        with suppress(DeliveryFailed):
            self.use_case.run(delivery_id, row(self.use_case.store, delivery_id).tries)


def deliver(store: Store, *operator_secrets: SecretStr, **changes: object) -> Sender:
    settings = WebhookSettings(**{"allow_private": True, "retry_delays_s": (0, 300), "timeout_s": 5, **changes})
    slots = DeliverySlots(settings)
    session = partial(make_session, settings)
    return Sender(Deliver(store, settings, slots, session, slots.release, operator_secrets, jitter=lambda: 0.0))


def row(store: Store, delivery_id: UUID) -> sa.Row:
    seconds = sa.func.extract("epoch", deliveries.c.next_at - sa.func.now()).label("next_in_s")
    with store.begin() as db:
        return db.execute(sa.select(deliveries, seconds).where(deliveries.c.id == delivery_id)).one()


def test_delivered_webhook_verifies_with_the_openai_sdk(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    ticket, delivery_id = due()

    deliver(store).run(delivery_id)

    ((headers, body),) = receiver.got
    with store.begin() as db:
        secret = apps.find_app(db, "test").webhook_secret
    event = OpenAI(api_key="unused").webhooks.unwrap(body, headers, secret=secret)
    assert (event.type, event.data.id) == ("response.cancelled", show_id(ticket.job_id, "resp_"))
    assert (row(store, delivery_id).state, row(store, delivery_id).last_status) == ("delivered", 200)


def test_delivered_webhook_is_not_sent_again(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()

    for _ in range(3):
        deliver(store).run(delivery_id)

    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500, 503])
def test_anything_but_2xx_is_tried_again_and_a_redirect_is_not_followed(
    status: int, store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()
    receiver.status, receiver.headers = status, {"location": receiver.url}

    deliver(store).run(delivery_id)

    found = row(store, delivery_id)
    assert (found.state, found.tries, found.last_status, len(receiver.got)) == ("pending", 1, status, 1)


def test_same_event_id_is_sent_on_every_try(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()
    receiver.status = 500
    deliver(store).run(delivery_id)
    receiver.status = 200

    deliver(store).run(delivery_id)

    (first, body), (second, again) = receiver.got
    assert first["webhook-id"] == second["webhook-id"]
    assert body == again
    assert row(store, delivery_id).state == "delivered"


def test_receiver_that_asks_for_patience_gets_it(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()
    receiver.status, receiver.headers = 429, {"retry-after": "900"}

    deliver(store).run(delivery_id)

    assert 800 < row(store, delivery_id).next_in_s <= 900


def test_receiver_may_ask_for_patience_until_a_date(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()
    receiver.status, receiver.headers = 503, {"retry-after": format_datetime(datetime.now(UTC) + timedelta(hours=1))}

    deliver(store).run(delivery_id)

    assert 3500 < row(store, delivery_id).next_in_s <= 3600


def test_410_ends_a_receivers_deliveries_for_good(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, first = due()
    _, waits = due()
    _, elsewhere = due(f"{receiver.url}/other")
    with store.begin() as db:
        later = sa.func.now() + timedelta(hours=1)
        db.execute(sa.update(deliveries).where(deliveries.c.id.in_([waits, elsewhere])).values(next_at=later))
    receiver.status = 410
    sender = deliver(store)

    sender.run(first)

    found = row(store, first)
    assert (found.state, found.tries, found.last_status) == ("failed", 1, 410)
    assert (row(store, waits).state, row(store, waits).tries) == ("failed", 0)
    assert row(store, elsewhere).state == "pending", "another URL"

    receiver.status = 200
    _, comes_later = due()
    sender.run(comes_later)
    assert (row(store, comes_later).state, row(store, comes_later).tries) == ("failed", 0)
    assert "410" in row(store, comes_later).last_error
    assert len(receiver.got) == 1

    with store.begin() as db:
        retry(db, [f"evt_{comes_later.hex}"])
    sender.run(comes_later)
    assert row(store, comes_later).state == "delivered", "an operator knows better"


@pytest.fixture
def of_a_batch(store: Store, app: App, receiver: Receiver) -> Callable[[], tuple[None, UUID]]:
    """A delivery about a batch of the app `test`."""

    def add_one() -> tuple[None, UUID]:
        with store.begin() as db:
            add(db, "batch.completed", receiver.url, {"id": "batch_1"}, app.id)
            return None, db.scalars(sa.select(deliveries.c.id).order_by(deliveries.c.id.desc()).limit(1)).one()

    return add_one


def test_a_batchs_end_verifies_with_the_openai_sdk(
    store: Store, of_a_batch: Callable[[], tuple[None, UUID]], receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    _, delivery_id = of_a_batch()
    with caplog.at_level("INFO", "workers.delivering.deliver"):
        deliver(store, SecretStr(SECRET)).run(delivery_id)

    ((headers, body),) = receiver.got
    with store.begin() as db:
        secret = apps.find_app(db, "test").webhook_secret
    event = OpenAI(api_key="unused").webhooks.unwrap(body, headers, secret=secret)
    assert (event.type, event.data.id) == ("batch.completed", "batch_1")
    assert not verifies(SECRET, receiver.got[0]), "the operator's secret is not the app's"
    [told] = [record for record in caplog.records if record.message == "delivered"]
    assert (told.__dict__["subject"], told.__dict__["job_id"]) == ("batch_1", None)


@pytest.mark.parametrize("about", ["due", "of_a_batch"])
def test_while_a_secret_is_rotated_each_try_has_two_signatures_and_either_secret_verifies(
    store: Store, receiver: Receiver, about: str, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(about)
    ids = [make()[1] for _ in range(3)]
    with store.begin() as db:
        old = apps.find_app(db, "test").webhook_secret
    deliver(store, max_running_per_receiver=1).run(min(ids))
    with store.begin() as db:
        new = apps.rotate_webhook_secret(db, "test", keep_old_for=timedelta(hours=1))[0].webhook_secret
    deliver(store, max_running_per_receiver=1).run(sorted(ids)[1])
    with store.begin() as db:
        db.execute(sa.text("UPDATE apps SET webhook_secret_old_until = now()"))
    deliver(store, max_running_per_receiver=1).run(max(ids))

    by_secret = [[verifies(secret, got) for secret in (old, new)] for got in receiver.got]
    assert by_secret == [[True, False], [True, True], [False, True]]
    assert [len(headers["webhook-signature"].split()) for headers, _ in receiver.got] == [1, 2, 1]


def verifies(secret: str, got: tuple[dict[str, str], str]) -> bool:
    headers, body = got
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_pauses_differ_by_chance_so_that_not_all_come_back_at_once(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    receiver.status = 500
    sender = deliver(store, retry_delays_s=(1000,))
    sender.use_case.jitter = Deliver.__dataclass_fields__["jitter"].default
    ids = [due()[1] for _ in range(5)]
    for delivery_id in ids:
        sender.run(delivery_id, pulls=delivery_id == ids[0])
    pauses = [round(row(store, delivery_id).next_in_s) for delivery_id in ids]
    assert all(990 <= each <= 1250 for each in pauses)
    assert len(set(pauses)) > 1


DAY_S = 86_400


@pytest.mark.parametrize(
    ("retry_after", "most_s"),
    [("\u00b2", 1), ("-5", 1), ("soon", 1), ("nan", 1), ("9" * 5000, 1), ("9" * 30, DAY_S), ("1e9", DAY_S)],
)
def test_try_is_recorded_whatever_the_receiver_asks_for(
    retry_after: str, most_s: int, store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()
    receiver.status, receiver.headers = 503, {"retry-after": retry_after}

    deliver(store).run(delivery_id)

    found = row(store, delivery_id)
    assert (found.state, found.last_status) == ("pending", 503)
    assert most_s - 10 < found.next_in_s <= most_s


def test_a_receiver_that_answered_410_is_asked_again_once_it_is_forgotten(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    days = 30
    sender = deliver(store)
    receiver.status = 410
    sender.run(due()[1])
    for days_ago, state, asked in ((days - 1, "failed", 1), (days + 1, "failed", 2), (0, "failed", 2)):
        with store.begin() as db:
            db.execute(sa.update(gone_receivers).values(created_at=sa.func.now() - timedelta(days=days_ago)))
            forget_gone(db, days)
        _, comes_later = due()
        sender.run(comes_later)
        assert (row(store, comes_later).state, len(receiver.got)) == (state, asked)


def test_delivery_fails_after_its_last_try(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], receiver: Receiver
) -> None:
    _, delivery_id = due()
    receiver.status = 500

    deliver(store, retry_delays_s=()).run(delivery_id)

    assert row(store, delivery_id).state == "failed"


def test_receiver_that_is_gone_is_tried_again(store: Store, due: Callable[..., tuple[Ticket, UUID]]) -> None:
    _, delivery_id = due("http://127.0.0.1:1/hook")

    deliver(store).run(delivery_id)

    found = row(store, delivery_id)
    assert (found.state, found.last_status) == ("pending", None)


def test_receiver_without_an_address_is_tried_again(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, delivery_id = due("https://receiver.example/hook")

    def resolve(host: str, *_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

    use_case = deliver(store, allow_private=False)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    use_case.run(delivery_id)
    monkeypatch.undo()

    found = row(store, delivery_id)
    assert (found.state, found.tries, found.last_status) == ("pending", 1, None)
    assert found.last_error == "No answer from the webhook's receiver: gaierror."


def test_a_try_in_the_resolver_ends_at_its_deadline_and_holds_its_slot_until_its_thread_has_ended(
    store: Store, due: Callable[..., tuple[Ticket, UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, delivery_id = due("https://receiver.example/hook")
    answers = threading.Event()

    def resolve(host: str, *_: object, **__: object) -> list[Any]:
        assert answers.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, f"{host} cannot be looked up now")

    sender = deliver(store, allow_private=False, timeout_s=0.2)
    slots = sender.use_case.slots
    real = socket.getaddrinfo

    def resolve_receivers(host: str, *args: Any, **options: Any) -> Any:
        return (resolve if host == "receiver.example" else real)(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_receivers)
    sender.run(delivery_id)
    found = row(store, delivery_id)
    assert (found.state, found.tries) == ("pending", 1)
    assert found.last_error == "The webhook's receiver did not answer within 0.2 s."
    assert slots.held().of_receiver == {"receiver.example": 1}

    answers.set()
    slots.drain(60)
    assert slots.held().of_receiver == {}


def test_private_address_is_never_connected_to(store: Store, due: Callable[..., tuple[Ticket, UUID]]) -> None:
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.setblocking(False)
        port = secret.getsockname()[1]
        for host in hosts:
            for scheme in ("http", "https"):
                _, delivery_id = due(f"{scheme}://{host}:{port}/hook")
                deliver(store, allow_private=False).run(delivery_id)
                assert row(store, delivery_id).last_error == "The webhook's address is not allowed.", host

        with pytest.raises(BlockingIOError):
            secret.accept()


SECRET = new_secret()
DATA = {"app": None, "period": "day", "threshold_percent": 80, "share": 0.81}


@pytest.fixture
def of_the_operator(store: Store, receiver: Receiver) -> UUID:
    """A delivery about a budget."""
    with store.begin() as db:
        add(db, BUDGET_EVENT, receiver.url, DATA)
        return db.scalars(sa.select(deliveries.c.id)).one()


def test_an_operators_webhook_is_signed_with_his_own_secret_and_retried_as_any(
    store: Store, of_the_operator: UUID, receiver: Receiver
) -> None:
    use_case = deliver(store, SecretStr(SECRET))
    receiver.status = 500
    use_case.run(of_the_operator)
    receiver.status = 200
    use_case.run(of_the_operator)

    (first, body), (second, again) = receiver.got
    assert body == again
    assert first["webhook-id"] == second["webhook-id"]
    for headers in (first, second):
        assert Webhook(SECRET).verify(body, headers)["type"] == "budget.threshold_reached"
    assert json.loads(body)["data"] == DATA
    assert row(store, of_the_operator).state == "delivered"


def test_an_operators_webhook_has_two_signatures_while_his_secret_is_rotated(
    store: Store, of_the_operator: UUID, receiver: Receiver
) -> None:
    old, new = new_secret(), new_secret()
    deliver(store, SecretStr(new), SecretStr(old)).run(of_the_operator)
    assert [verifies(secret, receiver.got[0]) for secret in (old, new, SECRET)] == [True, True, False]


def test_an_operators_webhook_is_not_sent_by_a_worker_that_cannot_sign_it(
    store: Store, of_the_operator: UUID, receiver: Receiver
) -> None:
    deliver(store).run(of_the_operator)

    found = row(store, of_the_operator)
    assert (found.state, receiver.got) == ("pending", [])
    assert "budgets.webhook_secret" in found.last_error
