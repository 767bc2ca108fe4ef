"""`headrace deliveries` on a real Postgres."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.domain.deliveries import Terms
from headrace.domain.ids import new_id
from headrace.store import Store, apps, deliveries
from headrace.store.audit import this_user

Run = Callable[..., Result]
URL = "https://receiver.example/hook?token=1"


@pytest.fixture
def write(store: Store) -> Callable[..., UUID]:
    """Writes a delivery in this state, after three tries, of an app of this name; None: the operator's."""

    def insert(state: str, app: str | None = "shop", error: str | None = None, status: int | None = None) -> UUID:
        delivery_id = new_id()
        with store.begin() as db:
            app_id = apps.ensure(db, app).id if app else None
            db.execute(
                sa.text(
                    "INSERT INTO deliveries (id, app_id, event, url, data, state, tries, last_error, last_status,"
                    " next_at) VALUES (:id, :app_id, 'test', :url, '{}', :state, 3, :error, :status,"
                    " now() + interval '1 hour')"
                ),
                {"id": delivery_id, "app_id": app_id, "url": URL, "state": state, "error": error, "status": status},
            )
        return delivery_id

    return insert


def test_deliveries_are_listed_with_url_tries_and_last_answer_and_the_failed_ones_alone(
    run: Run, write: Callable[..., UUID]
) -> None:
    failed = write("failed", error="The webhook's receiver answered 500.", status=500)
    delivered = write("delivered", status=204)
    waiting = write("pending", app=None, error="The webhook's receiver did not answer within 15 s.")

    lines = run("deliveries").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [f"evt_{each.hex}" for each in (waiting, delivered, failed)]
    assert lines[2].split()[1:] == ["shop", "delivered", "3", "204", URL]
    assert "The webhook's receiver answered 500." in lines[3]

    [only] = json.loads(run("deliveries", "--failed", "--json").stdout)
    assert (only["id"], only["url"], only["tries"]) == (f"evt_{failed.hex}", URL, 3)
    assert (only["last_status"], only["last_error"]) == (500, "The webhook's receiver answered 500.")
    assert json.loads(run("deliveries", "--app", "shop", "--limit", "1", "--json").stdout)[0]["state"] == "delivered"
    assert "There is no app 'nobody'" in run("deliveries", "--app", "nobody").stderr


def test_a_delivery_says_what_it_is_about(run: Run, store: Store) -> None:
    with store.begin() as db:
        deliveries.add(db, "batch.completed", URL, {"id": "batch_1"}, apps.ensure(db, "shop").id)
        deliveries.add(db, "budget.threshold_reached", URL, {"id": "x"})
    told = json.loads(run("deliveries", "--json").stdout)
    assert [(each["app"], each["job_id"], each["subject"]) for each in told] == [
        (None, None, "x"),
        ("shop", None, "batch_1"),
    ]


def test_a_receiver_is_paused_listed_and_resumed(run: Run, write: Callable[..., UUID]) -> None:
    write("pending", error="The webhook's receiver answered 500.")
    assert run("deliveries", "paused").stdout == "No receiver is paused.\n"

    told = run("deliveries", "pause", "shop", URL).stdout
    assert told == "receiver.example is paused: 1 webhooks of shop wait for it\n"
    [paused] = json.loads(run("deliveries", "paused", "--json").stdout)
    assert (paused["app"], paused["receiver"], paused["deliveries"]) == ("shop", "receiver.example", 1)
    assert paused["operator"] == this_user().name
    since = paused["since"]
    run("deliveries", "pause", "shop", URL)
    [again] = json.loads(run("deliveries", "paused", "--json").stdout)
    assert (again["since"], again["operator"]) == (since, this_user().name), "a second pause changes nothing"
    assert "receiver.example" in run("deliveries", "paused").stdout
    assert json.loads(run("deliveries", "--json").stdout)[0]["state"] == "pending"

    assert "receiver.example is sent to again" in run("deliveries", "resume", "shop", "receiver.example").stdout
    assert "is not paused for this app" in run("deliveries", "resume", "shop", "receiver.example").stderr
    assert "There is no app 'nobody'" in run("deliveries", "pause", "nobody", "receiver.example").stderr
    assert "is no receiver" in run("deliveries", "pause", "shop", "/hook").stderr


def test_a_url_stays_whole_where_a_pipe_gets_80_characters_a_line(run: Run, write: Callable[..., UUID]) -> None:
    write("failed", error="The webhook's receiver did not answer within 15 s. It may be busy.")

    lines = run("deliveries", COLUMNS="80").stdout.splitlines()

    assert lines[1].split()[-1] == URL
    assert len(lines[1]) > 80


def test_nothing_to_list_is_said(run: Run) -> None:
    assert run("deliveries").stdout == "There are no deliveries.\n"
    assert run("deliveries", "--failed").stdout == "No delivery has failed for good.\n"


@pytest.mark.parametrize("state", ["failed", "delivered", "pending"])
def test_a_delivery_is_tried_again_at_once_with_the_whole_schedule_before_it(
    run: Run, store: Store, write: Callable[..., UUID], state: str
) -> None:
    delivery_id = write(state)
    assert run("deliveries", "retry", f"evt_{delivery_id.hex}").stdout == f"evt_{delivery_id.hex} is tried again\n"
    with store.begin() as db:
        [delivery] = deliveries.pull(db, Terms(1, per_app=1, per_receiver=1, max_tries=1, lease_s=60)).deliveries
    assert (delivery.id, delivery.tries, delivery.tries_before) == (delivery_id, 4, 3)


@pytest.mark.parametrize("text", ["evt_0", "evt_" + "0" * 32, "job_" + "0" * 32])
def test_an_unknown_id_is_said_and_no_other_is_tried_again(
    run: Run, store: Store, write: Callable[..., UUID], text: str
) -> None:
    delivery_id = write("failed")
    result = run("deliveries", "retry", f"evt_{delivery_id.hex}", text)
    assert result.exit_code == 1
    assert f"No webhook delivery has the id '{text}': 'headrace deliveries' lists the newest." in result.stderr
    with store.begin() as db:
        assert db.scalars(sa.text("SELECT state FROM deliveries")).all() == ["failed"]
